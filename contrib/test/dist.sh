#!/bin/sh
# Packs the tarball of `make dist`, twice, and in a root of its own goes from it to the first
# download as the README has it.
# usage: contrib/test/dist.sh [BINARY]     as root; the root is a fresh debootstrap, or (with
# WINGLET_TEST_OVERLAY=1, in a tenth of the time) an overlay over this host's own files
set -u
# shellcheck source=SCRIPTDIR/lib.sh
. "$(dirname "$0")/lib.sh"

evidence() {
    tail -n 40 "$work/out" 2>/dev/null
}

work=${WINGLET_INSIDE:-}
if [ -z "$work" ]; then
    need 'the tarball' curl gzip sha256sum start-stop-daemon
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM
    target=$(rustc -vV | sed -n 's/^host: //p')
    for copy in first second; do
        "$contrib/dist.sh" "$binary" "$target" "$work/$copy" >"$work/out" 2>&1 || fail 'the tarball is packed'
    done
    tarball=$(echo "$work"/first/*.tar.gz)
    cmp -s "$tarball" "$work/second/${tarball##*/}" || fail 'packing again makes the same bytes'
    ok "packing ${tarball##*/} again makes the same bytes"
    (cd "$work/first" && sha256sum -c --quiet ./*.sha256 && tar xf "$tarball" && cd winglet-*/ &&
        sha256sum -c --quiet SHA256SUMS) >"$work/out" 2>&1 || fail 'the sums are right'
    (cd "$work"/first/winglet-*/ && sed 's/^[^ ]*  //' SHA256SUMS && echo SHA256SUMS) | LC_ALL=C sort >"$work/named"
    (cd "$work"/first/winglet-*/ && find . -type f | sed 's#^\./##') | LC_ALL=C sort >"$work/there"
    diff "$work/named" "$work/there" >"$work/out" || fail 'every file has a sum'
    for file in winglet NOTICES LICENSE contrib/man/winglet.8 contrib/completions/winglet.bash \
        contrib/sysv/winglet contrib/systemd/winglet.service; do
        [ -s "$(echo "$work"/first/winglet-*/"$file")" ] || fail "the tarball has $file"
    done
    ok 'every file has a sum, and all sums are right'
    mv "$tarball" "$work/"
fi
inside 'from the tarball to a download'

new_root
cp "$work"/winglet-*.tar.gz "$root/tmp/"

within 'cd /tmp && tar xf winglet-*.tar.gz' || fail 'the tarball is unpacked'
within 'INIT=sysv /tmp/winglet-*/install.sh' || fail "installs in $kind"
grep -q 'update-rc.d winglet defaults && service winglet start' "$work/out" || fail 'says how to start it'
grep -q "token into /etc/winglet/config.yml" "$work/out" || fail 'says what to fill in'
# shellcheck disable=SC2016 # for the shell within
within 'getent passwd winglet && [ "$(stat -c "%a %U:%G" /var/lib/winglet)" = "700 winglet:winglet" ] &&
    [ "$(stat -c %a /etc/winglet/config.yml)" = 640 ]' || fail 'user, directories and permissions'
ok "installs in $kind, and says the one command that starts it"

# What the operator has: a server with a file, and a token to fill in.
volume=$root/var/lib/pterodactyl/volumes/$server
mkdir -p "$volume"
head -c 300000 /dev/urandom >"$volume/world.zip"
chmod 0600 "$volume/world.zip"
sed -i -e "s/^token: \"\"/token: \"$token\"/" -e 's/127.0.0.1:8081/127.0.0.1:0/' "$root/etc/winglet/config.yml"
within 'update-rc.d winglet defaults && service winglet start' || fail 'the command starts it'
served() {
    base=$(base "$root/var/log/winglet/winglet.log")
    within "cd / && winglet sign file --server $server --path world.zip --base-url $base" || return 1
    curl -sf -o "$work/got" "$(grep ^http "$work/out")" && cmp -s "$work/got" "$volume/world.zip"
}
served || fail 'serves a file that only root may read'
ok 'from the tarball to the first download in five commands'

cp "$root/etc/winglet/config.yml" "$work/edited"
pid=$(cat "$root/run/winglet.pid")
within 'INIT=sysv /tmp/winglet-*/install.sh' || fail 'installs over itself'
cmp -s "$work/edited" "$root/etc/winglet/config.yml" || fail 'an edited configuration is kept'
[ -d "/proc/$pid" ] || fail 'the running server goes on'
within 'service winglet restart' || fail 'restarts'
served || fail 'serves after an upgrade'
ok 'installing again keeps the edited configuration, and a restart takes the new program'
within 'service winglet stop && /tmp/winglet-*/install.sh uninstall' || fail 'is uninstalled'
for file in usr/local/bin/winglet etc/init.d/winglet; do
    [ ! -e "$root/$file" ] || fail "uninstall removes $file"
done
cmp -s "$work/edited" "$root/etc/winglet/config.yml" || fail 'uninstall keeps an edited configuration'
ok 'uninstall keeps the edited configuration'
