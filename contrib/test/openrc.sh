#!/bin/sh
# Runs the OpenRC service for real, in mount and process namespaces of its own: an overlay over
# /etc takes the service files, a tmpfs over /run what OpenRC notes.
# usage: contrib/test/openrc.sh [BINARY]     as root, with the package openrc
set -u

here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:-target/release/winglet}")

ok() {
    echo "ok - $*"
}

if [ -z "${WINGLET_INSIDE:-}" ]; then
    [ -x "$binary" ] || { echo "not ok - $binary is not there"; exit 1; }
    if command -v shellcheck >/dev/null; then
        shellcheck -s dash "$here/../openrc/winglet" || exit 1
        ok 'shellcheck finds nothing in the service script'
    else
        echo 'skip - shellcheck is not installed'
    fi
    dash -n "$here/../openrc/winglet" || exit 1
    ok 'dash parses the service script'
    command -v openrc-run >/dev/null || { echo 'skip - the service for real: openrc is not installed'; exit 0; }
    [ "$(id -u)" -eq 0 ] || { echo 'skip - the service for real: not root'; exit 0; }
    unshare --mount --pid --fork true 2>/dev/null || { echo 'skip - the service for real: no namespaces here'; exit 0; }
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    WINGLET_INSIDE=$work unshare --mount --pid --fork --mount-proc --kill-child sh "$here/openrc.sh" "$binary"
    exit
fi

work=$WINGLET_INSIDE
chmod 0755 "$work"
conf=$work/config.yml
server=1f1d6f0a-3a5c-4bfb-9a9c-2a5c9d1f0002

# The files of the test must be on no overlay of their own: one tmpfs for everything.
mount -t tmpfs tmpfs "$work" || exit 1
chmod 0755 "$work"
mkdir -p "$work/upper" "$work/scratch" "$work/volumes/$server" "$work/backups" "$work/bin"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$work/upper,workdir=$work/scratch" /etc ||
    { echo 'skip - the service for real: no overlay file system here'; exit 0; }
mount -t tmpfs tmpfs /run || exit 1
mkdir -p /run/lock /etc/conf.d
for state in daemons exclusive failed hotplugged inactive options scheduled started starting stopping tmp wasinactive; do
    mkdir -p "/run/openrc/$state"
done
touch /run/openrc/softlevel
cp "$binary" "$work/bin/winglet"

fail() {
    echo "not ok - $*"
    cat "$work/out" "$work/log/winglet.log" 2>/dev/null
    exit 1
}

service() {
    rc-service winglet "$@" >"$work/out" 2>&1
}

expect() {
    want=$1
    shift
    service "$@"
    got=$?
    [ "$got" -eq "$want" ] || fail "rc-service winglet $* answers $want, got $got"
}

configure() {
    cat >"$conf" <<CONFIG
token: "$1"
system:
  data: $work/volumes
  backup_directory: $work/backups
winglet:
  listen: ["127.0.0.1:0"]
  state_directory: $work/state
CONFIG
}

head -c 300000 /dev/urandom >"$work/volumes/$server/world.zip"
chmod 0600 "$work/volumes/$server/world.zip"
chmod 0700 "$work/volumes" "$work/backups"
install -m 0755 "$here/../openrc/winglet" /etc/init.d/winglet
install -m 0644 "$here/../openrc/winglet.confd" /etc/conf.d/winglet
# The test has no network service to depend on.
cat >>/etc/conf.d/winglet <<CONF
WINGLET_DAEMON=$work/bin/winglet
WINGLET_CONFIG=$conf
WINGLET_USER=nobody
WINGLET_GROUP=nogroup
WINGLET_STATEDIR=$work/state
WINGLET_LOG=$work/log/winglet.log
WINGLET_START_TIMEOUT=10
rc_need="!net"
CONF

expect 3 status
ok 'status of a stopped service is 3'
configure ''
expect 1 start
grep -qi token "$work/out" || fail 'start with a bad configuration says why'
expect 3 status
ok 'start with a bad configuration fails and says why'

configure openrc-test-key-0123456789
expect 0 start
expect 0 status
base=$(sed -n 's/.*\(listening on \)\(http:[^ ]*\).*/\2/p' "$work/log/winglet.log" | tail -n 1)
[ "$(curl -s -o /dev/null -w '%{http_code}' "$base/health")" = 200 ] || fail 'serves when start returns'
ok 'start waits until it serves'
# The pid of the server itself: the pid file of the service is the supervisor's.
pid=$(cat /run/winglet/ready)
for set in CapEff CapBnd; do
    grep -q "^$set:[[:space:]]0000000000000004\$" "/proc/$pid/status" ||
        [ $set = CapBnd ] || fail "$set is CAP_DAC_READ_SEARCH alone: $(grep "^$set" "/proc/$pid/status")"
done
grep -q "^Uid:	$(id -u nobody)	" "/proc/$pid/status" || fail 'runs as its own user'
ok 'runs as its own user with CAP_DAC_READ_SEARCH'
url=$("$binary" sign file --server "$server" --path world.zip --base-url "$base" --config "$conf")
curl -sf -o "$work/got" "$url" || fail 'a file that only root may read is served'
cmp -s "$work/got" "$work/volumes/$server/world.zip" || fail 'a file is served whole'
ok 'a file that only root may read is served whole'

expect 0 start
[ "$(cat /run/winglet/ready)" = "$pid" ] || fail 'a second start leaves the server alone'
ok 'start twice is fine'
expect 0 reload
[ -d "/proc/$pid" ] || fail 'reload leaves the server running'
ok 'reload'
configure ''
expect 1 reload
[ "$(curl -s -o /dev/null -w '%{http_code}' "$base/health")" = 200 ] || fail 'still serves after a bad reload'
ok 'reload of a bad configuration fails and changes nothing'
configure openrc-test-key-0123456789
kill -9 "$pid"
tries=0
until [ -s /run/winglet/ready ] && [ "$(cat /run/winglet/ready)" != "$pid" ]; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || fail 'a killed server is started again'
    sleep 0.1
done
ok 'a killed server is started again'
pid=$(cat /run/winglet/ready)
expect 0 stop
[ -d "/proc/$pid" ] && fail 'stop ends the server'
expect 3 status
expect 0 stop
ok 'stop, and stop twice'

# An address that this host does not have.
printf 'WINGLET_OPTS="--listen 203.0.113.1:8080"\nWINGLET_START_TIMEOUT=3\n' >>/etc/conf.d/winglet
expect 1 start
grep -q 203.0.113.1 "$work/out" || fail 'a start that does not serve shows the end of the log'
expect 3 status
ok 'start on a wrong address fails, says why, and leaves nothing running'
