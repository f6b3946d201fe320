"""The words that a shell offers for the one that is typed: the answers to `engine __complete WORD …`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from engine.cli.command import Command
from engine.cli.names import config_dir_of, following, split_command, split_verb, walk
from engine.cli.parser import flags_of, parser_of
from engine.cli.verbs import VERBS, commands_of
from engine.core.errors import ConfigError
from engine.core.option_files import conf_dir, options


def candidates(words: Sequence[str]) -> list[str]:
    """Returns what the last word may become, given the words before it: all that follow the program's name."""
    before, word = list(words[:-1]), words[-1] if words else ""
    try:
        verb, rest = split_verb(before)
        commands = commands_of(verb or "run")
        name, rest = walk(verb or "run", commands, rest)
        if name not in commands and not word.startswith("-"):
            return _matching(word, following(name, commands))
        name, rest = split_command(name, commands, rest)
        return _matching(word, _of(name, commands[name], rest, word, () if verb else VERBS))
    except ConfigError:
        return []  # the words before are not valid


def _of(name: str, command: Command, before: Sequence[str], word: str, verbs: Iterable[str]) -> list[str]:
    """Returns the flags, values, names and overrides of a command that may follow, and `verbs` among the names."""
    flags = flags_of(parser_of(name, command))
    if word.startswith("-"):
        flag, equals, typed = word.partition("=")
        if equals:
            return [f"{flag}={value}" for value in _flag_values(flags.get(flag), typed)]
        return [each for each in flags if each.startswith("--")]
    last = flags.get(before[-1]) if before else None
    if last is not None and last.nargs != 0:
        return _flag_values(last, word)
    names = [*verbs, *(command.values() if command.values is not None else ())]
    if command.composes or command.changes:
        names += _overrides(command, word, config_dir_of(before))
    if "PATH" in command.words:
        names += _paths(word, folders_only=False)
    return names


def _matching(word: str, names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(word)})


def _flag_values(action: argparse.Action | None, typed: str) -> list[str]:
    """Returns the values of a flag: a closed set of words, folders or files."""
    if action is None:
        return []
    if action.metavar in ("DIR", "FILE"):
        return _paths(typed, folders_only=action.metavar == "DIR")
    return [str(choice) for choice in action.choices or ()]


def _paths(typed: str, folders_only: bool) -> list[str]:
    """Returns the files and folders that a path may become; a folder ends with a slash."""
    folder = typed.rpartition("/")[0] + "/" if "/" in typed else ""
    try:
        entries = [entry for entry in os.scandir(Path(folder or ".").expanduser()) if not entry.name.startswith(".")]
    except OSError:
        return []
    return [
        f"{folder}{entry.name}{'/' if entry.is_dir() else ''}"
        for entry in entries
        if entry.is_dir() or not folders_only
    ]


def _overrides(command: Command, word: str, config_dir: str | None) -> list[str]:
    """Returns groups, options, knobs and a knob's values: all that `word` may become as an override."""
    known = options([conf_dir(), *([Path(config_dir)] if config_dir else [])])
    sign = word[:1] if word[:1] in ("+", "~") else ""
    key, equals, typed = word.removeprefix(sign).partition("=")
    if equals:
        done, comma, last = typed.rpartition(",")
        values = known[key] if key in known else _values(key, last)
        return [f"{sign}{key}={done}{comma}{value}" for value in values]
    names = [*(f"{group}=" for group in known if command.composes), *_knobs(key)]
    return [f"{sign}{name}" for name in names if command.composes or name.startswith(command.changes)]


def _knobs(key: str) -> list[str]:
    """Returns the knobs one level below what is typed; imports the specs only if something is."""
    if not key:
        return []
    from engine.config.diagnostics import fields

    parent, dot, _ = key.rpartition(".")
    return [f"{parent}{dot}{name}{'.' if nested else '='}" for name, nested in fields(parent).items()]


def _values(key: str, typed: str) -> list[str]:
    """Returns the values of a knob that has a closed set of them, or the files that a path may be."""
    from engine.config.diagnostics import choices

    is_path = key.rpartition(".")[2] in ("path", "dir", "root", "resume", "cache_dir")
    return _paths(typed, folders_only=False) if is_path else choices(key)
