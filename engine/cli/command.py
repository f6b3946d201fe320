"""A command of the command line: the words and flags that it takes, its examples and exit codes."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.cli.exit_codes import EXIT_CODES

OVERRIDES = "[GROUP=OPTION …] [KEY=VALUE …]"
"""The words of a command that composes a run."""


def no_flags(parser: argparse.ArgumentParser) -> None:
    """Adds no flags."""


@dataclass(frozen=True)
class Command:
    """One command: `engine plan`, `engine runs list`."""

    summary: str
    examples: tuple[str, ...]
    words: str = ""
    """The usage of its words, which are not flags: `RUN RUN`, `[GROUP]`, `URI …`. Their number follows from it."""
    changes: str = ""
    """A group whose knobs may be set among its words: `storage` accepts `storage.KEY=VALUE`."""
    flags: Callable[[argparse.ArgumentParser], None] = no_flags
    """Declares its flags."""
    exit_codes: tuple[int, ...] = (0, 2)
    means: Mapping[int, str] = field(default_factory=dict)
    """The meaning of an exit code, if it is not the one of a run."""
    instead: Mapping[str, str] = field(default_factory=dict)
    """Flags that it does not have, and the command to use in their stead."""
    values: Callable[[], Sequence[str]] | None = None
    """Returns the names that its words may be, for completion."""

    @property
    def composes(self) -> bool:
        """True if its words are overrides of a run spec."""
        return self.words.endswith(OVERRIDES)

    @property
    def usage(self) -> str:
        """The usage of all its words."""
        return " ".join(part for part in (self.words, f"[{self.changes}.KEY=VALUE …]" if self.changes else "") if part)

    @property
    def least(self) -> int:
        """The number of words that it needs."""
        return sum(part[0] not in "[…" for part in self._parts())

    @property
    def most(self) -> float:
        """The number of words that it takes; infinite after an ellipsis."""
        return math.inf if "…" in self.words else len(self._parts())

    def _parts(self) -> list[str]:
        return re.findall(r"\[[^\]]*\]|\S+", self.words)

    def codes(self) -> dict[int, str]:
        """Returns its exit codes with their meanings."""
        usual = EXIT_CODES if self.composes else EXIT_CODES | {0: "success"}
        return {code: self.means.get(code, usual[code]) for code in self.exit_codes}


def json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print data instead of text")


def config_dir_flag(parser: argparse.ArgumentParser) -> None:
    text = "a folder of options that adds to ours and overrides them"
    parser.add_argument("--config-dir", metavar="DIR", type=folder, help=text)


def multirun_flag(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("-m", "--multirun", action="store_true", help=text)


def folder(text: str) -> str:
    """Reads the path of a folder that exists."""
    if not text or not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"got {text or 'nothing'}; expected a folder")
    return text


def whole_number(lowest: int, highest: int | None = None) -> Callable[[str], int]:
    """Returns a reader of a whole number from `lowest` to `highest`."""
    expected = f"a whole number from {lowest}" + ("" if highest is None else f" to {highest}")

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = lowest - 1
        if number < lowest or (highest is not None and number > highest):
            raise argparse.ArgumentTypeError(f"got {text or 'nothing'}; expected {expected}")
        return number

    return read


def above_zero(text: str) -> float:
    """Reads a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"got {text or 'nothing'}; expected a number above 0")
    return number
