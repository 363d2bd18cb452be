#!/bin/sh
# Runs the runit service for real, log service included, under a runsvdir of its own.
# usage: contrib/test/runit.sh [BINARY]     as root (privileges are dropped) or as anybody
set -u
# shellcheck source=SCRIPTDIR/lib.sh
. "$(dirname "$0")/lib.sh"

lint "$contrib/runit/run" "$contrib/runit/finish" "$contrib/runit/log/run"
need 'the service for real' runsvdir curl
work=$(mktemp -d)
chmod 0755 "$work"
service=$work/service/winglet
runsvdir_pid=

# runsvdir goes first, so that it starts nothing again; a runsv ends after its log service has.
cleanup() {
    if [ -n "$runsvdir_pid" ]; then
        kill "$runsvdir_pid" 2>/dev/null
        wait "$runsvdir_pid" 2>/dev/null
        sv -w 40 force-stop "$service" >/dev/null 2>&1
        sv -w 10 exit "$service" "$service/log" >/dev/null 2>&1
    fi
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

log() {
    cat "$work/log/current" 2>/dev/null
}

logged() {
    log | grep -q "$@"
}

evidence() {
    sv status "$service"
    log
}

node 8000000
mkdir -p "$work/service"
cat >"$work/defaults" <<DEFAULTS
WINGLET_DAEMON=$binary
WINGLET_CONFIG=$work/config.yml
WINGLET_SVLOG_DIR=$work/log
WINGLET_STATEDIR=$work/state
DEFAULTS
! is_root || printf 'WINGLET_USER=nobody\nWINGLET_GROUP=nogroup\n' >>"$work/defaults"
cp -r "$contrib/runit" "$service"
configure ''

WINGLET_DEFAULTS=$work/defaults runsvdir -P "$work/service" >/dev/null 2>&1 &
runsvdir_pid=$!

until_true 15 logged -i token || fail 'a bad configuration is in the log'
sleep 2
[ "$(log | grep -ci token)" -le 2 ] || fail 'a bad configuration is not tried every second'
ok 'a bad configuration is in the log and is not tried every second'

configure "$token"
until_true 15 logged 'listening on http://' || fail 'comes up once the configuration is valid'
base=$(base "$work/log/current")
sv status "$service" | grep -q '^run:' || fail 'sv status says run'
ok 'comes up once the configuration is valid, and logs through svlogd'

pid=$(cat "$service/supervise/pid")
if is_root; then
    confined "$pid" CapEff CapBnd
else
    skip 'user and capabilities: not root'
fi
serves "$base" || fail 'a file is served whole'
ok 'a file is served whole'

sv hup "$service" >/dev/null
sleep 0.5
[ "$(cat "$service/supervise/pid")" = "$pid" ] || fail 'sv hup leaves the server running'
healthy "$base" || fail 'serves after sv hup'
ok 'sv hup reloads'
configure ''
WINGLET_CONFIG=$work/config.yml "$binary" check --quiet >"$work/checked" 2>&1 && fail 'check refuses a bad configuration'
grep -qi token "$work/checked" || fail 'check says what is wrong'
sv hup "$service" >/dev/null
until_true 10 logged 'the configuration has errors; the one in force stays' || fail 'a bad reload is in the log'
healthy "$base" || fail 'still serves after a bad reload'
configure "$token"
ok 'a bad reload is said, by check and in the log, and changes nothing'

another() {
    new=$(cat "$service/supervise/pid")
    [ -n "$new" ] && [ "$new" != "$pid" ] && [ "$(log | grep -c 'listening on http://')" -eq 2 ]
}
kill -9 "$pid"
until_true 15 another || fail 'a killed server is started again'
base=$(base "$work/log/current")
ok 'a killed server is started again'

curl -sf --limit-rate 2500k -o "$work/slow" "$(link "$base")" &
client=$!
sleep 0.7
sv -w 30 stop "$service" >/dev/null || fail 'sv stop'
wait "$client" || fail 'a running download is finished at sv stop'
cmp -s "$work/slow" "$file" || fail 'a download over a stop is whole'
sv status "$service" | grep -q '^down:' || fail 'sv status says down'
ok 'sv stop lets a running download end'
