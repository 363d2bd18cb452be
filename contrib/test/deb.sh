#!/bin/sh
# Builds the Debian package, checks it with lintian, and in a root of its own installs it, uses it,
# upgrades it over an edited configuration, removes and purges it.
# usage: contrib/test/deb.sh [BINARY]     as root; the root is a fresh debootstrap if a mirror can
# be reached, else (or with WINGLET_TEST_OVERLAY=1, in a tenth of the time) an overlay over this
# host's own files
set -u
# shellcheck source=SCRIPTDIR/lib.sh
. "$(dirname "$0")/lib.sh"

evidence() {
    tail -n 40 "$work/out" 2>/dev/null
}

# build VARIABLE=VALUE...
build() {
    env "$@" "$contrib/deb/build.sh" "$binary" "$work" >"$work/out" 2>&1
}

work=${WINGLET_INSIDE:-}
if [ -z "$work" ]; then
    need 'the package' dpkg-deb
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM
    build || fail 'the package is built'
    package=$(echo "$work"/*.deb)
    ok "built ${package##*/}"
    mv "$package" "$work/first"
    build || fail 'the package is built again'
    cmp -s "$package" "$work/first" || fail 'the same sources make the same package'
    ok 'building it again makes the same bytes'
    if command -v lintian >/dev/null; then
        lintian --allow-root --fail-on error "$package" >"$work/out" 2>&1 || fail 'lintian finds no error'
        ok "lintian finds no error, $(grep -c '^W:' "$work/out") warnings"
    else
        skip 'lintian is not installed'
    fi
    mv "$package" "$work/first.deb"
    # The next version, with another sample configuration.
    sed 's/^# Used links survive/# A new comment.\n  # Used links survive/' "$contrib/deb/config.yml" >"$work/config.yml"
    echo '# A new comment.' >>"$work/config.yml"
    build VERSION=99.0.0 CONFIG="$work/config.yml" || fail 'the next version is built'
    mv "$work"/winglet_99*.deb "$work/next.deb"
fi
inside 'install, upgrade and purge'

new_root
cp "$work/first.deb" "$work/next.deb" "$root/tmp/"

# What there is of the package: its paths, and all that has its name. What else this host installs
# or removes meanwhile is none of its business, and neither are these sources.
inventory() {
    repository=$(realpath "$contrib/..")
    {
        for package in first next; do
            dpkg-deb --fsys-tarfile "$work/$package.deb" | tar -t
        done | while read -r path; do
            [ ! -e "$root/$path" ] || realpath --relative-to "$root" --no-symlinks "$root/$path"
        done
        (cd "$root" && find etc usr var run -xdev -path "${repository#/}" -prune -o -name '*winglet*' -print)
    } | sort -u
}

inventory >"$work/before"
within 'dpkg -i /tmp/first.deb' || fail "installs in $kind"
grep -q 'not configured yet' "$work/out" || fail 'says that it is not configured'
inventory | comm -13 "$work/before" - >"$work/installed"
for path in usr/bin/winglet etc/init.d/winglet var/lib/winglet var/lib/dpkg/info/winglet.list; do
    grep -q "^$path\$" "$work/installed" || fail "the inventory sees $path"
done
ok "installs in $kind"
within '/etc/init.d/winglet status' && fail 'nothing unconfigured is started'
find "$root/etc/" -path '*/rc?.d/S*winglet' | grep -q . && fail 'nothing unconfigured is enabled'
ok 'starts and enables nothing unconfigured, and says what to do'
# shellcheck disable=SC2016 # for the shell within
within 'getent passwd winglet && [ "$(stat -c "%a %U:%G" /var/lib/winglet)" = "700 winglet:winglet" ] &&
    [ "$(stat -c "%a %U:%G" /var/log/winglet)" = "750 root:adm" ] && winglet --help' || fail 'user and directories'
ok 'user, state directory and log directory are there'
for library in tiny_http jwt-simple rustls ring; do
    grep -q "^$library [0-9]" "$root/usr/share/doc/winglet/copyright" || fail "copyright names $library"
done
ok 'the licences of the libraries are in the copyright file'

volume=$root/var/lib/pterodactyl/volumes/$server
mkdir -p "$volume" "$root/var/lib/pterodactyl/backups"
head -c 300000 /dev/urandom >"$volume/world.zip"
chmod 0600 "$volume/world.zip"
chmod 0700 "$root/var/lib/pterodactyl/backups" "$root/var/lib/pterodactyl/volumes"
sed -i -e "s/^token: \"\"/token: \"$token\"/" -e 's/127.0.0.1:8081/127.0.0.1:0/' "$root/etc/winglet/config.yml"
within 'update-rc.d winglet enable && /etc/init.d/winglet start' || fail 'starts once it is configured'
answers() {
    base=$(base "$root/var/log/winglet/winglet.log")
    chroot "$root" winglet sign file --server "$server" --path world.zip --base-url "$base" \
        --config /etc/winglet/config.yml >"$work/link" 2>"$work/out" || return 1
    curl -sf -o "$work/got" "$(cat "$work/link")" && cmp -s "$work/got" "$volume/world.zip"
}
answers || fail 'serves a file that only root may read'
ok 'serves once it is configured'

pid=$(cat "$root/run/winglet.pid")
within 'dpkg -i --force-confdef --force-confold /tmp/next.deb' || fail 'upgrades'
grep -q "$token" "$root/etc/winglet/config.yml" || fail 'an edited configuration survives an upgrade'
[ -e "$root/etc/winglet/config.yml.dpkg-dist" ] || fail 'the new configuration is beside it'
[ "$(cat "$root/run/winglet.pid")" != "$pid" ] || fail 'an upgrade restarts the server'
answers || fail 'serves after an upgrade'
find "$root/etc/" -path '*/rc?.d/S*winglet' | grep -q . || fail 'still enabled after an upgrade'
ok 'upgrades over an edited configuration, which is kept, and serves on'

# A configuration that the new version does not take leaves the old one running.
pid=$(cat "$root/run/winglet.pid")
cp "$root/etc/winglet/config.yml" "$work/config"
printf '\nwinglet:\n  no_such_key: 1\n' >"$root/etc/winglet/config.yml"
within 'dpkg -i --force-confdef --force-confold /tmp/first.deb' || fail 'installs over a broken configuration'
grep -q 'was not restarted' "$work/out" || fail 'says that the server was not restarted'
grep -q no_such_key "$work/out" || fail 'says what is wrong with the configuration'
[ "$(cat "$root/run/winglet.pid")" = "$pid" ] || fail 'a broken configuration ends no running server'
cp "$work/config" "$root/etc/winglet/config.yml"
answers || fail 'serves on over a broken configuration'
ok 'an upgrade over a broken configuration leaves the server running and says so'

within 'dpkg -r winglet && dpkg -i --force-confold /tmp/next.deb' || fail 'is removed and comes back'
answers || fail 'serves after it came back'
ok 'a package that comes back starts what ran'

pid=$(cat "$root/run/winglet.pid")
within 'dpkg -r winglet' || fail 'is removed'
[ ! -e "$root/run/winglet.pid" ] || fail 'removing it stops the server'
grep -q "$token" "$root/etc/winglet/config.yml" || fail 'removing it keeps the configuration'
[ ! -e "$root/usr/bin/winglet" ] || fail 'removing it removes the program'
ok 'removing it stops the server and keeps the configuration'
rm -rf "$root/var/lib/pterodactyl"
within 'dpkg -P winglet' || fail 'is purged'
inventory >"$work/after"
diff "$work/before" "$work/after" >"$work/out" || fail 'a purge leaves nothing'
grep -q '^winglet:' "$root/etc/passwd" "$root/etc/group" && fail 'a purge leaves no user'
ok 'a purge leaves nothing: no file, no user, no group'

# On a node with Wings nothing is left to configure.
mkdir -p "$root/etc/pterodactyl" "$root/etc/default" "$volume" "$root/var/lib/pterodactyl/backups"
head -c 300000 /dev/urandom >"$volume/world.zip"
wings() {
    printf 'token: "%s"\nsystem:\n  data: /var/lib/pterodactyl/volumes\n' "$1" >"$root/etc/pterodactyl/config.yml"
}
wings "$token"
chmod 0600 "$root/etc/pterodactyl/config.yml"
echo "WINGLET_OPTS='--listen 127.0.0.1:0'" >"$root/etc/default/winglet"
within 'dpkg -i --force-confold /tmp/first.deb' || fail 'installs beside Wings'
grep -q 'not configured yet' "$work/out" && fail 'beside Wings it is configured'
with_wings() {
    base=$(base "$root/var/log/winglet/winglet.log")
    chroot "$root" sh -c "cd / && winglet sign file --server $server --path world.zip --base-url $base" \
        >"$work/link" 2>"$work/out" || return 1
    curl -sf -o "$work/got" "$(cat "$work/link")" && cmp -s "$work/got" "$volume/world.zip"
}
with_wings || fail 'serves with the token of Wings'
pid=$(cat "$root/run/winglet.pid")
wings another-key-of-the-panel
within '/etc/init.d/winglet reload' || fail 'reloads'
until_true 10 with_wings || fail 'a new token of Wings takes a reload only'
[ "$(cat "$root/run/winglet.pid")" = "$pid" ] || fail 'and no restart'
within 'dpkg -P winglet' || fail 'is purged beside Wings'
ok 'beside Wings it is started at once, with the token of Wings, and a new one takes a reload'
