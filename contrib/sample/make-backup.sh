#!/bin/sh
# Makes the sample backup from the sample volume: the same bytes wherever the same tar and gzip
# run. Run it after a change to a file in volumes, and commit what it writes.
set -eu
cd "$(dirname "$0")"

server=8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40
backup=3b9a6c1e-52d7-4e0f-8b64-a1d2f3c4e5b6
archive="backups/$server/$backup.tar.gz"
# Sorted byte by byte, whatever the locale.
LC_ALL=C
export LC_ALL

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
trap 'exit 1' INT TERM HUP
tree="$temporary/tree"
mkdir "$tree"
cp -R "volumes/$server/." "$tree/"

# What a checkout's umask makes of permissions must not reach the archive.
find "$tree" -type d -exec chmod 755 {} +
find "$tree" -type f -exec chmod 644 {} +
chmod 600 "$tree/server.properties"
chmod 640 "$tree/logs/latest.log"

# A restored backup is checked with `sha256sum -c .backup.checksum`.
(
    cd "$tree"
    find . -type f | sed 's|^\./||' | sort | while IFS= read -r file; do sha256sum "$file"; done
) >"$temporary/checksum"
mv "$temporary/checksum" "$tree/.backup.checksum"
chmod 644 "$tree/.backup.checksum"

# Names without a leading "./", as Wings writes them; no times but the one given.
(cd "$tree" && find . -mindepth 1 -maxdepth 1 | sed 's|^\./||' | sort) >"$temporary/names"
tar --create --file="$temporary/backup.tar" --directory="$tree" --files-from="$temporary/names" \
    --sort=name --mtime='2026-01-05 10:31:40Z' --owner=1000 --group=1000 --numeric-owner \
    --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime
mkdir -p "backups/$server"
gzip -9 --no-name --stdout "$temporary/backup.tar" >"$archive"
echo "$archive: $(wc -c <"$archive") bytes, sha256 $(sha256sum <"$archive" | cut -d ' ' -f 1)"
