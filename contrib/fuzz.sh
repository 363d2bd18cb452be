#!/bin/sh
# Fuzzes what parses strangers' bytes: request heads, ranges, tokens, and the configuration.
#
#   contrib/fuzz.sh [SECONDS [TARGET...]]     60 seconds for each of head, range, token, config
#
# Takes a nightly compiler and cargo-fuzz. What a run has learned stays in fuzz/corpus, what it has
# found in fuzz/artifacts; neither is checked in.
set -eu

seconds=${1:-60}
[ $# -gt 0 ] && shift
case $seconds in
    '' | *[!0-9]*)
        echo "usage: contrib/fuzz.sh [SECONDS [TARGET...]]" >&2
        exit 2
        ;;
esac
[ $# -gt 0 ] || set -- head range token config

cd "$(dirname "$0")/.."

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "cargo-fuzz is missing; installing it from crates.io" >&2
    cargo install --locked cargo-fuzz
fi
if cargo +nightly --version >/dev/null 2>&1; then
    fuzz="cargo +nightly fuzz"
else
    # The stable compiler has what a sanitizer needs, too; it only wants to be asked like this.
    echo "no nightly toolchain (rustup toolchain install nightly); using the one there is" >&2
    export RUSTC_BOOTSTRAP=1
    fuzz="cargo fuzz"
fi

for target in "$@"; do
    echo "== $target: $seconds s"
    mkdir -p "fuzz/corpus/$target"
    # A head may have 16 KiB; beyond that there is nothing new to see.
    $fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=20000 -rss_limit_mb=1024 -timeout=10 -verbosity=0 \
        -print_final_stats=1
done
echo "nothing found"
