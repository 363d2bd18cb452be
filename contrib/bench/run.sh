#!/bin/sh
# Winglet against nginx, lighttpd and Caddy on loopback: `make bench`, or run.sh path/to/winglet.
# README.md beside this file says what is measured and how. Writes RESULTS.md and its pictures there.
set -eu

if [ $# -lt 1 ] || [ ! -x "$1" ]; then
    echo "usage: $0 path/to/winglet [--quick] [--rounds N] [--only NAME]..." >&2
    exit 2
fi
for tool in python3 curl wrk openssl; do
    command -v "$tool" >/dev/null || { echo "$0: $tool is missing" >&2; exit 2; }
done
here=$(cd "$(dirname "$0")" && pwd)
# Ends everything by itself after twenty-five minutes; timeout sees to it that it does.
exec timeout --kill-after=10 1560 python3 -B "$here/bench.py" "$@"
