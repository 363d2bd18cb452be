# Completion of winglet(8) for bash.

_winglet() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local command=${COMP_WORDS[1]} options

    case $previous in
    -c | --config | --pid-file)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return
        ;;
    --format)
        mapfile -t COMPREPLY < <(compgen -W 'zip tar' -- "$current")
        return
        ;;
    --listen | --server | --user | --path | --file | --backup | --expires | --base-url | --from)
        return
        ;;
    esac

    if [ "$COMP_CWORD" -eq 1 ]; then
        options='serve check sign explain status revoke version --help --version'
    else
        case $command in
        serve) options='--config --listen --pid-file --help' ;;
        check) options='--config --print --quiet --json --help' ;;
        status) options='--watch --json --config --help' ;;
        revoke) options='--server --user --all --config --help' ;;
        explain) options='--from --json --config --help' ;;
        sign)
            if [ "$COMP_CWORD" -eq 2 ]; then
                options='file backup directory files --help'
            else
                case ${COMP_WORDS[2]} in
                file) options='--server --path --expires --no-unique-id --page --base-url --json --config --help' ;;
                backup) options='--server --backup --expires --no-unique-id --page --base-url --json --config --help' ;;
                directory) options='--server --path --format --expires --no-unique-id --page --base-url --json --config --help' ;;
                files) options='--server --path --file --format --expires --no-unique-id --page --base-url --json --config --help' ;;
                *) return ;;
                esac
            fi
            ;;
        *) return ;;
        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
}

complete -F _winglet winglet
