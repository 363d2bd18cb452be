#!/bin/sh
# `make install` and `make uninstall` with the real binary, in a directory of its own.
# usage: contrib/test/install.sh [BINARY]
set -u
# shellcheck source=SCRIPTDIR/lib.sh
. "$(dirname "$0")/lib.sh"

work=$(mktemp -d)
log=$(mktemp)
trap 'rm -rf "$work" "$log"' EXIT
trap 'exit 1' INT TERM
etc=$work/etc/winglet

evidence() {
    cat "$log"
    find "$work" -mindepth 1 | sort
}

run() {
    make -s -C "$contrib/.." BINARY="$binary" DESTDIR="$work" "$@" >"$log" 2>&1 || fail "make $*"
}

run install PREFIX=/usr
cmp -s "$binary" "$work/usr/bin/winglet" || fail 'the binary is installed'
for file in share/man/man8/winglet.8 share/man/man5/winglet.yml.5 lib/systemd/system/winglet.service \
    share/bash-completion/completions/winglet share/zsh/site-functions/_winglet \
    share/fish/vendor_completions.d/winglet.fish share/doc/winglet/proxy/nginx.conf \
    share/doc/winglet/proxy/haproxy.cfg; do
    [ -f "$work/usr/$file" ] || fail "$file is installed"
done
[ -f "$etc/config.yml" ] || fail 'a configuration is installed'
ok 'install puts everything in place'

run install PREFIX=/usr
[ -z "$(find "$work" -name '*.new')" ] || fail 'installing again adds nothing'
ok 'installing again changes nothing'

echo 'debug: true' >>"$etc/config.yml"
cp "$etc/config.yml" "$work/edited"
run install PREFIX=/usr
cmp -s "$work/edited" "$etc/config.yml" || fail 'an edited configuration is kept'
[ ! -e "$etc/config.yml.new" ] || fail 'the sample is the same as before, and nothing is put beside it'
# As if the last version had had another sample.
echo 0 >"$work/usr/share/doc/winglet/winglet-config.yml.cksum"
run install PREFIX=/usr
cmp -s "$work/edited" "$etc/config.yml" || fail 'an edited configuration is kept'
cmp -s "$contrib/deb/config.yml" "$etc/config.yml.new" || fail 'the new sample is beside it'
grep -q 'config.yml.new' "$log" || fail 'install says so'
ok 'an edited configuration is kept, and a new sample is beside it if there is one'

run uninstall PREFIX=/usr
cmp -s "$work/edited" "$etc/config.yml" || fail 'uninstall keeps an edited configuration'
rm "$work/edited" "$etc/config.yml"
[ -z "$(find "$work" -type f)" ] || fail 'uninstall leaves no other file'
ok 'uninstall keeps the edited configuration and nothing else'

rm -rf "${work:?}"/*
run install
grep -q '^ExecStart=/usr/local/bin/winglet' "$work/usr/local/lib/systemd/system/winglet.service" ||
    fail 'the unit names the binary that was installed'
ok 'the unit names the binary that PREFIX leads to'
run uninstall
[ -z "$(find "$work" ! -type d)" ] || fail 'uninstall leaves nothing'
ok 'uninstall of an untouched installation leaves no file'

for row in sysv:init.d/winglet:default/winglet openrc:init.d/winglet:conf.d/winglet \
    runit:sv/winglet/run:sv/winglet/log/run; do
    init=${row%%:*}
    files=${row#*:}
    run install INIT="$init"
    for file in "${files%:*}" "${files#*:}"; do
        [ -f "$work/etc/$file" ] || fail "INIT=$init installs $file"
    done
    [ -x "$work/etc/${files%:*}" ] || fail "INIT=$init makes ${files%:*} executable"
    [ ! -e "$work/usr/local/lib/systemd" ] || fail "INIT=$init installs no unit"
    run uninstall
    [ -z "$(find "$work" ! -type d)" ] || fail "uninstall leaves nothing of $init"
done
run install INIT=none
[ -z "$(find "$work/etc" -type f ! -path '*/etc/winglet/*')" ] || fail 'INIT=none installs no service'
make -s -C "$contrib/.." BINARY="$binary" DESTDIR="$work" install INIT=upstart >"$log" 2>&1 &&
    fail 'an unknown INIT is refused'
grep -q 'INIT is upstart; give systemd, sysv' "$log" || fail 'an unknown INIT is told the known ones'
ok 'INIT=sysv, openrc, runit and none put their files in place, and uninstall takes them away'
