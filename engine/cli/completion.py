"""Shell completion: the script of each shell, and the candidates that it asks for."""

from __future__ import annotations

import argparse

from engine.core.errors import ConfigError, nearest

SCRIPTS = {
    "bash": """\
# eval "$(engine completion bash)"
_engine() {
    local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}" cur
    cur="${line##* }"
    COMPREPLY=($(engine __complete "$cur" 2>/dev/null))
    [[ $cur == *=* && $COMP_WORDBREAKS == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${cur%=*}="}")
    [[ ${COMPREPLY[0]} == *[=.] ]] && compopt -o nospace
}
complete -o default -F _engine engine
""",
    "zsh": """\
# eval "$(engine completion zsh)"
_engine() { compadd -Q -S '' -- ${(f)"$(engine __complete "${words[CURRENT]}" 2>/dev/null)"} }
compdef _engine engine
""",
    "fish": """\
# engine completion fish | source
complete -c engine -f -a '(engine __complete (commandline -ct))'
""",
}


def main(arguments: argparse.Namespace) -> int:
    shell = arguments.words[0] if arguments.words else "bash"
    if shell not in SCRIPTS:
        raise ConfigError(f"completion {shell}: not a known shell; {nearest(shell, SCRIPTS)}")
    print(SCRIPTS[shell], end="")
    return 0


def candidates(words: list[str]) -> list[str]:
    """What the word under the cursor may become: verbs, group=option, and dotted knobs."""
    from engine.cli.verbs import VERBS
    from engine.core.option_files import conf_dir, options

    word = words[-1] if words else ""
    found = options([conf_dir()])
    key, equals, typed = word.partition("=")
    if equals:
        done, comma, last = typed.rpartition(",")
        return [f"{key}={done}{comma}{name}" for name in found.get(key, ()) if name.startswith(last)]
    names = [*VERBS, *(f"{group}=" for group in found), *_knobs(word)]
    return sorted(name for name in names if name.startswith(word))


def _knobs(word: str) -> list[str]:
    """The knobs one level below what is typed; imports the specs only when a dot asks for them."""
    if "." not in word:
        return []
    from engine.config.diagnostics import fields

    parent = word.rpartition(".")[0]
    return [f"{parent}.{name}{'.' if nested else '='}" for name, nested in fields(parent).items()]
