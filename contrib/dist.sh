#!/bin/sh
# Packs a built winglet with all that it takes to install it. The same sources and compiler make
# the same bytes.
# usage: contrib/dist.sh BINARY TARGET [DIRECTORY]
#   TARGET      what the binary was built for, such as x86_64-unknown-linux-gnu
#   DIRECTORY   where the tarball goes; target/ if none is given
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
binary=$(realpath "$1")
mkdir -p "${3:-$root/target}"
out=$(realpath "${3:-$root/target}")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
name=winglet-$version-${2%%-*}-linux
# The date of the last change.
: "${SOURCE_DATE_EPOCH:=$(git -C "$root" log -1 --format=%ct 2>/dev/null || date -r "$root/Cargo.toml" +%s)}"

umask 022
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/$name/contrib/deb" "$tree/$name/contrib/bench"
cd "$tree/$name"
install -m 0755 "$binary" winglet
install -m 0755 "$root/contrib/install.sh" install.sh
for file in README.md CHANGELOG.md SECURITY.md LICENSE config.yml; do
    install -m 0644 "$root/$file" "$file"
done
# What the documents name and the tarball does not have is on the web.
web=$(sed -n 's/^repository = "\(.*\)"/\1/p' "$root/Cargo.toml")/blob/v$version
"$root/contrib/notices.sh" --target "$2" >NOTICES
for directory in completions default logrotate man metrics openrc proxy runit systemd sysv; do
    cp -R "$root/contrib/$directory" contrib/
done
install -m 0644 "$root/contrib/deb/config.yml" contrib/deb/
install -m 0644 "$root/contrib/flow.svg" contrib/
install -m 0644 "$root/contrib/bench/neighbour.svg" "$root/contrib/bench/results.svg" contrib/bench/
for text in *.md; do
    grep -o '](\([^)#]*\)' "$text" | sed 's/^](//' | grep -v '^[a-z]*://' | sort -u | while read -r target; do
        [ -z "$target" ] || [ -e "$target" ] || sed -i "s#](${target}\([)\#]\)#]($web/${target}\1#g" "$text"
    done
done
chmod -R u=rwX,go=rX .
find . -type f | LC_ALL=C sort | sed 's#^\./##' | xargs sha256sum >"$tree/sums"
mv "$tree/sums" SHA256SUMS
cd "$tree"
tar --create --format ustar --sort name --owner 0 --group 0 --numeric-owner --mtime "@$SOURCE_DATE_EPOCH" \
    "$name" | gzip -9n >"$out/$name.tar.gz"
(cd "$out" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
echo "$out/$name.tar.gz"
