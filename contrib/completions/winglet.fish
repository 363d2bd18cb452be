# Completion of winglet(8) for fish.

set -l commands serve check sign explain status revoke version
set -l none "not __fish_seen_subcommand_from $commands"
set -l sign "__fish_seen_subcommand_from sign"
set -l kind "$sign; and __fish_seen_subcommand_from file backup directory files"
set -l archive "$sign; and __fish_seen_subcommand_from directory files"

complete -c winglet -f
complete -c winglet -s h -l help -d 'Print a summary'
complete -c winglet -n "$none" -s V -l version -d 'Print the version'
complete -c winglet -n "$none" -a serve -d 'Serve downloads'
complete -c winglet -n "$none" -a check -d 'Check the configuration'
complete -c winglet -n "$none" -a sign -d 'Print a link'
complete -c winglet -n "$none" -a explain -d 'Say why a link works or does not'
complete -c winglet -n "$none" -a status -d 'Say what the server is doing'
complete -c winglet -n "$none" -a revoke -d 'Revoke links'
complete -c winglet -n "$none" -a version -d 'Print the version'
complete -c winglet -n "$kind; or __fish_seen_subcommand_from serve check explain status revoke" -s c -l config -rF -d 'Configuration of the node'
complete -c winglet -n "__fish_seen_subcommand_from check" -l print -d 'Every setting, and where it comes from'
complete -c winglet -n "__fish_seen_subcommand_from check" -l quiet -d 'Only what is wrong'
complete -c winglet -n "$kind; or __fish_seen_subcommand_from check explain status" -l json -d 'Print JSON'
complete -c winglet -n "__fish_seen_subcommand_from explain" -l from -x -d 'Address of the client'
complete -c winglet -n "__fish_seen_subcommand_from serve" -l listen -x -d 'Listen here'
complete -c winglet -n "__fish_seen_subcommand_from serve" -l pid-file -rF -d 'File for the number of the process'
complete -c winglet -n "__fish_seen_subcommand_from status" -l watch -d 'Say it anew every second'
complete -c winglet -n "__fish_seen_subcommand_from revoke" -l user -x -d 'Links of this user'
complete -c winglet -n "__fish_seen_subcommand_from revoke" -l all -d 'All links'
complete -c winglet -n "$kind; or __fish_seen_subcommand_from revoke" -l server -x -d 'Server that it belongs to'
complete -c winglet -n "$sign; and not __fish_seen_subcommand_from file backup directory files" -a file -d 'A file of a server'
complete -c winglet -n "$sign; and not __fish_seen_subcommand_from file backup directory files" -a backup -d 'A backup'
complete -c winglet -n "$sign; and not __fish_seen_subcommand_from file backup directory files" -a directory -d 'A folder as an archive'
complete -c winglet -n "$sign; and not __fish_seen_subcommand_from file backup directory files" -a files -d 'Several files as an archive'
complete -c winglet -n "$kind; and __fish_seen_subcommand_from file" -l path -x -d 'File, relative to the root of the server'
complete -c winglet -n "$kind; and __fish_seen_subcommand_from backup" -l backup -x -d 'Backup'
complete -c winglet -n "$archive" -l path -x -d 'Folder, relative to the root of the server'
complete -c winglet -n "$archive" -l format -x -a 'zip tar' -d 'Kind of archive'
complete -c winglet -n "$sign; and __fish_seen_subcommand_from files" -l file -x -d 'File or folder, relative to --path'
complete -c winglet -n "$kind" -l expires -x -a '15m 1h 24h' -d 'How long the link is good'
complete -c winglet -n "$kind" -l no-unique-id -d 'May be used until it expires'
complete -c winglet -n "$kind" -l page -d 'Link to the landing page'
complete -c winglet -n "$kind" -l base-url -x -d 'What the link begins with'
