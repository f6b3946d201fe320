"""Shell completion: the script of each shell, and the candidates that it requests."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

from engine.cli.command import Command, flags_of, parser_of
from engine.cli.verbs import VERBS
from engine.core.errors import ConfigError, nearest

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
    [[ ${COMPREPLY[0]} == *[=.] ]] && compopt -o nospace
}
complete -o default -F _engine engine
""",
    "zsh": """\
# eval "$(engine completion zsh)"
_engine() { compadd -Q -S '' -- ${(f)"$(engine __complete "${(@)words[2,CURRENT]}" 2>/dev/null)"} }
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
    most=1,
    examples=("completion bash >> ~/.bashrc", "completion zsh > ~/.zfunc/_engine", "completion fish | source"),
    values=lambda: [*SCRIPTS],
)


def main(arguments: argparse.Namespace) -> int:
    shell = arguments.words[0] if arguments.words else "bash"
    if shell not in SCRIPTS:
        raise ConfigError(f"completion {shell}: not a known shell; {nearest(shell, SCRIPTS)}")
    print(SCRIPTS[shell], end="")
    return 0


def candidates(words: Sequence[str]) -> list[str]:
    """Returns what the last word may become, given the words before it: all that follow the program's name."""
    before, word = list(words[:-1]), words[-1] if words else ""
    if before and before[-1] == "--config-dir":
        return []  # the shell completes folders
    verb, rest = _verb_of(before)
    name, command, names = _command_of(verb, rest)
    flags = flags_of(parser_of(name, command))
    action = flags.get(before[-1]) if before else None
    if action is not None and action.nargs is None:
        return _matching(word, [str(choice) for choice in action.choices or ()])
    if word.startswith("-"):
        return _matching(word, [flag for flag in flags if flag.startswith("--")])
    names += [] if command.values is None else command.values()
    if verb is None:
        names += VERBS
    if command.composes:
        names += _overrides(word, _config_dir(before))
    return _matching(word, names)


def _matching(word: str, names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(word)})


def _verb_of(before: list[str]) -> tuple[str | None, list[str]]:
    from engine.cli.main import split_verb

    try:
        return split_verb(before)
    except ConfigError:
        return None, before


def _command_of(verb: str | None, rest: list[str]) -> tuple[str, Command, list[str]]:
    """Returns the command's name and the command, and the sub-verbs that may still be typed."""
    from engine.cli.command import choose

    module = import_module(f"engine.cli.{verb or 'run'}")
    command = getattr(module, "COMMAND", None)
    if command is not None:
        return verb or "run", command, []
    commands: dict[str, Command] = module.COMMANDS
    typed = [word for word in rest if not word.startswith("-")]
    if not typed:
        return str(verb), Command("", ()), [name.partition(" ")[0] for name in commands]
    try:
        chosen, _ = choose(str(verb), commands, rest, None)
    except ConfigError:
        return str(verb), Command("", ()), []
    inner = [name.partition(" ")[2] for name in commands if name.startswith(f"{typed[0]} ")] if len(typed) == 1 else []
    return f"{verb} {chosen}", commands[chosen], inner


def _config_dir(before: list[str]) -> str | None:
    from engine.cli.main import config_dir_of

    return config_dir_of(before)


def _overrides(word: str, config_dir: str | None) -> list[str]:
    """Returns groups, options, knobs and a knob's values: all that `word` may become as an override."""
    from pathlib import Path

    from engine.core.option_files import conf_dir, options

    known = options([conf_dir(), *([Path(config_dir)] if config_dir else [])])
    key, equals, typed = word.partition("=")
    if not equals:
        return [*(f"{group}=" for group in known), *_knobs(word)]
    done, comma, _ = typed.rpartition(",")
    values = known[key] if key in known else _values(key)
    return [f"{key}={done}{comma}{value}" for value in values]


def _knobs(word: str) -> list[str]:
    """Returns the knobs one level below what is typed; imports the specs only after a dot."""
    if "." not in word:
        return []
    from engine.config.diagnostics import fields

    parent = word.rpartition(".")[0]
    return [f"{parent}.{name}{'.' if nested else '='}" for name, nested in fields(parent).items()]


def _values(key: str) -> list[str]:
    """Returns the values of a knob that has a closed set of them."""
    from engine.config.diagnostics import choices

    return choices(key.lstrip("+"))
