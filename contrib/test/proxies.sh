#!/bin/sh
# The shipped proxy examples, ports and paths substituted, in front of the real binary: bytes,
# resume, downloads that break off, the client's true address, a forged one, and what the proxy puts
# on disk meanwhile.
# usage: contrib/test/proxies.sh [BINARY]     WINGLET_TEST_MIB sets the size (1024)
set -u
# shellcheck source=SCRIPTDIR/lib.sh
. "$(dirname "$0")/lib.sh"

mib=${WINGLET_TEST_MIB:-1024}
name=node.example.com
client=127.0.0.2
forged=203.0.113.9
# An address of our own: nobody else's connection can be in the way of the port.
address=127.99.$(($$ / 250 % 250)).$(($$ % 250 + 1))
front=8443

need 'the proxies' openssl curl
work=$(mktemp -d)
# nginx' workers give up root's rights.
chmod 0755 "$work"
started=

cleanup() {
    for pid in $started; do
        kill "$pid" 2>/dev/null
    done
    for pid in $started; do
        wait "$pid" 2>/dev/null
    done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

evidence() {
    for log in "$work"/*.log; do
        echo "--- $log"
        tail -n 20 "$log"
    done
}

# serve NAME: starts Winglet with NAME.yml on free ports; sets $port, $control_port and $pid.
serve() {
    cat >"$work/$1.yml" <<CONFIG
token: "$token"
api:
  trusted_proxies: ["127.0.0.1"]
system:
  data: $work/volumes
  backup_directory: $work/backups
winglet:
  listen: ["127.0.0.1:0"]
  control: "127.0.0.1:0"
CONFIG
    : >"$work/$1.log"
    "$binary" serve --config "$work/$1.yml" 2>>"$work/$1.log" &
    pid=$!
    started="$started $pid"
    until_true 10 grep -q 'listening on' "$work/$1.log" || fail "$1 starts"
    port=$(sed -n 's/.*listening on http:.*:\([0-9]*\).*/\1/p' "$work/$1.log" | head -n 1)
    control_port=$(sed -n 's/.*control on http:.*:\([0-9]*\).*/\1/p' "$work/$1.log" | head -n 1)
}

through() {
    curl -sS --cacert "$work/fullchain.pem" --resolve "$name:$front:$address" --interface "$client" \
        -H "X-Forwarded-For: $forged" "$@"
}

sign() {
    "$binary" sign file --server "$server" --path world.tar --base-url "https://$name:$front" --config "$work/winglet.yml"
}

# A client that would rather speak HTTP/2, as every browser would, gets HTTP/1.1.
speaks_http1() {
    case $(curl --version) in
    *HTTP2*) ;;
    *) skip "$1: this curl knows no HTTP/2"; return ;;
    esac
    version=$(through --http2 -o /dev/null -w '%{http_version}' "https://$name:$front/download/file")
    [ "$version" = 1.1 ] || fail "$1: speaks HTTP/$version to clients"
    ok "$1: speaks HTTP/1.1 to clients, and nothing else"
}

# breaks_off HOW COMMAND...: a download in the middle of which the command runs, which ends it.
breaks_off() {
    how=$1
    shift
    rm -f "$work/got"
    through -f --limit-rate $((mib / 16))M -o "$work/got" "$url" 2>/dev/null &
    slow=$!
    until_true 20 test -s "$work/got" || fail "$proxy: a download begins"
    "$@"
    wait "$slow"
    status=$?
    # What a browser calls failed: fewer bytes than were announced, or a connection that was reset.
    case $status in
    18 | 56) ;;
    *) fail "$proxy: a download that was $how ends with curl's status $status" ;;
    esac
    [ "$(stat -c %s "$work/got")" -lt "$(stat -c %s "$source")" ] || fail "$proxy: it was $how too late to tell"
    rm "$work/got"
    ok "$proxy: a download that was $how is seen as broken off"
}

revoke() {
    curl -sSf -o /dev/null -H "Authorization: Bearer $token" -d "{\"token\":\"${url#*token=}\"}" \
        "http://127.0.0.1:$winglet_control/revoke" || fail 'a link is revoked'
}

# Files of more than a megabyte that a process of the proxy holds open, deleted ones included.
spooled() {
    for process in "$1" $(pgrep -P "$1"); do
        for fd in "/proc/$process/fd"/*; do
            stat -L -c '%F %s' "$fd" 2>/dev/null
        done
    done | awk '/^regular/ && $NF > 1048576 { found = 1 } END { exit !found }'
}

mkdir -p "$work/volumes/$server" "$work/backups"
source=$work/volumes/$server/world.tar
head -c 16777216 /dev/urandom >"$work/block"
i=0
while [ $i -lt $((mib / 16)) ]; do
    # No two blocks are the same, so that a wrong offset shows.
    printf '%08d' $i
    tail -c +9 "$work/block"
    i=$((i + 1))
done >"$source"
rm "$work/block"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$name" \
    -addext "subjectAltName=DNS:$name" -keyout "$work/privkey.pem" -out "$work/fullchain.pem" 2>/dev/null
cat "$work/fullchain.pem" "$work/privkey.pem" >"$work/both.pem"

start_nginx() {
    {
        echo "error_log $work/nginx.error.log; pid $work/nginx.pid; daemon off; events {}"
        echo 'http {'
        sed -e '/listen \[::\]/d' -e "s/listen 443/listen $address:$front/" \
            -e "s#/etc/letsencrypt/live/$name#$work#" -e "s#/var/log/nginx#$work#" \
            -e "s/127.0.0.1:8081/127.0.0.1:$winglet_port/" -e "s/127.0.0.1:8080/127.0.0.1:$wings_port/" \
            -e "s/127.0.0.1:8082/127.0.0.1:$winglet_control/" \
            "$1"
        for kind in client_body proxy fastcgi uwsgi scgi; do
            echo "${kind}_temp_path $work/nginx.$kind;"
        done
        echo '}'
    } >"$work/nginx.conf"
    nginx -e "$work/nginx.error.log" -p "$work" -c "$work/nginx.conf" -t 2>"$work/nginx.log" || fail 'nginx takes the example'
    nginx -e "$work/nginx.error.log" -p "$work" -c "$work/nginx.conf" 2>>"$work/nginx.log" &
}

start_caddy() {
    # No port 80, no administration port: this host may use them.
    sed -e '0,/^{$/s//{\nadmin off\nauto_https disable_redirects/' \
        -e "s/^$name:443 {/$name:$front {\nbind $address/" -e "s#/etc/letsencrypt/live/$name#$work#g" \
        -e "s/127.0.0.1:8081/127.0.0.1:$winglet_port/" -e "s/127.0.0.1:8080/127.0.0.1:$wings_port/" \
        "$1" >"$work/Caddyfile"
    HOME=$work XDG_DATA_HOME=$work/caddy caddy run --config "$work/Caddyfile" --adapter caddyfile >"$work/caddy.log" 2>&1 &
}

start_haproxy() {
    sed -e "s/bind :443/bind $address:$front/" -e "s#/etc/haproxy/certs/$name.pem#$work/both.pem#" \
        -e "s/127.0.0.1:8081/127.0.0.1:$winglet_port/" -e "s/127.0.0.1:8080/127.0.0.1:$wings_port/" \
        -e "s#/etc/haproxy/winglet.lua#$work/winglet.lua#" "$1" >"$work/haproxy.cfg"
    sed -e "s/127.0.0.1:8082/127.0.0.1:$winglet_control/" "$contrib/proxy/haproxy.lua" >"$work/winglet.lua"
    haproxy -c -f "$work/haproxy.cfg" >"$work/haproxy.log" 2>&1 || fail 'HAProxy takes the example'
    haproxy -db -f "$work/haproxy.cfg" >"$work/haproxy.log" 2>&1 &
}

for proxy in nginx caddy haproxy; do
    command -v $proxy >/dev/null || { skip "$proxy is not installed"; continue; }
    case $proxy in
    nginx) example=$contrib/proxy/nginx.conf ;;
    caddy) example=$contrib/proxy/Caddyfile ;;
    haproxy) example=$contrib/proxy/haproxy.cfg ;;
    esac

    serve winglet
    winglet_port=$port
    winglet_control=$control_port
    winglet_pid=$pid
    # A second Winglet stands for Wings.
    serve wings
    wings_port=$port
    wings_pid=$pid

    start_$proxy "$example"
    proxy_pid=$!
    started="$started $proxy_pid"
    until_true 15 through -f -o /dev/null "https://$name:$front/health" || fail "$proxy starts and sends / to Wings"
    kill "$wings_pid"
    wait "$wings_pid"
    status=$(through -o /dev/null -w '%{http_code}' "https://$name:$front/health")
    case $status in
    502 | 503 | 504) ok "$proxy: everything but /download/ goes to Wings" ;;
    *) fail "$proxy: /health answers $status although Wings is gone" ;;
    esac

    through -f -o "$work/got" -D "$work/head" "$(sign)" || fail "$proxy: download"
    cmp -s "$work/got" "$source" || fail "$proxy: the bytes are the same"
    grep -qi '^content-length:' "$work/head" || fail "$proxy: the length is announced"
    rm "$work/got"
    ok "$proxy: $mib MiB, every byte the same, length announced"

    url=$(sign)
    # A reader much slower than the server, broken off after three seconds.
    through -f --limit-rate $((mib / 16))M --max-time 3 -o "$work/got" "$url" 2>/dev/null &
    slow=$!
    rounds=0
    while [ $rounds -lt 20 ]; do
        sleep 0.1
        ! spooled "$proxy_pid" || fail "$proxy: spools to a file"
        rounds=$((rounds + 1))
    done
    on_disk=$(find "$work" -type f -size +1024k ! -name got ! -name world.tar)
    [ -z "$on_disk" ] || fail "$proxy: spooled $on_disk"
    wait "$slow"
    [ $? -eq 28 ] || fail "$proxy: the slow download ended too early to tell"
    ok "$proxy: nothing spooled to disk"

    part=$(stat -c %s "$work/got")
    [ "$part" -gt 0 ] || fail "$proxy: a part has arrived"
    through -f -C - -D "$work/head" -o "$work/got" "$url" || fail "$proxy: resume"
    grep -q '^HTTP/[0-9.]* 206' "$work/head" || fail "$proxy: resume is answered with 206"
    cmp -s "$work/got" "$source" || fail "$proxy: the bytes are the same after a resume"
    rm "$work/got"
    ok "$proxy: curl -C - resumes at $part, every byte the same"

    until_true 10 grep -q "$client" "$work/winglet.log" || fail "$proxy: the client's address is in the log"
    ok "$proxy: the client's true address is in Winglet's log"
    ! grep -q "$forged" "$work/winglet.log" || fail "$proxy: a forged X-Forwarded-For is believed"
    ok "$proxy: a forged X-Forwarded-For is ignored"

    # Caddy cannot send a request to two servers.
    if [ "$proxy" != caddy ]; then
        # As the Panels call it, with Wings away; from outside, the copy's own path is nothing.
        base="https://$name:$front"
        body="{\"user\":\"u\",\"servers\":[\"$server\"]}"
        through -o /dev/null -H 'Authorization: Bearer wrong' -d "$body" "$base/api/deauthorize-user"
        through -o /dev/null -H "Authorization: Bearer $token" -d "$body" "$base/winglet/order"
        through -o /dev/null -H "Authorization: Bearer $token" -d "$body" "$base/api/deauthorize-user"
        through -o /dev/null -H "Authorization: Bearer $token" -d '{"jtis":["j"]}' "$base/api/servers/$server/ws/deny"
        for user in u j; do
            until_true 10 grep -q "revoked: links of user $user of server $server" "$work/winglet.log" ||
                fail "$proxy: both calls of the Panel reach the control listener"
        done
        [ "$(grep -c 'revoked: ' "$work/winglet.log")" -eq 2 ] || fail "$proxy: only calls with the token count"
        ok "$proxy: Winglet gets a copy of the Panel's calls that take access away"
    fi

    speaks_http1 "$proxy"
    url=$(sign)
    breaks_off 'reset by Winglet' revoke
    url=$(sign)
    breaks_off 'cut with its server' kill -9 "$winglet_pid"
    wait "$winglet_pid" 2>/dev/null

    # An error makes a proxy talkative.
    through -o /dev/null "$url"
    kill "$proxy_pid"
    wait "$proxy_pid" 2>/dev/null
    ! grep -rlaF "${url#*token=}" "$work" --include='*.log' || fail "$proxy: a link is in its log"
    ok "$proxy: no link in its log"
done

# The short forms of the README.
readme() {
    sed -n "/^\`\`\`$1\$/,/^\`\`\`\$/p" "$contrib/../README.md" | grep -v '^```' >"$work/readme.$1"
}
for proxy in nginx caddy; do
    command -v $proxy >/dev/null || continue
    readme $proxy
    if [ $proxy = caddy ]; then
        certificate="tls $work/fullchain.pem $work/privkey.pem"
        sed -i "s#^$name {#$name:443 {\n$certificate#" "$work/readme.caddy"
    fi
    serve winglet
    winglet_port=$port
    winglet_control=$control_port
    winglet_pid=$pid
    serve wings
    wings_port=$port
    wings_pid=$pid
    start_$proxy "$work/readme.$proxy"
    proxy_pid=$!
    started="$started $proxy_pid"
    until_true 15 through -f -o /dev/null "https://$name:$front/health" || fail "README, $proxy: starts and sends / to Wings"
    through -f -o "$work/got" "$(sign)" || fail "README, $proxy: download"
    cmp -s "$work/got" "$source" || fail "README, $proxy: the bytes are the same"
    until_true 10 grep -q "$client GET file 200" "$work/winglet.log" || fail "README, $proxy: the client's address is in the log"
    ! grep -q "$client GET file" "$work/wings.log" || fail "README, $proxy: downloads go to Winglet"
    speaks_http1 "README, $proxy"
    for process in "$proxy_pid" "$winglet_pid" "$wings_pid"; do
        kill "$process"
        wait "$process" 2>/dev/null
    done
    ok "README, $proxy: /download/ goes to Winglet, everything else to Wings"
done
