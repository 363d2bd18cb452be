#!/bin/sh
# Drives the init script (contrib/sysv/winglet) with the real binary, in a directory of its own.
# usage: contrib/test/sysv.sh [BINARY]     as root (privileges are dropped) or as anybody
set -u

here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:-target/release/winglet}")
script=$here/../sysv/winglet
server=1f1d6f0a-3a5c-4bfb-9a9c-2a5c9d1f0001
work=$(mktemp -d)
chmod 0755 "$work"

init() {
    WINGLET_DEFAULTS=$work/defaults dash "$script" "$@" >"$work/out" 2>&1
}

cleanup() {
    init stop
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

ok() {
    echo "ok - $*"
}

fail() {
    echo "not ok - $*"
    echo "--- the script said:"
    cat "$work/out"
    echo "--- the log:"
    tail -n 30 "$work/log/winglet.log" 2>/dev/null
    exit 1
}

# expect STATUS ACTION: runs the action and compares its exit status.
expect() {
    want=$1
    shift
    init "$@"
    got=$?
    [ "$got" -eq "$want" ] || fail "$* answers $want, got $got"
}

configure() {
    cat >"$work/config.yml" <<CONFIG
token: "$1"
system:
  data: $work/volumes
  backup_directory: $work/backups
winglet:
  listen: ["127.0.0.1:0"]
  state_directory: $work/state
  timeouts: { drain: 20s }
CONFIG
}

for tool in dash start-stop-daemon curl; do
    command -v "$tool" >/dev/null || { echo "skip - no $tool on this host"; exit 0; }
done
[ -x "$binary" ] || { echo "not ok - $binary is not there"; exit 1; }
ln -s "$binary" "$work/winglet"

mkdir -p "$work/volumes/$server" "$work/backups"
head -c 8000000 /dev/urandom >"$work/volumes/$server/world.zip"
cat >"$work/defaults" <<DEFAULTS
WINGLET_DAEMON=$work/winglet
WINGLET_CONFIG=$work/config.yml
WINGLET_PIDFILE=$work/winglet.pid
WINGLET_RUNDIR=$work/run
WINGLET_STATEDIR=$work/state
WINGLET_LOG=$work/log/winglet.log
WINGLET_START_TIMEOUT=15
WINGLET_STOP_TIMEOUT=30
DEFAULTS
root=no
if [ "$(id -u)" -eq 0 ]; then
    root=yes
    printf 'WINGLET_USER=nobody\nWINGLET_GROUP=nogroup\n' >>"$work/defaults"
    # As Wings leaves them: backups and volumes that the service's user has no permission for.
    chmod 0700 "$work/volumes" "$work/backups" "$work/volumes/$server"
    chmod 0600 "$work/volumes/$server/world.zip"
fi

expect 3 status
ok 'status of a server that never ran is 3'
expect 0 stop
ok 'stop when nothing runs is fine'
expect 7 reload
ok 'reload when nothing runs is 7'
expect 2 frobnicate
ok 'an unknown action is 2 and prints the usage'

expect 6 start
grep -q config.yml "$work/out" || fail 'start without a configuration names the file'
ok 'start without a configuration is 6 and names the file'

configure ''
expect 1 start
grep -qi token "$work/out" || fail 'start with a bad configuration shows why'
expect 3 status
ok 'start with a bad configuration is 1, shows the key, and leaves nothing behind'

configure sysv-test-key-0123456789
expect 0 start
grep -q 'listening on http://' "$work/out" || fail 'start says where it listens'
pid=$(cat "$work/winglet.pid")
base=$(sed -n 's/.*\(listening on \)\(http:[^ ]*\).*/\2/p' "$work/log/winglet.log" | tail -n 1)
[ "$(curl -s -o /dev/null -w '%{http_code}' "$base/health")" = 200 ] || fail 'serves when start returns'
ok "start waits until it serves ($base)"
expect 0 status
ok 'status is 0 while it runs'
expect 0 start
[ "$(cat "$work/winglet.pid")" = "$pid" ] || fail 'a second start leaves the first server alone'
ok 'start twice is fine and starts nothing'

if [ $root = yes ]; then
    uid=$(id -u nobody)
    grep -q "^Uid:	$uid	$uid	$uid	$uid" "/proc/$pid/status" || fail 'runs as its own user'
    for set in CapEff CapPrm CapBnd; do
        grep -q "^$set:[[:space:]]0000000000000004\$" "/proc/$pid/status" ||
            fail "$set is CAP_DAC_READ_SEARCH alone: $(grep "^$set" "/proc/$pid/status")"
    done
    grep -q '^NoNewPrivs:[[:space:]]1$' "/proc/$pid/status" || fail 'cannot gain privileges'
    ok 'runs as its own user with CAP_DAC_READ_SEARCH and nothing else'
else
    echo 'skip - user and capabilities: not root'
fi

link() {
    "$binary" sign file --server "$server" --path world.zip --base-url "$base" --config "$work/config.yml"
}
curl -sf -o "$work/got" "$(link)" || fail 'a file that only root may read is served'
cmp -s "$work/got" "$work/volumes/$server/world.zip" || fail 'a file is served whole'
ok 'a file is served whole'

expect 0 reload
ok 'reload is 0'
configure ''
expect 1 reload
grep -qi token "$work/out" || fail 'reload of a bad configuration shows why'
[ "$(curl -s -o /dev/null -w '%{http_code}' "$base/health")" = 200 ] || fail 'still serves after a bad reload'
ok 'reload of a bad configuration is 1, says why, and changes nothing'
expect 1 restart
[ "$(cat "$work/winglet.pid")" = "$pid" ] || fail 'a restart into a bad configuration leaves the server running'
ok 'restart into a bad configuration leaves the running server alone'
configure sysv-test-key-0123456789
expect 0 force-reload
[ "$(cat "$work/winglet.pid")" = "$pid" ] || fail 'force-reload reloads'
ok 'force-reload reloads'
expect 0 restart
[ "$(cat "$work/winglet.pid")" != "$pid" ] || fail 'restart starts a new server'
[ -d "/proc/$pid" ] && fail 'restart ends the old server'
base=$(sed -n 's/.*\(listening on \)\(http:[^ ]*\).*/\2/p' "$work/log/winglet.log" | tail -n 1)
ok 'restart starts a new server'

# About three seconds of download, of which stop must wait for the rest.
curl -sf --limit-rate 2500k -o "$work/slow" "$(link)" &
client=$!
sleep 0.7
expect 0 stop
wait "$client" || fail 'a running download ends in peace at stop'
cmp -s "$work/slow" "$work/volumes/$server/world.zip" || fail 'a download over a stop is whole'
ok 'stop lets a running download end'
expect 3 status
[ -e "$work/winglet.pid" ] && fail 'stop removes the pid file'
ok 'stop leaves no pid file, status is 3'
expect 0 try-restart
expect 3 status
ok 'try-restart of a stopped server starts nothing'

expect 0 start
kill -9 "$(cat "$work/winglet.pid")"
sleep 0.3
expect 1 status
ok 'status of a killed server is 1'
expect 0 start
expect 0 status
ok 'start after a kill works'
expect 0 stop
expect 0 stop
ok 'stop twice is fine'

# An address that this host does not have.
echo "WINGLET_OPTS='--listen 203.0.113.1:8080'" >>"$work/defaults"
expect 1 start
grep -q 203.0.113.1 "$work/out" || fail 'start on a wrong address names it'
ok 'start on an address that cannot be bound is 1 and names it'
