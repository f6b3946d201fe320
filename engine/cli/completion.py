"""`engine completion SHELL`: the script that makes a shell complete the command line of the engine."""

from __future__ import annotations

import argparse

from engine.cli.command import Command
from engine.cli.names import unknown_name

SCRIPTS = {
    "bash": """\
# eval "$(engine completion bash)"
_engine() {
    local IFS=$' \\t\\n' line="${COMP_LINE:0:COMP_POINT}" words cur
    read -r -a words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    cur="${words[-1]}"
    IFS=$'\\n'
    COMPREPLY=($(engine __complete "${words[@]:1}" 2>/dev/null))
    [[ $cur == *=* && $COMP_WORDBREAKS == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${cur%=*}="}")
    [[ ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace
}
complete -o default -F _engine engine
""",
    "zsh": """\
# eval "$(engine completion zsh)"
_engine() {
    local -a all open
    all=(${(f)"$(engine __complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    open=(${(M)all:#*[=./]})
    compadd -Q -S '' -- $open
    compadd -Q -- ${all:#*[=./]}
}
compdef _engine engine
""",
    "fish": """\
# engine completion fish | source
complete -c engine -f -a '(engine __complete (commandline -opc)[2..] (commandline -ct))'
""",
}
COMMAND = Command(
    summary="print the completion script of a shell: verbs, flags, groups, options, knobs and their values",
    words="[bash|zsh|fish]",
    examples=("completion bash >> ~/.bashrc", "completion zsh >> ~/.zshrc", "completion fish | source"),
    values=lambda: [*SCRIPTS],
)


def main(arguments: argparse.Namespace) -> int:
    shell = arguments.words[0] if arguments.words else "bash"
    if shell not in SCRIPTS:
        raise unknown_name(f"completion {shell}", "shell", SCRIPTS, "engine completion --help")
    print(SCRIPTS[shell], end="")
    return 0
