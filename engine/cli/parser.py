"""The parser of one command. argparse declares and reads the flags; all other words are the command's own.

A word that is not a flag is Hydra's `key=value`, `+key=value` or `~key`, or a name such as a run's. It may be anywhere
among the flags. After `--` every word is one of these.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, NoReturn

from engine.cli.command import Command, config_dir_flag
from engine.cli.verbs import all_commands
from engine.core.errors import ConfigError


class _Parser(argparse.ArgumentParser):
    """Raises ConfigError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        flag, _, problem = message.removeprefix("argument ").partition(": ")
        if flag == "the following arguments are required":
            flag = problem.partition(",")[0]
            raise ConfigError(_missing(flag, flags_of(self)[flag]))
        raise ConfigError(f"{flag.split('/')[-1]}: {problem}. Fix: see {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"got {value or 'nothing'}; expected {_expected(action)}")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows the default of each flag that has one."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=100)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        silent = action.default in (None, False, argparse.SUPPRESS) or "default" in text
        return text if silent else f"{text} (default: %(default)s)"


def parser_of(name: str, command: Command) -> argparse.ArgumentParser:
    """Returns the parser of `engine NAME`, with the flags that every command has."""
    examples = "\n".join(f"  engine {example}" for example in command.examples)
    parser = _Parser(
        prog=f"engine {name}",
        usage=" ".join(part for part in (f"engine {name}", command.usage, "[flags]") if part),
        description=textwrap.fill(f"{command.summary[:1].upper()}{command.summary[1:]}.", 96),
        epilog=f"examples:\n{examples}\n\nexit codes:\n{code_lines(command.codes())}",
        formatter_class=_Help,
        allow_abbrev=False,
        add_help=False,
    )
    parser._optionals.title = "flags"
    command.flags(parser)
    if command.composes:
        config_dir_flag(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("-h", "--help", action="store_true", help="show this text")
    return parser


def code_lines(codes: dict[int, str]) -> str:
    """Returns exit codes and their meanings, one a line."""
    return "\n".join(f"  {code:<4} {meaning}" for code, meaning in codes.items())


def flags_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Returns the flags of a parser by each of their names."""
    return {name: action for action in parser._actions for name in action.option_strings}


def parse(name: str, command: Command, words: Sequence[str]) -> argparse.Namespace:
    """Reads the words and flags of `engine NAME`. Raises ConfigError.

    The result has each flag, `words`, and `changes`: the words that set knobs of the group `command.changes`.
    """
    parser = parser_of(name, command)
    flags, rest = _split(name, command, flags_of(parser), words)
    arguments = parser.parse_args(flags)
    arguments.changes = [word for word in rest if command.changes and _changes(word, command.changes)]
    arguments.words = [word for word in rest if word not in arguments.changes]
    if not command.least <= len(arguments.words) <= command.most:
        got, expected = " ".join(arguments.words) or "nothing", command.usage or "no words"
        raise ConfigError(f"{name}: got {got}; expected {expected}. Fix: engine {command.examples[0]}")
    return arguments


def _split(
    name: str, command: Command, known: dict[str, argparse.Action], words: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Returns the flags, each with its value as `--flag=value`, and the other words. Raises ConfigError."""
    flags: list[str] = []
    rest: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        flag, equals, value = word.partition("=")
        if word == "--":
            return flags, [*rest, *left]
        if not word.startswith("-") or word == "-":
            rest.append(word)
        elif flag not in known:
            raise ConfigError(_unknown(name, command, known, flag))
        elif known[flag].nargs == 0:
            if equals:
                raise ConfigError(f"{flag}: got the value {value or 'nothing'}; expected no value. Fix: {flag}")
            flags.append(word)
        elif known[flag].nargs == "?" and not equals and (not left or _is_flag(left[0]) or "=" in left[0]):
            flags.append(flag)  # its value may be left out
        else:
            if not equals and (not left or _is_flag(left[0])):
                raise ConfigError(_missing(flag, known[flag]))
            flags.append(word if equals else f"{flag}={left.pop(0)}")
    return flags, rest


def _is_flag(word: str) -> bool:
    """Returns True for a flag, False for a value, also for a negative number."""
    return word.startswith("-") and word[1:2] not in tuple("0123456789.")


def _missing(flag: str, action: argparse.Action) -> str:
    """Returns the error for a flag that lacks its value, or that is missing itself."""
    name = action.metavar if action.choices is None else next(iter(action.choices))
    return f"{flag}: got no value; expected {_expected(action)}. Fix: {flag} {name or action.dest.upper()}"


def _expected(action: argparse.Action) -> str:
    """Returns the values that a flag accepts, in words."""
    return str(action.help) if action.choices is None else " or ".join(map(str, action.choices))


def _changes(word: str, group: str) -> bool:
    return word.lstrip("+~").startswith((f"{group}.", f"{group}="))


def _unknown(name: str, command: Command, known: dict[str, argparse.Action], flag: str) -> str:
    """Returns the error for a flag that a command does not have: its owner, and the nearest flag that there is."""
    owner = next((other for other, each in all_commands() if flag in flags_of(parser_of(other, each))), None)
    got = "an unknown flag" if owner is None else f"a flag of `engine {owner}`"
    names = sorted(each for each in known if each.startswith("--"))
    near = (
        f"`{command.instead[flag]}`"
        if flag in command.instead
        else max(names, key=lambda each: SequenceMatcher(None, flag, each).ratio())
    )
    return (
        f"{flag}: got {got}; expected a flag of `engine {name}`: {', '.join(names)}. "
        f"Fix: did you mean {near}? See engine {name} --help"
    )
