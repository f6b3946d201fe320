"""A command of the command line: its flags, its help, and how its words are read.

argparse reads the flags. What is no flag is a word: Hydra's `key=value`, or a name such as a run's.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from engine.cli.verbs import EXIT_CODES
from engine.core.errors import ConfigError, nearest

OVERRIDES = "[GROUP=OPTION …] [KEY=VALUE …]"
"""The words of a command that composes a run."""


def no_flags(parser: argparse.ArgumentParser) -> None:
    """Adds no flags."""


@dataclass(frozen=True)
class Command:
    """One command. `words` is the usage of its words; `least` to `most` of them are accepted."""

    summary: str
    examples: tuple[str, ...]
    words: str = ""
    flags: Callable[[argparse.ArgumentParser], None] = no_flags
    least: int = 0
    most: int | None = None
    """None: any number."""
    exit_codes: tuple[int, ...] = (0, 2)
    values: Callable[[], Sequence[str]] | None = field(default=None, compare=False)
    """The names that its words may be, for completion."""

    @property
    def composes(self) -> bool:
        """True if its words are overrides of a run spec."""
        return OVERRIDES in self.words


class _Parser(argparse.ArgumentParser):
    """Raises ConfigError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        flag, _, problem = message.removeprefix("argument ").partition(": ")
        problem = problem or message
        raise ConfigError(f"{flag.split('/')[0]}: {problem}. Fix: see {self.prog} --help")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows the default of each flag that has one."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=100)

    def _get_help_string(self, action: argparse.Action) -> str:
        shown = action.help or ""
        silent = action.default in (None, False, argparse.SUPPRESS) or "default" in shown
        return shown if silent else f"{shown} (default: %(default)s)"


def json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print data instead of text")


def config_dir_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config-dir", metavar="DIR", help="a folder of options that adds to ours and overrides them")


def parser_of(name: str, command: Command) -> argparse.ArgumentParser:
    """Returns the parser of `engine NAME`, with the flags that every command has."""
    summary = command.summary[:1].upper() + command.summary[1:]
    shown = [f"  engine {example}" for example in command.examples]
    codes = [f"  {code:<4} {EXIT_CODES[code]}" for code in command.exit_codes]
    parser = _Parser(
        prog=f"engine {name}",
        usage=" ".join(part for part in (f"engine {name}", command.words, "[flags]") if part),
        description=textwrap.fill(f"{summary}.", 96),
        epilog="\n".join(["examples:", *shown, "", "exit codes:", *codes]),
        formatter_class=_Help,
        allow_abbrev=False,
        add_help=False,
    )
    parser._optionals.title = "flags"
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    command.flags(parser)
    if command.composes:
        config_dir_flag(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("-h", "--help", action="store_true", help="show this text")
    return parser


def flags_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Returns the flags of a parser by each of their names."""
    return {name: action for action in parser._actions for name in action.option_strings}


def parse(name: str, command: Command, words: Sequence[str]) -> argparse.Namespace:
    """Reads the words and flags of `engine NAME`. Raises ConfigError with the nearest flag."""
    parser = parser_of(name, command)
    known = flags_of(parser)
    for word in words[: words.index("--")] if "--" in words else words:
        flag = word.partition("=")[0]
        if re.fullmatch(r"--?[A-Za-z][\w-]*", flag) and flag not in known:
            shown = sorted(each for each in known if each.startswith("--"))
            raise ConfigError(f"{flag}: got a flag that `engine {name}` does not have; "
                              f"{nearest(flag, shown).rstrip('?')}. Fix: see engine {name} --help")  # fmt: skip
    arguments = parser.parse_intermixed_args(list(words))
    _check_count(name, command, arguments.words)
    return arguments


def _check_count(name: str, command: Command, words: Sequence[str]) -> None:
    if len(words) < command.least or (command.most is not None and len(words) > command.most):
        got = " ".join(words) or "nothing"
        raise ConfigError(f"{name}: got {got}; expected {command.words or 'no words'}. "
                          f"Fix: usage: engine {name} {command.words}".rstrip())  # fmt: skip


def choose(
    verb: str, commands: Mapping[str, Command], words: Sequence[str], default: str | None
) -> tuple[str, list[str]]:
    """Returns the sub-verb that the words begin with, and the words without it. Raises ConfigError.

    A sub-verb may be of two words (`cache prune`); of `cache` alone the first of them is meant.
    """
    places = [index for index, word in enumerate(words) if not word.startswith("-")]
    if not places:
        if default is None:
            names = ", ".join(commands)
            raise ConfigError(f"{verb}: got no command; expected one of: {names}. Fix: see engine {verb} --help")
        return default, list(words)
    first = words[places[0]]
    if len(places) > 1 and f"{first} {words[places[1]]}" in commands:
        return f"{first} {words[places[1]]}", [word for index, word in enumerate(words) if index not in places[:2]]
    for name in (first, f"{first} list"):
        if name in commands:
            return name, [word for index, word in enumerate(words) if index != places[0]]
    near = nearest(first, commands).rstrip("?")
    raise ConfigError(f"{verb} {first}: not a command of {verb}; {near}. Fix: see engine {verb} --help")


def overview(verb: str, summary: str, commands: Mapping[str, Command]) -> str:
    """Returns the help of a verb that has commands of its own."""
    usages = {name: f"{name} {command.words}".strip() for name, command in commands.items()}
    width = max(map(len, usages.values()))
    lines = [f"usage: engine {verb} COMMAND [flags]", "", f"{summary[0].upper()}{summary[1:]}.", "", "commands:"]
    lines += [f"  {usages[name]:<{width}}  {command.summary}" for name, command in commands.items()]
    examples = [example for command in commands.values() for example in command.examples[:1]][:3]
    lines += ["", f"flags: engine {verb} COMMAND --help", "", "examples:", *(f"  engine {each}" for each in examples)]
    codes = sorted({code for command in commands.values() for code in command.exit_codes})
    return "\n".join([*lines, "", "exit codes:", *(f"  {code:<4} {EXIT_CODES[code]}" for code in codes)])


def help_text(name: str, command: Command) -> str:
    """Returns the text of `engine NAME --help`."""
    return parser_of(name, command).format_help().rstrip()


def at_least(lowest: float, kind: type = int, highest: float | None = None) -> Callable[[str], Any]:
    """Returns a reader of a flag's number that refuses one outside `lowest` … `highest`."""
    expected = f"{'a whole number' if kind is int else 'a number'} from {lowest:g}" + (
        "" if highest is None else f" to {highest:g}"
    )

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not value >= lowest or (highest is not None and value > highest) or value == float("inf"):
            raise argparse.ArgumentTypeError(f"got {text}; expected {expected}")
        return value

    return read
