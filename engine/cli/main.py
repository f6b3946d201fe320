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

from engine.cli.names import config_dir_of, flag_words, split_command, split_verb
from engine.cli.printable_stream import printable_streams
from engine.cli.terminal import coloured
from engine.core import open_files
from engine.core.errors import EngineError, OutputError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in flag_words(words)
    _prepare_streams()
    open_files.raise_limit()
    with printable_streams():
        return _run_to_exit_code(words, debug)


def _run_to_exit_code(words: list[str], debug: bool) -> int:
    try:
        return _dispatch(words)
    except EngineError as error:
        _print_error(f"error: {error}", debug)
        return error.exit_code
    except BrokenPipeError:
        _abandon_stdout()  # the reader of our output went away
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:  # the boundary: a defect is one line too, with its traceback after --debug
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _abandon_stdout()
            _print_error("error: standard output can't be written: no space left on its device", debug)
            return OutputError.exit_code
        text = " ".join(str(error).split())[:300]
        hint = "" if debug else "\nadd --debug for the traceback"
        _print_error(f"error: internal: {type(error).__name__}: {text}{hint}", debug)
        return 1


def _prepare_streams() -> None:
    """Replaces a closed stream by /dev/null, and escapes the characters that a locale lacks: neither ends a run."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - lives as long as the process
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _abandon_stdout() -> None:
    """Redirects standard output, which can't be written, so that it is not flushed again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_error(text: str, debug: bool) -> None:
    """Prints an error's lines, with `debug` after its traceback; masks a secret that was typed."""
    from engine.config.diagnostics import mask

    shown = traceback.format_exc() + text if debug else text
    masked = mask(shown)
    head, separator, rest = masked.partition("error: ")
    print(f"{head}{coloured(separator.strip(), 'red', sys.stderr)} {rest}" if separator else masked, file=sys.stderr)


def _dispatch(words: list[str]) -> int:
    if words and words[0] == "__complete":
        from engine.cli.candidates import candidates

        print("\n".join(candidates(words[1:])))
        return 0
    verb, rest = split_verb(words)
    flags = set(flag_words(rest))
    if "--version" in flags:
        from engine.core.version import VERSION

        print(f"engine {VERSION}")
        return 0
    if {"-h", "--help"} & flags:
        from engine.cli import help as texts

        print(texts.overview(config_dir_of(words)) if verb is None else texts.of(verb, rest))
        return 0
    return _run(verb or "run", rest)


def _run(verb: str, words: list[str]) -> int:
    """Runs a verb, or its sub-verb, and returns the exit code."""
    from engine.cli.parser import parse
    from engine.cli.verbs import commands_of

    module = import_module(f"engine.cli.{verb}")
    commands = commands_of(verb)
    name, words = split_command(verb, commands, words)
    arguments = parse(name, commands[name], words)
    arguments.command = name.removeprefix(f"{verb} ")
    code: int = module.main(arguments)
    return code
