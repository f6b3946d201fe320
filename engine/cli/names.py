"""The verb and the sub-verb among the words of a command line.

Both are found wherever they are: flags and overrides may come before them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

from engine.cli.verbs import VERBS
from engine.core.errors import ConfigError, nearest


def split_verb(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Returns the verb among the words and the words without it; None if there is none. Raises ConfigError."""
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
    raise _unknown(word, "verb", VERBS, "engine")


def split_command(
    verb: str, commands: Collection[str], default: str | None, words: Sequence[str]
) -> tuple[str, list[str]]:
    """Returns the name of the command, such as `runs list`, and the words without it. Raises ConfigError.

    A command may have three words (`artifacts cache list`). `default` is the name if the words have none.
    """
    if verb in commands:
        return verb, list(words)
    names = following(verb, commands)
    index = first_name(words, names)
    if index is None:
        if default is None:
            raise ConfigError(
                f"{verb}: got no command; expected one of {', '.join(names)}. Fix: see engine {verb} --help"
            )
        return default, list(words)
    if words[index] not in names:
        raise _unknown(f"{verb} {words[index]}", f"command of {verb}", names, f"engine {verb}")
    name, rest = f"{verb} {words[index]}", [*words[:index], *words[index + 1 :]]
    listed = f"{name} list"
    return split_command(name, commands, listed if listed in commands else None, rest)


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


def _unknown(word: str, kind: str, names: Collection[str], program: str) -> ConfigError:
    near = nearest(word.rpartition(" ")[2], names, count=1)
    fix = f"{near} See {program} --help" if near.endswith("?") else f"see {program} --help"
    return ConfigError(f"{word}: got an unknown {kind}; expected one of {', '.join(names)}. Fix: {fix}")
