#!/bin/sh
# Builds the Debian package, checks it with lintian, and in a root of its own installs it, uses it,
# upgrades it over an edited configuration, removes and purges it.
# usage: contrib/test/deb.sh [BINARY]     as root; the root is a fresh debootstrap where a mirror
# can be reached, else (or with WINGLET_TEST_OVERLAY=1, in a tenth of the time) an overlay over this
# host's own files
set -u

here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:-target/release/winglet}")
server=1f1d6f0a-3a5c-4bfb-9a9c-2a5c9d1f0005

ok() {
    echo "ok - $*"
}

fail() {
    echo "not ok - $*"
    tail -n 40 "$work/out" 2>/dev/null
    exit 1
}

[ -x "$binary" ] || { echo "not ok - $binary is not there"; exit 1; }
command -v dpkg-deb >/dev/null || { echo 'skip - dpkg-deb is not installed'; exit 0; }

if [ -z "${WINGLET_INSIDE:-}" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM
    "$here/../deb/build.sh" "$binary" "$work" >"$work/out" 2>&1 || fail 'the package is built'
    package=$(echo "$work"/*.deb)
    ok "built ${package##*/}"
    cp "$package" "$work/first"
    "$here/../deb/build.sh" "$binary" "$work" >"$work/out" 2>&1
    cmp -s "$package" "$work/first" || fail 'the same sources make the same package'
    ok 'building it again makes the same bytes'
    if command -v lintian >/dev/null; then
        lintian --allow-root --fail-on error "$package" >"$work/out" 2>&1 || fail 'lintian finds no error'
        ok "lintian finds no error, $(grep -c '^W:' "$work/out") warnings"
    else
        echo 'skip - lintian is not installed'
    fi
    [ "$(id -u)" -eq 0 ] || { echo 'skip - install, upgrade and purge: not root'; exit 0; }
    unshare --mount --pid --fork true 2>/dev/null || { echo 'skip - install, upgrade and purge: no namespaces here'; exit 0; }
    # The next version, with another sample configuration and another default file.
    sed 's/^# Used links survive/# A new comment.\n  # Used links survive/' "$here/../deb/config.yml" >"$work/config.yml"
    echo '# A new comment.' >>"$work/config.yml"
    VERSION=99.0.0 CONFIG=$work/config.yml "$here/../deb/build.sh" "$binary" "$work" >"$work/out" 2>&1 ||
        fail 'the next version is built'
    rm "$work/first"
    WINGLET_INSIDE=$work unshare --mount --pid --fork --kill-child sh "$here/deb.sh" "$binary"
    exit
fi

# Inside: mount and process namespaces of our own, so that everything ends with us.
work=$WINGLET_INSIDE
root=$work/root
mkdir -p "$root"
# shellcheck disable=SC2016 # apt-get fills it in
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | head -n 1)
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
if [ -z "${WINGLET_TEST_OVERLAY:-}" ] && command -v debootstrap >/dev/null && [ -n "$mirror" ] && [ -n "$codename" ] &&
    debootstrap --variant=minbase "$codename" "$root" "$mirror" >"$work/debootstrap" 2>&1; then
    kind='a fresh debootstrap'
else
    kind="an overlay over this host's files"
    umount "$root"/* 2>/dev/null
    rm -rf "$root"
    mkdir -p "$root"
    mount -t tmpfs tmpfs "$root" || exit 1
    mkdir "$root/upper" "$root/scratch" "$root/merged"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$root/upper,workdir=$root/scratch" "$root/merged" ||
        { echo 'skip - install, upgrade and purge: no overlay file system here'; exit 0; }
    root=$root/merged
fi
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
[ -c "$root/dev/null" ] || mount --bind /dev "$root/dev"
# As on a host with the init scripts of System V: whoever asks may start a service.
printf '#!/bin/sh\nexit 0\n' >"$root/usr/sbin/policy-rc.d"
chmod 0755 "$root/usr/sbin/policy-rc.d"
cp "$work"/*.deb "$root/tmp/"
first=$(cd "$work" && echo winglet_0*.deb)
next=$(cd "$work" && echo winglet_99*.deb)
[ -f "$work/$first" ] || first=$(cd "$work" && find . -name 'winglet_*.deb' ! -name 'winglet_99*' | head -n 1)

within() {
    chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive \
        sh -c "$1" >"$work/out" 2>&1
}

# What there is, without what dpkg and adduser note down on the way, and without the order of the
# init scripts, which insserv works out anew.
inventory() {
    (cd "$root" && find etc usr var lib opt home root srv -xdev 2>/dev/null) |
        grep -v -e '^var/lib/dpkg/' -e '^var/log/\(dpkg\|alternatives\)' -e '^var/cache/' \
            -e '^etc/\(passwd\|group\|shadow\|gshadow\|subuid\|subgid\)-$' -e '^etc/\.pwd\.lock$' \
            -e '^var/lib/systemd/deb-systemd-helper' -e '^etc/init\.d/\.depend\.' |
        sed 's#^\(etc/rc.\.d/[SK]\)[0-9][0-9]#\1#' | sort
}

inventory >"$work/before"
within "dpkg -i /tmp/$first" || fail "installs in $kind"
ok "installs in $kind"
grep -q 'not configured yet' "$work/out" || fail 'says that it is not configured'
within '/etc/init.d/winglet status' && fail 'nothing unconfigured is started'
find "$root/etc/" -path '*/rc?.d/S*winglet' | grep -q . && fail 'nothing unconfigured is enabled'
ok 'starts and enables nothing unconfigured, and says what to do'
# shellcheck disable=SC2016 # for the shell within
within 'getent passwd winglet && [ "$(stat -c "%a %U:%G" /var/lib/winglet)" = "700 winglet:winglet" ] &&
    [ "$(stat -c "%a %U:%G" /var/log/winglet)" = "750 root:adm" ] && winglet --help' || fail 'user and directories'
ok 'user, state directory and log directory are there'

volume=$root/var/lib/pterodactyl/volumes/$server
mkdir -p "$volume" "$root/var/lib/pterodactyl/backups"
head -c 300000 /dev/urandom >"$volume/world.zip"
chmod 0600 "$volume/world.zip"
chmod 0700 "$root/var/lib/pterodactyl/backups" "$root/var/lib/pterodactyl/volumes"
sed -i -e 's/^token: ""/token: "deb-test-key-0123456789"/' -e 's/127.0.0.1:8081/127.0.0.1:0/' "$root/etc/winglet/config.yml"
within 'update-rc.d winglet enable && /etc/init.d/winglet start' || fail 'starts once it is configured'
serves() {
    base=$(sed -n 's/.*\(listening on \)\(http:[^ ]*\).*/\2/p' "$root/var/log/winglet/winglet.log" | tail -n 1)
    chroot "$root" winglet sign file --server "$server" --path world.zip --base-url "$base" \
        --config /etc/winglet/config.yml >"$work/link" 2>"$work/out" || return 1
    curl -sf -o "$work/got" "$(cat "$work/link")" && cmp -s "$work/got" "$volume/world.zip"
}
serves || fail 'serves a file that only root may read'
ok 'serves once it is configured'

pid=$(cat "$root/run/winglet.pid")
within "dpkg -i --force-confdef --force-confold /tmp/$next" || fail 'upgrades'
grep -q 'deb-test-key' "$root/etc/winglet/config.yml" || fail 'an edited configuration survives an upgrade'
[ -e "$root/etc/winglet/config.yml.dpkg-dist" ] || fail 'the new configuration is beside it'
[ "$(cat "$root/run/winglet.pid")" != "$pid" ] || fail 'an upgrade restarts the server'
serves || fail 'serves after an upgrade'
find "$root/etc/" -path '*/rc?.d/S*winglet' | grep -q . || fail 'still enabled after an upgrade'
ok 'upgrades over an edited configuration, which is kept, and serves on'

pid=$(cat "$root/run/winglet.pid")
within 'dpkg -r winglet' || fail 'is removed'
[ ! -e "$root/run/winglet.pid" ] || fail 'removing it stops the server'
grep -q 'deb-test-key' "$root/etc/winglet/config.yml" || fail 'removing it keeps the configuration'
[ ! -e "$root/usr/bin/winglet" ] || fail 'removing it removes the program'
ok 'removing it stops the server and keeps the configuration'
rm -rf "$root/var/lib/pterodactyl"
within 'dpkg -P winglet' || fail 'is purged'
inventory >"$work/after"
diff "$work/before" "$work/after" >"$work/out" || fail 'a purge leaves nothing'
grep -q '^winglet:' "$root/etc/passwd" "$root/etc/group" && fail 'a purge leaves no user'
ok 'a purge leaves nothing: no file, no user, no group'
