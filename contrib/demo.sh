#!/bin/sh
# A tour of Winglet on the sample node: `make demo`, or contrib/demo.sh path/to/winglet.
# It serves on a free port of this machine and leaves nothing behind.
set -eu

if [ $# -ne 1 ] || [ ! -x "$1" ]; then
    echo "usage: $0 path/to/winglet" >&2
    exit 2
fi
command -v curl >/dev/null || { echo "$0: curl is missing" >&2; exit 2; }

winglet=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
root=$(cd "$(dirname "$0")/.." && pwd)
sample=$root/contrib/sample
server=8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40
backup=3b9a6c1e-52d7-4e0f-8b64-a1d2f3c4e5b6
path='config/règles du jeu.txt'
# Neither of them may change what the tour shows.
unset WINGS_TOKEN WINGLET_CONFIG RUST_LOG

temporary=$(mktemp -d)
pid=
cleanup() {
    if [ -n "$pid" ]; then
        kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    fi
    rm -rf "$temporary"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

config=$temporary/config.yml
log=$temporary/log

say() { printf '\n%s\n' "$*"; }
indent() { sed 's/^/    /'; }
# A link is a secret until it is used, and long: show the beginning of its token only.
shorten() { sed 's/\(token=[A-Za-z0-9_-]\{12\}\)[A-Za-z0-9_.-]*/\1.../g'; }
show() { printf '    $ %s\n' "$*" | shorten; }
fail() {
    echo "demo: $*" >&2
    [ ! -s "$log" ] || { echo "demo: the server's log:" >&2; shorten <"$log" >&2; }
    exit 1
}
# wait_for WHAT COMMAND...: until the command succeeds, for ten seconds at most.
wait_for() {
    what=$1
    shift
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || fail "no $what within ten seconds"
        kill -0 "$pid" 2>/dev/null || fail "the server ended early"
        sleep 0.1
    done
}
ready() {
    url=$(sed -n 's|.*listening on \(http://[0-9.:]*\).*|\1|p' "$log" | head -n 1)
    [ -n "$url" ]
}
delivered() { [ "$(grep -c delivered "$log")" -ge "$1" ]; }
# sign ARGUMENTS: what else is said there is the name of the file again.
sign() {
    "$winglet" sign "$@" --base-url "$url" --config "$config" 2>"$temporary/said" ||
        { cat "$temporary/said" >&2 && return 1; }
}
# download LINK FILE: fetches the link and shows the answer's head.
download() {
    show "curl --dump-header - --output $(basename "$2") '$1'"
    curl --noproxy '*' --silent --show-error --max-time 30 --dump-header "$temporary/head" --output "$2" "$1" ||
        fail "the download of $(basename "$2") failed"
    tr -d '\r' <"$temporary/head" | sed '/^$/d' | indent
}

say "A game node keeps servers' files and backups, and a config.yml with the key that its Panel
signs download links with. Winglet reads that file; here it is the sample's, on a free port and
with a directory for the memory of used links."
mkdir "$temporary/state"
sed -e "s|^  data: .*|  data: \"$sample/volumes\"|" \
    -e "s|^  backup_directory: .*|  backup_directory: \"$sample/backups\"|" \
    -e "s|^  listen: .*|  listen: [\"127.0.0.1:0\"]|" \
    -e "s|^  state_directory: .*|  state_directory: \"$temporary/state\"|" \
    "$root/config.yml" >"$config"
show "winglet check --config config.yml"
"$winglet" check --config "$config" 2>&1 | indent

say "It starts as one process."
show "winglet serve --config config.yml"
"$winglet" serve --config "$config" >"$log" 2>&1 &
pid=$!
wait_for "ready server" ready
indent <"$log"

say "The Panel would sign a link to a file. Here \`winglet sign\` does it, with the same key."
show "winglet sign file --server $server --path '$path' --base-url $url"
file_link=$(sign file --server "$server" --path "$path")
echo "$file_link" | shorten | indent

say "Whoever has the link downloads the file, under its own name."
download "$file_link" "$temporary/file"
cmp "$temporary/file" "$sample/volumes/$server/$path" || fail "the file differs"
say "The bytes are the file's (cmp agrees)."
indent <"$temporary/file"

say "A backup works alike."
show "winglet sign backup --server $server --backup $backup --base-url $url"
backup_link=$(sign backup --server "$server" --backup "$backup")
download "$backup_link" "$temporary/backup.tar.gz"
cmp "$temporary/backup.tar.gz" "$sample/backups/$server/$backup.tar.gz" || fail "the backup differs"

say "The bytes are the backup's. It holds the server's files, with their permissions:"
show "tar --list --verbose --file backup.tar.gz"
tar -tvzf "$temporary/backup.tar.gz" | indent

say "A link is good for one whole download. The second attempt is refused:"
# The first is over for the server when the client has acknowledged its end, a moment later.
wait_for "end of both downloads in the log" delivered 2
show "curl '$backup_link'"
status=$(curl --noproxy '*' --silent --show-error --max-time 30 --output "$temporary/refusal" --write-out '%{http_code}' "$backup_link")
indent <"$temporary/refusal"
printf '\n    (status %s)\n' "$status"
[ "$status" = 401 ] || fail "status 401 was expected"

say "What is wrong with a link, \`winglet explain\` tells the operator, without using it:"
show "winglet explain '$backup_link'"
"$winglet" explain "$backup_link" --config "$config" >"$temporary/explained" 2>&1 || true
shorten <"$temporary/explained" | indent

say "The log has one line for each request, and never a token:"
grep -E ' (GET|HEAD) (file|backup) ' "$log" | indent || true
for link in "$file_link" "$backup_link"; do
    if grep -qF "${link#*token=}" "$log"; then fail "a token is in the log"; fi
done

say "SIGTERM lets running downloads end, then stops the server."
show "kill -TERM $pid"
kill -TERM "$pid"
status=0
wait "$pid" || status=$?
pid=
tail -n 1 "$log" | indent
say "The server has ended with status $status. That was the tour."
[ "$status" -eq 0 ]
