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
    (cd "$work"/first/winglet-*/ && for text in *.md; do
        grep -o '](\([^)#]*\))' "$text" | sed 's/^](//; s/)$//' | grep -v '^[a-z]*://' | while read -r target; do
            [ -z "$target" ] || [ -e "$target" ] || echo "$text: $target"
        done
    done) >"$work/out"
    [ ! -s "$work/out" ] || fail 'no document of the tarball names a file that is not in it'
    ok 'no document of the tarball names a file that is not in it'
    # One file runs where there is no other: no library, no /etc, no /proc.
    if ldd "$binary" 2>&1 | grep -q 'not a dynamic\|statically linked' && is_root; then
        bare=$work/bare
        mkdir -p "$bare/volumes/$server" "$bare/backups" "$bare/tmp"
        cp "$binary" "$bare/winglet"
        echo content >"$bare/volumes/$server/a"
        printf 'token: "%s"\nsystem: { data: /volumes, backup_directory: /backups }\nwinglet: { listen: ["127.0.0.1:0"] }\n' \
            "$token" >"$bare/config.yml"
        chroot "$bare" /winglet serve -c /config.yml 2>"$work/out" &
        pid=$!
        until_true 10 grep -q 'listening on' "$work/out" || fail 'serves in a root with nothing else'
        base=$(base "$work/out")
        url=$(chroot "$bare" /winglet sign file -c /config.yml --server "$server" --path a --base-url "$base")
        got=$(curl -sf "$url")
        kill "$pid"
        wait "$pid" || fail 'ends well in a root with nothing else'
        [ "$got" = content ] || fail 'serves a file in a root with nothing else'
        ok 'serves in a root with nothing else'
    else
        skip 'a root with nothing else: not a static binary, or not root'
    fi
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
grep -q '^Nothing changed: winglet ' "$work/out" || fail 'installing the same again says so'
[ ! -e "$root/etc/winglet/config.yml.new" ] || fail 'the same sample is not put beside the edited one'
# Another program, as a new version is.
echo >>"$(echo "$root"/tmp/winglet-*/winglet)"
within 'INIT=sysv /tmp/winglet-*/install.sh' || fail 'installs over itself'
for words in '^What changed' '^  /usr/local/bin/winglet$' '^  service winglet restart$'; do
    grep -q "$words" "$work/out" || fail "says what changed and how to restart: $words"
done
[ "$(grep -c '^  /' "$work/out")" -eq 1 ] || fail 'says nothing of what is the same'
cmp -s "$work/edited" "$root/etc/winglet/config.yml" || fail 'an edited configuration is kept'
[ -d "/proc/$pid" ] || fail 'the running server goes on'
ok 'installing over a running server says what changed and how to restart, and keeps the edited configuration'
within 'INIT=sysv /tmp/winglet-*/install.sh upgrade' || fail 'upgrades'
[ ! -d "/proc/$pid" ] || fail 'an upgrade restarts the server'
grep -q '^Upgraded and restarted: winglet ' "$work/out" || fail 'an upgrade says what it did'
served || fail 'serves after an upgrade'
pid=$(cat "$root/run/winglet.pid")
sed -i 's/^winglet:/winglet:\n  treads: 1/' "$root/etc/winglet/config.yml"
within 'INIT=sysv /tmp/winglet-*/install.sh upgrade' && fail 'an upgrade into a bad configuration fails'
grep -q 'winglet.treads: is an unknown key' "$work/out" || fail 'and says what is wrong with it'
[ -d "/proc/$pid" ] || fail 'the old server goes on'
cp "$work/edited" "$root/etc/winglet/config.yml"
ok 'an upgrade restarts the server, but not into a configuration with errors'
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
    sed -n '/^## A machine that only holds backups/,/^## /p' "$readme" | sed -n '/^```yaml/,/^```/p' |
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
elif "$binary" serve --listen tls:127.0.0.1:0 --config "$work/edited" 2>&1 | grep -q 'this build lacks'; then
    skip 'a machine that only holds backups: a build without TLS'
else
    only_backups
    ok 'a machine that only holds backups serves on port 443 as the README has it'
    cp "$work/edited" "$root/etc/winglet/config.yml"
fi

within 'service winglet start' || fail 'starts'
pid=$(cat "$root/run/winglet.pid")
within '/tmp/winglet-*/install.sh uninstall' || fail 'is uninstalled'
[ ! -d "/proc/$pid" ] || fail 'uninstall stops the server first'
[ -z "$(find "$root"/etc/rc?.d -name '*winglet*')" ] || fail 'uninstall leaves no dangling link'
for stays in /etc/winglet/config.yml /var/lib/winglet /var/log/winglet 'the user winglet'; do
    grep -q "^  $stays" "$work/out" || fail "uninstall says that $stays stays"
done
for file in usr/local/bin/winglet etc/init.d/winglet; do
    [ ! -e "$root/$file" ] || fail "uninstall removes $file"
done
cmp -s "$work/edited" "$root/etc/winglet/config.yml" || fail 'uninstall keeps an edited configuration'
ok 'uninstall stops the server, leaves no link, and says what stays'

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
    >"$work/out"
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
    within '/tmp/winglet-*/install.sh uninstall' || fail 'is uninstalled'
    within 'rc-service winglet status' && fail 'uninstall stops the server'
    [ -z "$(find "$root"/etc/runlevels -name winglet)" ] || fail 'uninstall leaves no link in a runlevel'
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
    pid=$(cat "$root/etc/sv/winglet/supervise/pid")
    within '/tmp/winglet-*/install.sh uninstall' || fail 'is uninstalled'
    [ ! -d "/proc/$pid" ] || fail 'uninstall stops the server'
    for left in "$root/etc/sv/winglet" "$root/etc/service/winglet"; do
        if [ -e "$left" ] || [ -L "$left" ]; then fail 'uninstall leaves nothing of the service'; fi
    done
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
