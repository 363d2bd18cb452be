#!/bin/sh
# Installs winglet without a package: from a clone (make install) or from the tarball of make dist.
# usage: contrib/install.sh [install|upgrade|uninstall]
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

# What was installed anew or replaced, a line each.
changed=

# place FILE: FILE.new takes its place, unless they are the same.
place() {
    if cmp -s "$1.new" "$1"; then
        rm "$1.new"
        return
    fi
    # What runs keeps the old file, which is replaced and not written to.
    mv -f "$1.new" "$1"
    changed="$changed  ${1#"$DESTDIR"}
"
}

# put MODE SOURCE DESTINATION: with the program's place in what it names.
put() {
    render "$@"
    place "$3"
}

render() {
    mkdir -p "$(dirname "$3")"
    sed "s#/usr/bin/winglet#$PREFIX/bin/winglet#" "$2" >"$3.new"
    chmod "$1" "$3.new"
}

# The sum of FILE as it was last installed, which tells whether somebody edited it since.
stamp() {
    echo "$doc/$(basename "$(dirname "$1")")-$(basename "$1").cksum"
}

# keep MODE SOURCE DESTINATION: not over one that was edited. The new one is then beside it, if it is
# another than the last time.
keep() {
    last=$(cat "$(stamp "$3")" 2>/dev/null) || last=
    rm -f "$3.new"
    render "$@"
    cksum <"$3.new" >"$(stamp "$3")"
    if [ ! -e "$3" ] || [ "$(cksum <"$3")" = "$last" ]; then
        place "$3"
    elif cmp -s "$3.new" "$3" || [ "$(cksum <"$3.new")" = "$last" ]; then
        rm "$3.new"
    else
        echo "kept $3, which was edited; the new one is $(basename "$3").new beside it"
    fi
}

# unkeep FILE: unless it was edited.
unkeep() {
    rm -f "$1.new"
    [ -e "$1" ] || return 0
    if [ "$(cksum <"$1")" = "$(cat "$(stamp "$1")" 2>/dev/null)" ]; then
        rm -f "$1"
    else
        stays="$stays  ${1#"$DESTDIR"}, which was edited
"
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

restart_command() {
    case $INIT in
    systemd) echo 'systemctl daemon-reload && systemctl restart winglet' ;;
    sysv) echo 'service winglet restart' ;;
    openrc) echo 'rc-service winglet restart' ;;
    runit) echo "$bin/winglet check --quiet && sv -w 80 restart winglet" ;;
    none) echo 'stop the server and start it again' ;;
    esac
}

# Where the service's log is.
log_place() {
    case $INIT in
    systemd) echo 'journalctl -u winglet' ;;
    runit) echo '/var/log/winglet/runit/current' ;;
    none) echo 'its standard error' ;;
    *) echo '/var/log/winglet/winglet.log' ;;
    esac
}

# Whether the service runs on this machine.
runs() {
    [ -z "$DESTDIR" ] || return 1
    case $INIT in
    systemd) systemctl is-active --quiet winglet ;;
    sysv) "$etc/init.d/winglet" status ;;
    openrc) rc-service winglet status ;;
    runit) sv status winglet | grep '^run:' ;;
    none) false ;;
    esac >/dev/null 2>&1
}

do_install() {
    [ -x "$BINARY" ] || complain "$BINARY is not there: make build"
    # Packagers who name none get the unit, as ever.
    [ -z "$DESTDIR" ] || INIT=${INIT:-systemd}
    : "${INIT:=$(init_here)}"
    before=$("$bin/winglet" --version 2>/dev/null) || before=
    mkdir -p "$bin" "$doc/proxy" "$conf"
    install -m 0755 "$BINARY" "$bin/winglet.new"
    place "$bin/winglet"
    put 0644 "$contrib/man/winglet.8" "$share/man/man8/winglet.8"
    put 0644 "$contrib/man/winglet.yml.5" "$share/man/man5/winglet.yml.5"
    put 0644 "$contrib/completions/winglet.bash" "$share/bash-completion/completions/winglet"
    put 0644 "$contrib/completions/_winglet" "$share/zsh/site-functions/_winglet"
    put 0644 "$contrib/completions/winglet.fish" "$share/fish/vendor_completions.d/winglet.fish"
    for file in nginx.conf Caddyfile haproxy.cfg haproxy-front-ends.cfg; do
        put 0644 "$contrib/proxy/$file" "$doc/proxy/$file"
    done
    for file in alerts.yml dashboard.json; do
        put 0644 "$contrib/metrics/$file" "$doc/metrics/$file"
    done
    keep 0640 "$contrib/deb/config.yml" "$conf/config.yml"
    for file in LICENSE NOTICES; do
        [ ! -f "$root/$file" ] || put 0644 "$root/$file" "$doc/$file"
    done
    service
    [ -z "$DESTDIR" ] || return 0
    if [ "$(id -u)" -eq 0 ] && [ "$INIT" != none ]; then
        make_user
        make_directories
    fi
    echo
    if [ -n "$before" ]; then
        say_what_changed
        ! runs || say_restart
        return
    fi
    echo "Installed, with the service files of: $INIT"
    echo "Its log: $(log_place)"
    what="Put the node's token into $etc/winglet/config.yml, then:"
    for file in /etc/calagopus-wings/config.yml /etc/pelican/config.yml /etc/pterodactyl/config.yml; do
        [ ! -e "$file" ] || what="The node's token is taken from Wings' own file. To start it:"
    done
    echo "$what"
    echo "  $(start_command)"
}

say_what_changed() {
    if [ -z "$changed" ]; then
        echo "Nothing changed: $before was installed already."
        return
    fi
    echo "What changed (it was $before, and is $("$bin/winglet" --version) now):"
    printf '%s' "$changed"
}

say_restart() {
    [ -n "$changed" ] || return 0
    echo 'The server that runs is still the old one. To take the new one:'
    echo "  $(restart_command)"
}

# Installs, and restarts the service if it runs and the new program accepts its configuration.
do_upgrade() {
    [ -z "$DESTDIR" ] || complain 'upgrade is for this machine; packagers install'
    do_install >"$tmp/said"
    # The service is restarted here.
    sed '/^The server that runs is still the old one/,$d' "$tmp/said"
    if ! runs; then
        echo "The service does not run. To start it:"
        echo "  $(start_command)"
        return
    fi
    if ! findings=$(cd / && settings && "$bin/winglet" check --quiet 2>&1); then
        printf '%s\n' "$findings" >&2
        complain 'the configuration has errors, and the old server goes on; mend them, then upgrade again'
    fi
    [ -z "$findings" ] || printf '%s\n' "$findings"
    case $INIT in
    systemd) systemctl daemon-reload && systemctl restart winglet ;;
    sysv) "$etc/init.d/winglet" restart ;;
    openrc) rc-service winglet restart ;;
    runit) sv -w 80 restart winglet ;;
    esac || complain "the service was not restarted; its log: $(log_place)"
    echo "Upgraded and restarted: $("$bin/winglet" --version)"
}

# The service's own environment, which names its configuration.
settings() {
    set -a
    for file in "$etc/default/winglet" "$etc/conf.d/winglet"; do
        # shellcheck source=/dev/null
        [ ! -r "$file" ] || . "$file"
    done
    set +a
}

# Stops the service and takes it away from what starts it, so that no link is left dangling.
disable() {
    if [ -e "$units/winglet.service" ] && [ -d /run/systemd/system ]; then
        systemctl --quiet disable --now winglet.socket winglet.service 2>/dev/null || true
    fi
    if [ -e "$etc/init.d/winglet" ]; then
        "$etc/init.d/winglet" stop || true
        if grep -q openrc-run "$etc/init.d/winglet"; then
            rc-update --all del winglet >/dev/null 2>&1 || true
        elif command -v update-rc.d >/dev/null; then
            update-rc.d -f winglet remove >/dev/null
        fi
    fi
    for link in /etc/service/winglet /var/service/winglet /etc/runit/runsvdir/default/winglet; do
        [ "$(readlink "$link")" != "$etc/sv/winglet" ] || {
            sv -w 80 stop "$link" >/dev/null || true
            rm "$link"
            # runsv ends, and with it what it keeps in the directory.
            sv -w 10 exit "$etc/sv/winglet" "$etc/sv/winglet/log" >/dev/null 2>&1 || true
        }
    done
    rm -rf "$etc/sv/winglet/supervise" "$etc/sv/winglet/log/supervise"
}

do_uninstall() {
    stays=
    [ -n "$DESTDIR" ] || disable
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
    [ -z "$DESTDIR" ] || return 0
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
    [ ! -d "$conf" ] || [ -e "$conf/config.yml" ] || stays="$stays  $conf
"
    [ ! -e /var/lib/winglet ] || stays="$stays  /var/lib/winglet, the memory of used links
"
    [ ! -e /var/log/winglet ] || stays="$stays  /var/log/winglet, the log
"
    ! grep -q '^winglet:' /etc/passwd || stays="$stays  the user winglet
"
    echo 'Uninstalled.'
    [ -z "$stays" ] || printf 'What stays, for you to remove or keep:\n%s' "$stays"
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
case ${1:-install} in
install) do_install ;;
upgrade) do_upgrade ;;
uninstall) do_uninstall ;;
*) complain "usage: $0 [install|upgrade|uninstall]" ;;
esac
