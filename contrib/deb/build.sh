#!/bin/sh
# Makes a Debian package of a built winglet, offline after `cargo fetch`: nothing but dpkg-deb,
# coreutils, and cargo for the licences of the libraries.
# usage: contrib/deb/build.sh [BINARY [DIRECTORY]]
#   BINARY      target/release/winglet if none is given
#   DIRECTORY   where the package goes; target/ if none is given
# environment:
#   VERSION     the package's version (of Cargo.toml)
#   ARCH        its architecture (of this host)
#   DEBFULLNAME, DEBEMAIL   its maintainer
#   CONFIG      the configuration that it brings (contrib/deb/config.yml)
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
binary=$(realpath "${1:-$root/target/release/winglet}")
out=${2:-$root/target}
VERSION=${VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)}
ARCH=${ARCH:-$(dpkg --print-architecture)}
CONFIG=${CONFIG:-$root/contrib/deb/config.yml}
maintainer="${DEBFULLNAME:-The Winglet authors} <${DEBEMAIL:-winglet@packages.example.org}>"
contrib=$root/contrib

[ -x "$binary" ] || { echo "$binary is not there: make build" >&2; exit 1; }
umask 022
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
pkg=$tree/winglet
doc=$pkg/usr/share/doc/winglet
mkdir -p "$pkg/DEBIAN" "$doc/examples" "$out"

# put MODE SOURCE DESTINATION
put() {
    install -D -m "$1" "$2" "$pkg$3"
}

put 0755 "$binary" /usr/bin/winglet
put 0640 "$CONFIG" /etc/winglet/config.yml
put 0644 "$contrib/default/winglet" /etc/default/winglet
put 0755 "$contrib/sysv/winglet" /etc/init.d/winglet
put 0644 "$contrib/logrotate/winglet" /etc/logrotate.d/winglet
put 0644 "$contrib/systemd/winglet.service" /lib/systemd/system/winglet.service
put 0644 "$contrib/systemd/winglet.socket" /lib/systemd/system/winglet.socket
put 0644 "$contrib/man/winglet.8" /usr/share/man/man8/winglet.8
put 0644 "$contrib/man/winglet.yml.5" /usr/share/man/man5/winglet.yml.5
put 0644 "$contrib/completions/winglet.bash" /usr/share/bash-completion/completions/winglet
put 0644 "$contrib/completions/_winglet" /usr/share/zsh/vendor-completions/_winglet
put 0644 "$contrib/completions/winglet.fish" /usr/share/fish/vendor_completions.d/winglet.fish
"$contrib/notices.sh" >"$tree/notices"
cat "$contrib/deb/copyright" "$tree/notices" >"$doc/copyright"
chmod 0644 "$doc/copyright"
for example in nginx.conf Caddyfile haproxy.cfg haproxy.lua haproxy-front-ends.cfg; do
    put 0644 "$contrib/proxy/$example" "/usr/share/doc/winglet/examples/proxy/$example"
done
put 0755 "$contrib/openrc/winglet" /usr/share/doc/winglet/examples/openrc/winglet
put 0644 "$contrib/openrc/winglet.confd" /usr/share/doc/winglet/examples/openrc/winglet.confd
for example in run finish log/run; do
    put 0755 "$contrib/runit/$example" "/usr/share/doc/winglet/examples/runit/$example"
done
if [ -e "$root/README.md" ]; then
    put 0644 "$root/README.md" /usr/share/doc/winglet/README.md
fi

# The date of the last change, so that the same sources make the same package.
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git -C "$root" log -1 --format=%ct 2>/dev/null || date -r "$root/Cargo.toml" +%s)
fi
export SOURCE_DATE_EPOCH
cat >"$doc/changelog.Debian" <<CHANGELOG
winglet ($VERSION-1) unstable; urgency=medium

  * Packaged from the project's own sources; the changes are in changelog.gz.

 -- $maintainer  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
CHANGELOG
if [ -e "$root/CHANGELOG.md" ]; then
    cp "$root/CHANGELOG.md" "$doc/changelog"
else
    echo "$VERSION" >"$doc/changelog"
fi
gzip -9n "$doc/changelog.Debian" "$doc/changelog" \
    "$pkg/usr/share/man/man8/winglet.8" "$pkg/usr/share/man/man5/winglet.yml.5"

overrides=$pkg/usr/share/lintian/overrides/winglet
mkdir -p "$(dirname "$overrides")"
cat >"$overrides" <<'OVERRIDES'
# It may hold the key of the node.
winglet: non-standard-file-perm 0640 != 0644 [etc/winglet/config.yml]
# Not a package of Debian's own archive.
winglet: initial-upload-closes-no-bugs [*]
# daemon-reload and is-active, if systemd runs; the rest goes through its helpers.
winglet: maintainer-script-calls-systemctl [*]
# The licences of two libraries hold that of Apache in the middle of others; they stay verbatim.
winglet: copyright-file-contains-full-apache-2-license
winglet: copyright-not-using-common-license-for-apache2
# A translation of libyaml to Rust (the crate unsafe-libyaml): Debian has no such library to link.
winglet: embedded-library libyaml [usr/bin/winglet]
OVERRIDES

# What the binary needs: asked of dpkg-shlibdeps if it is there, nothing for a static binary.
needs=
if ldd "$binary" >/dev/null 2>&1; then
    needs='libc6, '
    if command -v dpkg-shlibdeps >/dev/null; then
        mkdir "$tree/debian"
        printf 'Source: winglet\n\nPackage: winglet\nArchitecture: any\n' >"$tree/debian/control"
        found=$(cd "$tree" && dpkg-shlibdeps -O "winglet/usr/bin/winglet" 2>/dev/null | sed -n 's/^shlibs:Depends=//p') || found=
        [ -z "$found" ] || needs="$found, "
    fi
else
    echo 'winglet: statically-linked-binary [usr/bin/winglet]' >>"$overrides"
fi

cat >"$pkg/DEBIAN/control" <<CONTROL
Package: winglet
Version: $VERSION-1
Architecture: $ARCH
Maintainer: $maintainer
Installed-Size: $(du -ks --apparent-size "$pkg" | cut -f 1)
Depends: ${needs}adduser, init-system-helpers (>= 1.54~)
Suggests: logrotate, nginx | caddy | haproxy
Section: net
Priority: optional
Homepage: $(sed -n 's/^repository = "\(.*\)"/\1/p' "$root/Cargo.toml")
Description: hand out files and backups of a game-panel node over signed links
 Winglet is the download half of Wings, the daemon of a Pterodactyl node, as
 one small program. It reads the node's own configuration, verifies the links
 that the Panel signs, refuses those that were used up, and sends single files
 and backups, with resuming.
 .
 It runs beside Wings behind a proxy, or alone on a server that keeps backups.
CONTROL
(cd "$pkg" && find etc -type f | sort | sed 's#^#/#') >"$pkg/DEBIAN/conffiles"
for script in postinst prerm postrm; do
    install -m 0755 "$contrib/deb/$script" "$pkg/DEBIAN/$script"
done
(cd "$pkg" && find usr lib -type f | LC_ALL=C sort | xargs md5sum) >"$pkg/DEBIAN/md5sums"
find "$pkg" -depth -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

package=$out/winglet_$VERSION-1_$ARCH.deb
dpkg-deb --root-owner-group --build "$pkg" "$package" >/dev/null
echo "$package"
