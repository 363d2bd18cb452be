#!/bin/sh
# Packs the tarball of `make dist`, twice, and in a root of its own goes from it to the first
# download as the README has it.
# usage: contrib/test/dist.sh [BINARY]     as root; the root is a fresh debootstrap, or (with
# WINGLET_TEST_OVERLAY=1, in a tenth of the time) an overlay over this host's own files
# shellcheck disable=SC2016,SC2086 # fences of Markdown; $enter is words
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
        (cd "$work" && "$contrib/dist.sh" "$binary" "$target" "$copy") >"$work/out" 2>&1 || fail 'the tarball is packed'
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
# A fresh root has the init scripts of System V only; whatever this host has is in the other one.
init=
case $kind in *overlay*) init=INIT=sysv ;; esac
within "$init /tmp/winglet-*/install.sh" || fail "installs in $kind"
grep -q 'service files of: sysv' "$work/out" || fail 'finds out what starts services here'
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
within 'service winglet stop' || fail 'stops'

# elsewhere PID: it has left our network. Until then, what is done in its name is done to ours.
elsewhere() {
    [ "$(readlink "/proc/$1/ns/net")" != "$(readlink /proc/self/ns/net)" ]
}

# A machine that only holds backups, by the README: its configuration, port 443, reached at an
# address that is not the machine's own loopback.
only_backups() {
    readme=$contrib/../README.md
    certificates=$root/etc/letsencrypt/live/backups.example.com
    mkdir -p "$certificates"
    sed -n '/^### A machine that only holds backups/,/^## /p' "$readme" | sed -n '/^```yaml/,/^```/p' |
        grep -v '^```' >"$root/etc/winglet/config.yml"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=backups.example.com \
        -addext subjectAltName=DNS:backups.example.com -keyout "$certificates/privkey.pem" \
        -out "$certificates/fullchain.pem" >"$work/out" 2>&1 || fail 'a certificate is made'
    grep -v '^BIND_LOW_PORT' "$root/etc/default/winglet" >"$work/default"
    { cat "$work/default" && echo BIND_LOW_PORT=yes; } >"$root/etc/default/winglet"
    within 'umask 077; head -c 32 /dev/urandom | base64 >/etc/winglet/token'
    backup=3b9a6c1e-52d7-4e0f-8b64-a1d2f3c4e5b6
    install -D -m 0600 "$volume/world.zip" "$root/srv/backups/$backup.tar.gz"
    # What it needs of a machine that others reach is one more address.
    unshare --net sleep 300 &
    enter="nsenter --net=/proc/$!/ns/net"
    until_true 5 elsewhere $! || fail 'a network of its own'
    $enter ip link set lo up
    $enter ip address add 192.0.2.7/32 dev lo
    within "service winglet start && cd / && winglet sign backup --server $server --backup $backup --expires 2h" ||
        fail 'a machine that only holds backups starts, on port 443'
    grep -q warning "$work/out" && fail 'sign knows the address'
    url=$(grep '^https://backups.example.com/download/backup' "$work/out") || fail 'the link is for others'
    $enter curl -sf --cacert "$certificates/fullchain.pem" --resolve backups.example.com:443:192.0.2.7 -o "$work/got" "$url" ||
        fail 'the backup is downloaded from outside'
    cmp -s "$work/got" "$volume/world.zip" || fail 'the backup is whole'
    within 'service winglet stop'
    enter=
}
if ! unshare --net true 2>/dev/null || ! command -v ip >/dev/null || ! command -v openssl >/dev/null; then
    skip 'a machine that only holds backups: no network of its own here, no ip or no openssl'
elif "$binary" serve --listen tls:127.0.0.1:0 --config "$work/edited" 2>&1 | grep -q 'build does not have'; then
    skip 'a machine that only holds backups: a build without TLS'
else
    only_backups
    ok 'a machine that only holds backups serves on port 443 as the README has it'
    cp "$work/edited" "$root/etc/winglet/config.yml"
fi

within '/tmp/winglet-*/install.sh uninstall' || fail 'is uninstalled'
for file in usr/local/bin/winglet etc/init.d/winglet; do
    [ ! -e "$root/$file" ] || fail "uninstall removes $file"
done
cmp -s "$work/edited" "$root/etc/winglet/config.yml" || fail 'uninstall keeps an edited configuration'
ok 'uninstall keeps the edited configuration'

for row in systemd:systemd/system openrc:openrc runit:runit; do
    running=$root/run/${row#*:}
    mkdir -p "$running"
    within '/tmp/winglet-*/install.sh' || fail "installs beside ${row%:*}"
    grep -q "service files of: ${row%:*}\$" "$work/out" || fail "finds out that ${row%:*} runs"
    within '/tmp/winglet-*/install.sh uninstall' || fail "is uninstalled beside ${row%:*}"
    rm -r "$running"
done
# The settings were edited above.
find "$root/etc" "$root/usr/local" -name '*winglet*' ! -path '*/etc/winglet' ! -path '*/default/*' \
    ! -path '*/rc?.d/*' >"$work/out"
[ ! -s "$work/out" ] || fail 'uninstall leaves no file of a service'
ok 'finds out what runs: systemd, OpenRC or runit'

# The same with the others, as a new machine has them.
case $kind in
*debootstrap*) within 'apt-get install -y --no-install-recommends openrc runit' ;;
esac
configured() {
    sed -i -e "s/^token: \"\"/token: \"$token\"/" -e 's/127.0.0.1:8081/127.0.0.1:0/' "$root/etc/winglet/config.yml"
}
for file in etc/winglet etc/default/winglet etc/conf.d/winglet var/log/winglet; do
    rm -rf "${root:?}/$file"
done

openrc() {
    # What OpenRC notes at boot.
    for state in daemons exclusive failed hotplugged inactive options scheduled started starting stopping tmp wasinactive; do
        mkdir -p "$root/run/openrc/$state"
    done
    touch "$root/run/openrc/softlevel"
    within '/tmp/winglet-*/install.sh' || fail 'installs with OpenRC'
    configured
    # There is no network service to depend on.
    echo 'rc_need="!net"' >>"$root/etc/conf.d/winglet"
    within "$(tail -n 1 "$work/out")" || fail 'the command that install.sh says starts it'
    served || fail 'serves with OpenRC'
    within 'rc-service winglet stop' || fail 'stops with OpenRC'
    within '/tmp/winglet-*/install.sh uninstall' || fail 'is uninstalled'
    rm -rf "$root/run/openrc" "${root:?}/etc/winglet" "$root/var/log/winglet"
}

runit() {
    mkdir -p "$root/run/runit" "$root/etc/service"
    within '/tmp/winglet-*/install.sh' || fail 'installs with runit'
    configured
    command=$(tail -n 1 "$work/out")
    mkdir -p "$work/services"
    mount --bind "$work/services" "$root/etc/service"
    chroot "$root" runsvdir -P /etc/service >/dev/null 2>&1 &
    within "$command" || fail 'the command that install.sh says'
    log=var/log/winglet/runit/current
    until_true 20 grep -q 'listening on' "$root/$log" || fail 'the command starts it'
    mkdir -p "$root/var/log/winglet" && cp "$root/$log" "$root/var/log/winglet/winglet.log"
    served || fail 'serves with runit'
    within 'sv -w 20 stop winglet' || fail 'stops with runit'
}

if [ -x "$root/sbin/openrc-run" ]; then
    openrc
    ok 'from the tarball to the first download with OpenRC'
else
    skip 'from the tarball with OpenRC: it is not installed'
fi
if [ -x "$root/usr/bin/runsvdir" ]; then
    runit
    ok 'from the tarball to the first download with runit'
else
    skip 'from the tarball with runit: it is not installed'
fi
