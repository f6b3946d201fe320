"""Reads the command line, runs the verb, and turns errors into a few lines and an exit code."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper

from engine.cli.verbs import VERBS
from engine.core.errors import ConfigError, EngineError, OutputError, nearest


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    _ready_streams()
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
    print(mask(shown), file=sys.stderr)


def _dispatch(words: list[str]) -> int:
    if words and words[0] == "__complete":
        from engine.cli.completion import candidates

        print("\n".join(candidates(words[1:])))
        return 0
    arguments = _parser().parse_intermixed_args(words)
    if arguments.help:
        from engine.cli.help import text

        print(text())
        return 0
    if arguments.version:
        from engine import __version__

        print(f"engine {__version__}")
        return 0
    rest = list(arguments.words)
    verb = "run"
    if rest and "=" not in rest[0] and rest[0][:1] not in "+~":
        verb = rest.pop(0)
        if verb not in VERBS:
            if rest and rest[0].startswith("="):
                raise ConfigError(f"{verb} {' '.join(rest)}: no spaces around =; write {verb}=VALUE")
            raise ConfigError(f"{verb}: not a verb; {nearest(verb, VERBS)} (see --help)")
    if arguments.multirun and verb == "run":
        verb = "sweep"
    module = import_module(f"engine.cli.{verb}")
    arguments.words = rest
    code: int = module.main(arguments)
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise ConfigError(f"{message} (see --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="engine", add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--config-dir")
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--keep", type=int)
    parser.add_argument("--root", default="outputs")
    parser.add_argument("--export")
    parser.add_argument("--request")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--hardware", default="cpu,openvino")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--time-limit", type=float, default=300.0)
    parser.add_argument("--memory-limit", type=float, default=4.0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--out")
    parser.add_argument("--clock", default="wall")
    parser.add_argument("--expires", type=int, default=3600)
    parser.add_argument("--method", default="GET")
    parser.add_argument("--max-bytes", type=int)
    return parser
