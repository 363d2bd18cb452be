#!/bin/sh
# Prints the licences of the libraries that are linked into winglet, for what ships the binary.
# usage: contrib/notices.sh [CARGO OPTION...] >FILE     such as --target or --no-default-features
#
# Nothing but cargo and the libraries' sources, offline after `cargo fetch`. If one leaves the choice among
# several licences, one is taken: MIT or the shortest in its place.
set -eu

cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/names" "$work/texts"

$cargo metadata --locked --format-version 1 --filter-platform "$($cargo -vV | sed -n 's/^host: //p')" |
    grep -o '"manifest_path":"[^"]*' | sed 's/.*:"//; s#/Cargo.toml$##' >"$work/directories"
$cargo tree --locked --edges normal,no-proc-macro --prefix none --format '{p}|{l}|{r}' "$@" |
    sed 's/ (\*)$//' | grep -v '^winglet v' | sort -u >"$work/libraries"

# texts DIRECTORY LICENCE: its licence files, or those of one of its licences.
texts() {
    case $2 in
    *' AND '*) ;;
    *)
        for end in MIT MIT0 ISC BOOST; do
            if [ -f "$1/LICENSE-$end" ]; then
                cat "$1/LICENSE-$end"
                return
            fi
        done
        ;;
    esac
    find "$1" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' \) |
        LC_ALL=C sort | while read -r file; do
        cat "$file"
        echo
    done
}

while IFS='|' read -r package licence repository; do
    name=${package%% *}
    version=${package#* v}
    version=${version%% *}
    # Of vendored sources the directory may have no version.
    directory=$(grep -m 1 "/$name-$version\$" "$work/directories" || grep -m 1 "/$name\$" "$work/directories")
    texts "$directory" "$licence" | tr -d '\r' | sed -e 's/[[:space:]]*$//' >"$work/text"
    [ -s "$work/text" ] ||
        echo "Its sources hold no text of a licence; they are at $repository" >"$work/text"
    # Whose it is goes to the names, so that what differs in nothing else is one text. A long file
    # is more than one licence and its names, and stays as it is.
    holder='^Copyright '
    [ "$(wc -l <"$work/text")" -le 40 ] || holder='^$.'
    grep -v "$holder" "$work/text" >"$work/body" || true
    sum=$(tr -s '[:space:]' ' ' <"$work/body" | cksum | tr ' ' '-')
    [ -e "$work/texts/$sum" ] || cp "$work/body" "$work/texts/$sum"
    {
        echo "$name $version ($licence)"
        grep "$holder" "$work/text" | sed 's/^/    /'
    } >>"$work/names/$sum"
done <"$work/libraries"

echo 'The program contains the Rust standard library (MIT OR Apache-2.0), copyright the Rust'
echo 'Project developers, https://www.rust-lang.org/, and the libraries below, in parts. Those that'
echo 'have the same text stand together, each with its copyright.'
for sum in $(cd "$work/names" && LC_ALL=C grep -m 1 '' -- * | LC_ALL=C sort -t : -k 2 | cut -d : -f 1); do
    printf '\n%s\n' '----------------------------------------------------------------------'
    cat "$work/names/$sum"
    echo
    # Without the empty lines that it begins and ends with.
    sed -e '/./,$!d' "$work/texts/$sum" | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}'
done
