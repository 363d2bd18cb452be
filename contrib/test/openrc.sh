#!/bin/sh
# Runs the OpenRC service for real, in mount and process namespaces of its own: an overlay over
# /etc takes the service files, a tmpfs over /run what OpenRC notes.
# usage: contrib/test/openrc.sh [BINARY]     as root, with the package openrc
set -u
# shellcheck source=SCRIPTDIR/lib.sh
. "$(dirname "$0")/lib.sh"

evidence() {
    cat "$work/out" "$work/log/winglet.log" 2>/dev/null
}

work=${WINGLET_INSIDE:-}
if [ -z "$work" ]; then
    lint -s dash "$contrib/openrc/winglet"
    need 'the service for real' openrc-run curl
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    chmod 0755 "$work"
fi
inside 'the service for real'

# The files of the test must be on no overlay of their own: one tmpfs for everything.
mount -t tmpfs tmpfs "$work" || exit 1
chmod 0755 "$work"
mkdir -p "$work/upper" "$work/scratch" "$work/bin"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$work/upper,workdir=$work/scratch" /etc ||
    { skip 'the service for real: no overlay file system here'; exit 0; }
mount -t tmpfs tmpfs /run || exit 1
mkdir -p /run/lock /etc/conf.d
for state in daemons exclusive failed hotplugged inactive options scheduled started starting stopping tmp wasinactive; do
    mkdir -p "/run/openrc/$state"
done
touch /run/openrc/softlevel
cp "$binary" "$work/bin/winglet"

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

node 300000
install -m 0755 "$contrib/openrc/winglet" /etc/init.d/winglet
install -m 0644 "$contrib/openrc/winglet.confd" /etc/conf.d/winglet
# The test has no network service to depend on.
cat >>/etc/conf.d/winglet <<CONF
WINGLET_DAEMON=$work/bin/winglet
WINGLET_CONFIG=$work/config.yml
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

configure "$token"
expect 0 start
expect 0 status
base=$(base "$work/log/winglet.log")
healthy "$base" || fail 'serves when start returns'
ok 'start waits until it serves'
# The pid of the server itself: the pid file of the service is the supervisor's.
pid=$(cat /run/winglet/ready)
confined "$pid" CapEff
serves "$base" || fail 'a file that only root may read is served whole'
ok 'a file that only root may read is served whole'

expect 0 start
[ "$(cat /run/winglet/ready)" = "$pid" ] || fail 'a second start leaves the server alone'
ok 'start twice is fine'
expect 0 reload
[ -d "/proc/$pid" ] || fail 'reload leaves the server running'
ok 'reload'
configure ''
expect 1 reload
healthy "$base" || fail 'still serves after a bad reload'
ok 'reload of a bad configuration fails and changes nothing'
expect 1 restart
grep -qi token "$work/out" || fail 'restart into a bad configuration says why'
[ "$(cat /run/winglet/ready)" = "$pid" ] || fail 'restart into a bad configuration leaves the server alone'
healthy "$base" || fail 'still serves after a bad restart'
ok 'restart into a bad configuration leaves the running server alone'
configure "$token"
kill -9 "$pid"
another() {
    [ -s /run/winglet/ready ] && [ "$(cat /run/winglet/ready)" != "$pid" ]
}
until_true 20 another || fail 'a killed server is started again'
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
