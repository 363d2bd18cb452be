#!/bin/sh
# Drives the init script (contrib/sysv/winglet) with the real binary, in a directory of its own.
# usage: contrib/test/sysv.sh [BINARY]     as root (privileges are dropped) or as anybody
set -u
# shellcheck source=SCRIPTDIR/lib.sh
. "$(dirname "$0")/lib.sh"

need 'the init script' dash start-stop-daemon curl
work=$(mktemp -d)
chmod 0755 "$work"

init() {
    WINGLET_DEFAULTS=$work/defaults dash "$contrib/sysv/winglet" "$@" >"$work/out" 2>&1
}

cleanup() {
    init stop
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

evidence() {
    echo "--- the script said:"
    cat "$work/out"
    echo "--- the log:"
    tail -n 30 "$work/log/winglet.log" 2>/dev/null
}

# expect STATUS ACTION: runs the action and compares its exit status.
expect() {
    want=$1
    shift
    init "$@"
    got=$?
    [ "$got" -eq "$want" ] || fail "$* answers $want, got $got"
}

ln -s "$binary" "$work/winglet"
node 8000000
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
! is_root || printf 'WINGLET_USER=nobody\nWINGLET_GROUP=nogroup\n' >>"$work/defaults"

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

configure "$token"
expect 0 start
grep -q 'listening on http://' "$work/out" || fail 'start says where it listens'
pid=$(cat "$work/winglet.pid")
base=$(base "$work/log/winglet.log")
healthy "$base" || fail 'serves when start returns'
ok "start waits until it serves ($base)"
expect 0 status
ok 'status is 0 while it runs'
expect 0 start
[ "$(cat "$work/winglet.pid")" = "$pid" ] || fail 'a second start leaves the first server alone'
ok 'start twice is fine and starts nothing'

if is_root; then
    grep -q '^NoNewPrivs:[[:space:]]1$' "/proc/$pid/status" || fail 'cannot gain privileges'
    confined "$pid" CapEff CapPrm CapBnd
else
    skip 'user and capabilities: not root'
fi
serves "$base" || fail 'a file is served whole'
ok 'a file that only root may read is served whole'

expect 0 reload
ok 'reload is 0'
configure ''
expect 1 reload
grep -qi token "$work/out" || fail 'reload of a bad configuration shows why'
healthy "$base" || fail 'still serves after a bad reload'
ok 'reload of a bad configuration is 1, says why, and changes nothing'
expect 1 restart
[ "$(cat "$work/winglet.pid")" = "$pid" ] || fail 'a restart into a bad configuration leaves the server running'
ok 'restart into a bad configuration leaves the running server alone'
configure "$token"
expect 0 force-reload
[ "$(cat "$work/winglet.pid")" = "$pid" ] || fail 'force-reload reloads'
ok 'force-reload reloads'
expect 0 restart
[ "$(cat "$work/winglet.pid")" != "$pid" ] || fail 'restart starts a new server'
[ -d "/proc/$pid" ] && fail 'restart ends the old server'
base=$(base "$work/log/winglet.log")
ok 'restart starts a new server'

# Wings' file first, ours second: `wings configure` writes the first one anew.
mv "$work/config.yml" "$work/ours.yml"
sed -i 's/^token: .*/token: ""/' "$work/ours.yml"
echo "token: \"$token\"" >"$work/config.yml"
cp "$work/defaults" "$work/defaults.one"
echo "WINGLET_CONFIG=$work/config.yml:$work/ours.yml" >>"$work/defaults"
expect 0 restart
pid=$(cat "$work/winglet.pid")
token=another-key-of-the-panel
echo "token: \"$token\"" >"$work/config.yml"
expect 0 reload
base=$(base "$work/log/winglet.log")
link=$("$binary" sign file --server "$server" --path world.zip --base-url "$base" \
    --config "$work/config.yml" --config "$work/ours.yml")
reloaded() {
    curl -sf -o "$work/got" "$link" && cmp -s "$work/got" "$file"
}
until_true 10 reloaded || fail 'the token that Wings has now is in force'
[ "$(cat "$work/winglet.pid")" = "$pid" ] || fail 'a new token of Wings takes no restart'
mv "$work/config.yml" "$work/wings.yml"
expect 1 reload
expect 6 restart
grep -q "no configuration at $work/config.yml" "$work/out" || fail 'a missing one of two files is named'
ok 'of two files the first brings the token, and a new one takes a reload only'
mv "$work/defaults.one" "$work/defaults"
configure "$token"
expect 0 restart
base=$(base "$work/log/winglet.log")

# About three seconds of download, of which stop must wait for the rest.
curl -sf --limit-rate 2500k -o "$work/slow" "$(link "$base")" &
client=$!
sleep 0.7
expect 0 stop
wait "$client" || fail 'a running download is finished at stop'
cmp -s "$work/slow" "$file" || fail 'a download over a stop is whole'
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
