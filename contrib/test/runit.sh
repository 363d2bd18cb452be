#!/bin/sh
# Runs the runit service for real, log service included, under a runsvdir of its own.
# usage: contrib/test/runit.sh [BINARY]     as root (privileges are dropped) or as anybody
set -u

here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:-target/release/winglet}")
server=1f1d6f0a-3a5c-4bfb-9a9c-2a5c9d1f0003

ok() {
    echo "ok - $*"
}

[ -x "$binary" ] || { echo "not ok - $binary is not there"; exit 1; }
if command -v shellcheck >/dev/null; then
    shellcheck "$here/../runit/run" "$here/../runit/finish" "$here/../runit/log/run" || exit 1
    ok 'shellcheck finds nothing in the run scripts'
else
    echo 'skip - shellcheck is not installed'
fi
command -v runsvdir >/dev/null || { echo 'skip - the service for real: runit is not installed'; exit 0; }

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

fail() {
    echo "not ok - $*"
    sv status "$service"
    log
    exit 1
}

# until_true SECONDS COMMAND...
until_true() {
    tenths=$(($1 * 10))
    shift
    until "$@" >/dev/null 2>&1; do
        tenths=$((tenths - 1))
        [ "$tenths" -gt 0 ] || return 1
        sleep 0.1
    done
}

logged() {
    log | grep -q "$@"
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
CONFIG
}

mkdir -p "$work/volumes/$server" "$work/backups" "$work/service"
head -c 8000000 /dev/urandom >"$work/volumes/$server/world.zip"
cat >"$work/defaults" <<DEFAULTS
WINGLET_DAEMON=$binary
WINGLET_CONFIG=$work/config.yml
WINGLET_SVLOG_DIR=$work/log
WINGLET_STATEDIR=$work/state
DEFAULTS
if [ "$(id -u)" -eq 0 ]; then
    printf 'WINGLET_USER=nobody\nWINGLET_GROUP=nogroup\n' >>"$work/defaults"
    chmod 0700 "$work/volumes" "$work/backups"
    chmod 0600 "$work/volumes/$server/world.zip"
fi
cp -r "$here/../runit" "$service"
configure ''

WINGLET_DEFAULTS=$work/defaults runsvdir -P "$work/service" >/dev/null 2>&1 &
runsvdir_pid=$!

until_true 15 logged -i token || fail 'a bad configuration is in the log'
sleep 2
[ "$(log | grep -ci token)" -le 2 ] || fail 'a bad configuration is not tried every second'
ok 'a bad configuration is in the log and is not tried every second'

configure runit-test-key-0123456789
until_true 15 logged 'listening on http://' || fail 'comes up once the configuration is sound'
base=$(log | sed -n 's/.*\(listening on \)\(http:[^ ]*\).*/\2/p' | tail -n 1)
sv status "$service" | grep -q '^run:' || fail 'sv status says run'
ok 'comes up once the configuration is sound, and logs through svlogd'

pid=$(cat "$service/supervise/pid")
if [ "$(id -u)" -eq 0 ]; then
    for set in CapEff CapBnd; do
        grep -q "^$set:[[:space:]]0000000000000004\$" "/proc/$pid/status" ||
            fail "$set is CAP_DAC_READ_SEARCH alone: $(grep "^$set" "/proc/$pid/status")"
    done
    grep -q "^Uid:	$(id -u nobody)	" "/proc/$pid/status" || fail 'runs as its own user'
    ok 'runs as its own user with CAP_DAC_READ_SEARCH and nothing else'
else
    echo 'skip - user and capabilities: not root'
fi

link() {
    "$binary" sign file --server "$server" --path world.zip --base-url "$base" --config "$work/config.yml"
}
curl -sf -o "$work/got" "$(link)" || fail 'a file is served'
cmp -s "$work/got" "$work/volumes/$server/world.zip" || fail 'a file is served whole'
ok 'a file is served whole'

sv hup "$service" >/dev/null
sleep 0.5
[ "$(cat "$service/supervise/pid")" = "$pid" ] || fail 'sv hup leaves the server running'
[ "$(curl -s -o /dev/null -w '%{http_code}' "$base/health")" = 200 ] || fail 'serves after sv hup'
ok 'sv hup reloads'

another() {
    new=$(cat "$service/supervise/pid")
    [ -n "$new" ] && [ "$new" != "$pid" ] && [ "$(log | grep -c 'listening on http://')" -eq 2 ]
}
kill -9 "$pid"
until_true 15 another || fail 'a killed server is started again'
base=$(log | sed -n 's/.*\(listening on \)\(http:[^ ]*\).*/\2/p' | tail -n 1)
ok 'a killed server is started again'

curl -sf --limit-rate 2500k -o "$work/slow" "$(link)" &
client=$!
sleep 0.7
sv -w 30 stop "$service" >/dev/null || fail 'sv stop'
wait "$client" || fail 'a running download ends in peace at sv stop'
cmp -s "$work/slow" "$work/volumes/$server/world.zip" || fail 'a download over a stop is whole'
sv status "$service" | grep -q '^down:' || fail 'sv status says down'
ok 'sv stop lets a running download end'
