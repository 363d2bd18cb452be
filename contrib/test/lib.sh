# shellcheck shell=sh disable=SC2034,SC2154 # scripts use what is set here, and set $work themselves
# What the scripts in this directory share. Each is run as `NAME.sh [BINARY]`, sources this first and
# prints a line per result: `ok - `, `skip - ` with the reason, or `not ok - ` and then `evidence`,
# a function of its own, and ends with status 1.

binary=$(realpath "${1:-target/release/winglet}")
contrib=$(cd "$(dirname "$0")/.." && pwd)
server=1f1d6f0a-3a5c-4bfb-9a9c-2a5c9d1f0001
token=test-key-0123456789
[ -x "$binary" ] || { echo "not ok - $binary is not there"; exit 1; }

ok() {
    echo "ok - $*"
}

skip() {
    echo "skip - $*"
}

fail() {
    echo "not ok - $*"
    evidence
    exit 1
}

# need WHAT TOOL...: ends the script with a skip unless all tools are there.
need() {
    what=$1
    shift
    for tool in "$@"; do
        command -v "$tool" >/dev/null || { skip "$what: $tool is not installed"; exit 0; }
    done
}

is_root() {
    [ "$(id -u)" -eq 0 ]
}

# inside WHAT: runs this script again, as root, in mount and process namespaces of its own, with
# $work in WINGLET_INSIDE, and ends with it. Returns in there.
inside() {
    [ -z "${WINGLET_INSIDE:-}" ] || return 0
    is_root || { skip "$1: not root"; exit 0; }
    unshare --mount --pid --fork true 2>/dev/null || { skip "$1: no namespaces here"; exit 0; }
    WINGLET_INSIDE=$work unshare --mount --pid --fork --mount-proc --kill-child sh "$0" "$binary"
    exit
}

# new_root: a root of its own in $root, with what it is in $kind: a fresh debootstrap if a mirror can
# be reached, else (or with WINGLET_TEST_OVERLAY) an overlay over this host's own files. All of it
# ends with our namespaces. As on a host with the init scripts of System V, whoever asks may start a
# service.
new_root() {
    root=$work/root
    mkdir -p "$root"
    # shellcheck disable=SC2016 # apt-get fills it in
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | head -n 1)
    # shellcheck source=/dev/null
    codename=${WINGLET_TEST_CODENAME:-$(. /etc/os-release && echo "${VERSION_CODENAME:-}")}
    if [ -z "${WINGLET_TEST_OVERLAY:-}" ] && command -v debootstrap >/dev/null && [ -n "$mirror" ] && [ -n "$codename" ] &&
        debootstrap --variant=minbase "$codename" "$root" "$mirror" >"$work/debootstrap" 2>&1; then
        kind="a fresh debootstrap of $codename"
    else
        kind="an overlay over this host's files"
        umount "$root"/* 2>/dev/null
        rm -rf "$root"
        mkdir -p "$root"
        mount -t tmpfs tmpfs "$root" || exit 1
        mkdir "$root/upper" "$root/scratch" "$root/merged"
        mount -t overlay overlay -o "lowerdir=/,upperdir=$root/upper,workdir=$root/scratch" "$root/merged" ||
            { skip 'a root of its own: no overlay file system here'; exit 0; }
        root=$root/merged
        for prefix in usr usr/local; do
            [ ! -e "$root/$prefix/bin/winglet" ] ||
                { skip 'a root of its own: this host has a winglet of its own'; exit 0; }
        done
        # The index of all manuals is not made anew each time.
        rm -f "$root/var/lib/man-db/auto-update"
    fi
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/run"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    [ -c "$root/dev/null" ] || mount --bind /dev "$root/dev"
    printf '#!/bin/sh\nexit 0\n' >"$root/usr/sbin/policy-rc.d"
    chmod 0755 "$root/usr/sbin/policy-rc.d"
}

# within COMMANDS: in that root; what they say is in $work/out. $enter goes before, if it is set.
within() {
    ${enter:-} chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C \
        DEBIAN_FRONTEND=noninteractive sh -c "$1" >"$work/out" 2>&1
}

# lint SCRIPT...
lint() {
    command -v shellcheck >/dev/null || { skip 'shellcheck is not installed'; return; }
    shellcheck "$@" || fail 'shellcheck finds nothing'
    ok 'shellcheck finds nothing in the service scripts'
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

# node BYTES: a file to download below $work, which only root may read if there is a root. $file
# is its path.
node() {
    file=$work/volumes/$server/world.zip
    mkdir -p "$work/volumes/$server" "$work/backups"
    head -c "$1" /dev/urandom >"$file"
    # As Wings leaves them: the service's user has no permission for any of it.
    ! is_root || chmod 0700 "$work/volumes" "$work/backups" "$work/volumes/$server"
    ! is_root || chmod 0600 "$file"
}

# configure TOKEN
configure() {
    cat >"$work/config.yml" <<CONFIG
token: "$1"
system:
  data: $work/volumes
  backup_directory: $work/backups
winglet:
  listen: ["127.0.0.1:0"]
  state_directory: $work/state
  timeouts: { drain: 20s }
CONFIG
}

# base LOG: what the server listens on, by the last line of its log that says so.
base() {
    sed -n 's/.*listening on \(http:[^ ]*\).*/\1/p' "$1" | tail -n 1
}

# link BASE: a new link to the file.
link() {
    "$binary" sign file --server "$server" --path world.zip --base-url "$1" --config "$work/config.yml"
}

# healthy BASE
healthy() {
    [ "$(curl -s -o /dev/null -w '%{http_code}' "$1/health")" = 200 ]
}

# serves BASE: the file is served whole.
serves() {
    curl -sf -o "$work/got" "$(link "$1")" && cmp -s "$work/got" "$file"
}

# confined PID SET...: it runs as nobody and has CAP_DAC_READ_SEARCH alone in these sets.
confined() {
    grep -q "^Uid:	$(id -u nobody)	" "/proc/$1/status" || fail 'runs as its own user'
    status=/proc/$1/status
    shift
    for set in "$@"; do
        grep -q "^$set:[[:space:]]0000000000000004\$" "$status" ||
            fail "$set is CAP_DAC_READ_SEARCH alone: $(grep "^$set" "$status")"
    done
    ok 'runs as its own user with CAP_DAC_READ_SEARCH and nothing else'
}
