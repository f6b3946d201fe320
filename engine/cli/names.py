"""The verb and the sub-verb among the words of a command line.

Both are found wherever they are: flags and overrides may come before them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from engine.cli.verbs import VERBS
from engine.core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from engine.cli.command import Command


def split_verb(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Returns the verb among the words and the words without None without one. ConfigError."""
    index = first_name(words, VERBS)
    if index is None:
        return None, list(words)
    word, following = words[index], words[index + 1 :]
    if word in VERBS:
        return word, [*words[:index], *following]
    if following and following[0].startswith("="):
        raise ConfigError(f"{word} {' '.join(following)}: no spaces around =; write {word}=VALUE")
    if any(is_override(each) for each in words[:index]):
        return None, list(words)  # a part of a value with a space, which the composer explains
    raise unknown_name(word or "''", "verb", VERBS, "engine --help")


def split_command(verb: str, commands: Mapping[str, Command], words: Sequence[str]) -> tuple[str, list[str]]:
    """Returns the name of the command, such as `runs list`, and the words without it. Raises ConfigError.

    Without a sub-verb it is `list`, if that needs no words.
    """
    name, rest = walk(verb, commands, words)
    if name in commands:
        return name, rest
    usual = f"{name} list"
    if usual in commands and not commands[usual].least:
        return usual, rest
    names = ", ".join(following(name, commands))
    raise ConfigError(f"{name}: got no command; expected one of {names}. Fix: see engine {name} --help")


def walk(verb: str, commands: Collection[str], words: Sequence[str]) -> tuple[str, list[str]]:
    """Returns the verb with its sub-verbs, as far as the words name them, and the other words. Raises ConfigError."""
    name, rest = verb, list(words)
    while name not in commands:
        names = following(name, commands)
        index = first_name(rest, names)
        if index is None:
            break
        if rest[index] not in names:
            raise unknown_name(f"{name} {rest[index]}", f"command of {name}", names, f"engine {name} --help")
        name = f"{name} {rest.pop(index)}"
    return name, rest


def following(name: str, commands: Collection[str]) -> list[str]:
    """Returns the words that may follow `name` in the names of commands, in their order."""
    longer = [command.removeprefix(f"{name} ") for command in commands if command.startswith(f"{name} ")]
    return list(dict.fromkeys(rest.partition(" ")[0] for rest in longer))


def first_name(words: Sequence[str], names: Collection[str]) -> int | None:
    """Returns the index of the first word that is not a flag, a flag's value or an override; None if all are."""
    for index, (before, word) in enumerate(pairwise(["", *words])):
        if word == "--":
            return None
        if word.startswith("-") or is_override(word):
            continue
        is_value = before == "--config-dir" or (before.startswith("--") and "=" not in before and word not in names)
        if not is_value:
            return index
    return None


def is_override(word: str) -> bool:
    """Returns True for a word in Hydra's grammar: `key=value`, `+key=value`, `~key`."""
    return "=" in word or word[:1] in ("+", "~")


def flag_words(words: Sequence[str]) -> list[str]:
    """Returns the words among which flags are: those before `--`."""
    return list(words[: words.index("--")] if "--" in words else words)


def config_dir_of(words: Sequence[str]) -> str | None:
    """Returns the value of --config-dir, wherever it is; None without one."""
    for word, after in pairwise([*flag_words(words), ""]):
        if word == "--config-dir":
            return after or None
        if word.startswith("--config-dir="):
            return word.partition("=")[2]
    return None


def unknown_name(path: str, kind: str, names: Collection[str], see: str) -> ConfigError:
    """Returns the error for a name that is not one of `names`: the last word of `path`."""
    near = nearest(path.rpartition(" ")[2], names, count=1)
    fix = f"{near} See {see}" if near.endswith("?") else f"see {see}"
    return ConfigError(f"{path}: got an unknown {kind}; expected one of {', '.join(names)}. Fix: {fix}")
