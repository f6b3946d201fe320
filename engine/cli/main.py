"""Reads the command line, runs the verb, and turns errors into a few lines and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from itertools import pairwise

from engine.cli.command import choose, help_text, overview, parse
from engine.cli.terminal import in_red
from engine.cli.verbs import VERBS
from engine.core import open_files
from engine.core.errors import ConfigError, EngineError, OutputError, nearest


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    _ready_streams()
    open_files.raise_limit()
    try:
        return _dispatch(words)
    except EngineError as error:
        _say_error(f"error: {error}", debug)
        return error.exit_code
    except BrokenPipeError:
        _abandon_stdout()  # the reader of our output went away
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:  # the boundary: a defect is one line too, unless --debug asks for more
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _abandon_stdout()
            _say_error("error: standard output can't be written: no space left on its device", debug)
            return OutputError.exit_code
        text = " ".join(str(error).split())[:300]
        hint = "" if debug else "\nadd --debug for the traceback"
        _say_error(f"error: internal: {type(error).__name__}: {text}{hint}", debug)
        return 1


def _ready_streams() -> None:
    """A closed stream is as good as /dev/null, and a locale without our characters must not end a run."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - lives as long as the process
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _abandon_stdout() -> None:
    """Standard output can't be written; it must not be flushed again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say_error(text: str, debug: bool) -> None:
    """The error's lines, after its traceback where that was asked for; a secret that was typed is not repeated."""
    from engine.config.diagnostics import mask

    shown = traceback.format_exc() + text if debug else text
    masked = mask(shown)
    head, separator, rest = masked.partition("error: ")
    print(f"{head}{in_red(separator.strip(), sys.stderr)} {rest}" if separator else masked, file=sys.stderr)


def _dispatch(words: list[str]) -> int:
    if words and words[0] == "__complete":
        from engine.cli.completion import candidates

        print("\n".join(candidates(words[1:])))
        return 0
    verb, rest = split_verb(words)
    if verb is None and "--version" in words:
        from engine.core.version import VERSION

        print(f"engine {VERSION}")
        return 0
    if verb is None and {"-h", "--help"} & set(words):
        from engine.cli.help import text

        print(text(config_dir_of(words)))
        return 0
    return _run_verb(verb or "run", rest)


def _run_verb(verb: str, words: list[str]) -> int:
    module = import_module(f"engine.cli.{verb}")
    name, command = verb, getattr(module, "COMMAND", None)
    if command is None:
        commands = module.COMMANDS
        if {"-h", "--help"} & set(words) and all(word.startswith("-") for word in words):
            print(overview(verb, VERBS[verb], commands))
            return 0
        chosen, words = choose(verb, commands, words, module.DEFAULT)
        name, command = f"{verb} {chosen}", commands[chosen]
    if {"-h", "--help"} & set(words):
        print(help_text(name, command))
        return 0
    arguments = parse(name, command, words)
    arguments.command = name.removeprefix(f"{verb} ")
    if getattr(arguments, "multirun", False):
        module = import_module("engine.cli.sweep" if verb == "run" else f"engine.cli.{verb}_sweep")
    code: int = module.main(arguments)
    return code


def split_verb(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Returns the verb among the words and the words without it; None if they name none. Raises ConfigError.

    The verb is the first word that is not a flag, a flag's value or `key=value`.
    """
    value_follows = False
    for index, word in enumerate(words):
        if word.startswith("-"):
            value_follows = word == "--config-dir"
            continue
        if value_follows:
            value_follows = False
            continue
        if "=" in word or word[:1] in "+~":
            return None, list(words)
        if word not in VERBS and index and words[index - 1].startswith("--"):
            continue  # the value of a flag; the verb's parser judges that
        if word not in VERBS:
            following = words[index + 1 :]
            if following and following[0].startswith("="):
                raise ConfigError(f"{word} {' '.join(following)}: no spaces around =; write {word}=VALUE")
            raise ConfigError(f"{word}: not a verb; {nearest(word, VERBS)} (see --help)")
        return word, [*words[:index], *words[index + 1 :]]
    return None, list(words)


def config_dir_of(words: Sequence[str]) -> str | None:
    """Returns the value of --config-dir, wherever it is; None without one."""
    for word, following in pairwise([*words, ""]):
        if word == "--config-dir":
            return following or None
        if word.startswith("--config-dir="):
            return word.partition("=")[2]
    return None
