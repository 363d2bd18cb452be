#!/bin/sh
# Installs winglet without a package: from a clone (make install) or from the tarball of make dist.
# usage: contrib/install.sh [install|uninstall]
# environment:
#   PREFIX       /usr/local
#   SYSCONFDIR   /etc
#   INIT         systemd, sysv, openrc, runit or none; left out, it is what runs here
#   DESTDIR      a root to install below, for packagers: no user is made then
#   BINARY       the program; the one beside this script, or else target/release/winglet
set -eu

root=$(cd "$(dirname "$0")" && pwd)
[ -d "$root/contrib" ] || root=$(dirname "$root")
contrib=$root/contrib
DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/usr/local}
etc=${SYSCONFDIR:-/etc}
INIT=${INIT:-}
if [ -z "${BINARY:-}" ]; then
    BINARY=$root/winglet
    [ -f "$BINARY" ] || BINARY=$root/target/release/winglet
fi

bin=$DESTDIR$PREFIX/bin
share=$DESTDIR$PREFIX/share
doc=$share/doc/winglet
units=$DESTDIR$PREFIX/lib/systemd/system
conf=$DESTDIR$etc/winglet

complain() {
    echo "install: $*" >&2
    exit 1
}

# What runs here; in a root where nothing does, what is installed.
init_here() {
    if [ -d /run/systemd/system ]; then
        echo systemd
    elif [ -d /run/openrc ]; then
        echo openrc
    elif [ -d /run/runit ] || [ "$(cat /proc/1/comm 2>/dev/null)" = runit ]; then
        echo runit
    elif command -v openrc-run >/dev/null; then
        echo openrc
    elif command -v update-rc.d >/dev/null && command -v start-stop-daemon >/dev/null; then
        echo sysv
    elif command -v runsvdir >/dev/null; then
        echo runit
    else
        echo none
    fi
}

# put MODE SOURCE DESTINATION: with the program's place in what it names.
put() {
    mkdir -p "$(dirname "$3")"
    # What runs keeps the old file, which is replaced and not written to.
    sed "s#/usr/bin/winglet#$PREFIX/bin/winglet#" "$2" >"$3.new"
    chmod "$1" "$3.new"
    mv -f "$3.new" "$3"
}

# keep MODE SOURCE DESTINATION: not over one that was edited. The new one is then beside it.
keep() {
    stamp=$doc/$(basename "$(dirname "$3")")-$(basename "$3").cksum
    if [ ! -e "$3" ] || [ "$(cksum <"$3")" = "$(cat "$stamp" 2>/dev/null)" ]; then
        put "$1" "$2" "$3"
        cksum <"$3" >"$stamp"
        return
    fi
    put "$1" "$2" "$3.new"
    if cmp -s "$3" "$3.new"; then
        rm -f "$3.new"
    else
        echo "kept $3, which was edited; the new one is $(basename "$3").new beside it"
    fi
}

# unkeep FILE: unless it was edited.
unkeep() {
    stamp=$doc/$(basename "$(dirname "$1")")-$(basename "$1").cksum
    rm -f "$1.new"
    [ -e "$1" ] || return 0
    if [ "$(cksum <"$1")" = "$(cat "$stamp" 2>/dev/null)" ]; then
        rm -f "$1"
    else
        echo "kept $1, which was edited"
    fi
}

make_user() {
    getent passwd winglet >/dev/null 2>&1 || grep -q '^winglet:' /etc/passwd && return
    if command -v useradd >/dev/null; then
        useradd --system --user-group --home-dir /var/lib/winglet --no-create-home --shell "$(no_shell)" winglet
    else
        addgroup -S winglet && adduser -S -D -H -h /var/lib/winglet -s "$(no_shell)" -G winglet winglet
    fi
    echo "made the user winglet"
}

no_shell() {
    command -v nologin || echo /bin/false
}

make_directories() {
    [ -d /var/lib/winglet ] || install -d -m 0700 -o winglet -g winglet /var/lib/winglet
    [ -d /var/log/winglet ] || install -d -m 0750 -o root -g winglet /var/log/winglet
}

# The service's files, where INIT looks for them.
service() {
    case $INIT in
    systemd)
        # Also found by systemd in /usr/local.
        put 0644 "$contrib/systemd/winglet.service" "$units/winglet.service"
        put 0644 "$contrib/systemd/winglet.socket" "$units/winglet.socket"
        keep 0644 "$contrib/default/winglet" "$DESTDIR$etc/default/winglet"
        ;;
    sysv)
        put 0755 "$contrib/sysv/winglet" "$DESTDIR$etc/init.d/winglet"
        keep 0644 "$contrib/default/winglet" "$DESTDIR$etc/default/winglet"
        put 0644 "$contrib/logrotate/winglet" "$DESTDIR$etc/logrotate.d/winglet"
        ;;
    openrc)
        put 0755 "$contrib/openrc/winglet" "$DESTDIR$etc/init.d/winglet"
        keep 0644 "$contrib/openrc/winglet.confd" "$DESTDIR$etc/conf.d/winglet"
        put 0644 "$contrib/logrotate/winglet" "$DESTDIR$etc/logrotate.d/winglet"
        ;;
    runit)
        for file in run finish log/run; do
            put 0755 "$contrib/runit/$file" "$DESTDIR$etc/sv/winglet/$file"
        done
        keep 0644 "$contrib/default/winglet" "$DESTDIR$etc/default/winglet"
        ;;
    none) ;;
    *) complain "INIT is $INIT; give systemd, sysv, openrc, runit or none" ;;
    esac
}

start_command() {
    case $INIT in
    systemd) echo 'systemctl daemon-reload && systemctl enable --now winglet' ;;
    sysv) echo 'update-rc.d winglet defaults && service winglet start' ;;
    openrc) echo 'rc-update add winglet && rc-service winglet start' ;;
    runit)
        services=/etc/service
        [ ! -d /var/service ] || services=/var/service
        echo "ln -s $etc/sv/winglet $services/"
        ;;
    none) echo "$PREFIX/bin/winglet serve" ;;
    esac
}

do_install() {
    [ -x "$BINARY" ] || complain "$BINARY is not there: make build"
    mkdir -p "$bin" "$doc/proxy" "$conf"
    install -m 0755 "$BINARY" "$bin/winglet.new"
    mv -f "$bin/winglet.new" "$bin/winglet"
    put 0644 "$contrib/man/winglet.8" "$share/man/man8/winglet.8"
    put 0644 "$contrib/man/winglet.yml.5" "$share/man/man5/winglet.yml.5"
    put 0644 "$contrib/completions/winglet.bash" "$share/bash-completion/completions/winglet"
    put 0644 "$contrib/completions/_winglet" "$share/zsh/site-functions/_winglet"
    put 0644 "$contrib/completions/winglet.fish" "$share/fish/vendor_completions.d/winglet.fish"
    for file in nginx.conf Caddyfile haproxy.cfg haproxy-front-ends.cfg; do
        put 0644 "$contrib/proxy/$file" "$doc/proxy/$file"
    done
    keep 0640 "$contrib/deb/config.yml" "$conf/config.yml"
    for file in LICENSE NOTICES; do
        [ ! -f "$root/$file" ] || put 0644 "$root/$file" "$doc/$file"
    done
    # Packagers who name none get the unit, as ever.
    [ -z "$DESTDIR" ] || INIT=${INIT:-systemd}
    : "${INIT:=$(init_here)}"
    service
    if [ -n "$DESTDIR" ]; then
        return
    fi
    if [ "$(id -u)" -eq 0 ] && [ "$INIT" != none ]; then
        make_user
        make_directories
    fi
    echo
    echo "Installed, with the service files of: $INIT"
    if [ -e /etc/pelican/config.yml ] || [ -e /etc/pterodactyl/config.yml ]; then
        echo "The node's token is taken from Wings' own file. To start it:"
    else
        echo "Put the node's token into $etc/winglet/config.yml, then:"
    fi
    echo "  $(start_command)"
}

do_uninstall() {
    rm -f "$bin/winglet" "$share/man/man8/winglet.8" "$share/man/man5/winglet.yml.5" \
        "$share/bash-completion/completions/winglet" "$share/zsh/site-functions/_winglet" \
        "$share/fish/vendor_completions.d/winglet.fish" "$units/winglet.service" "$units/winglet.socket" \
        "$DESTDIR$etc/init.d/winglet" "$DESTDIR$etc/logrotate.d/winglet"
    for file in run finish log/run; do
        rm -f "$DESTDIR$etc/sv/winglet/$file"
    done
    unkeep "$conf/config.yml"
    unkeep "$DESTDIR$etc/default/winglet"
    unkeep "$DESTDIR$etc/conf.d/winglet"
    rm -rf "$doc"
    # Only what is empty now, and never above PREFIX; DESTDIR is the packager's own.
    for dir in "$share/bash-completion/completions" "$share/bash-completion" "$share/zsh/site-functions" \
        "$share/zsh" "$share/fish/vendor_completions.d" "$share/fish" "$units" \
        "$DESTDIR$PREFIX/lib/systemd" "$share/doc" "$share/man/man8" "$share/man/man5" "$conf" \
        "$DESTDIR$etc/sv/winglet/log" "$DESTDIR$etc/sv/winglet"; do
        rmdir "$dir" 2>/dev/null || true
    done
}

case ${1:-install} in
install) do_install ;;
uninstall) do_uninstall ;;
*) complain "usage: $0 [install|uninstall]" ;;
esac
