"""Reads JSON that a strict reader refuses: a second try, after the strict one failed.

RFC 8259 allows what not every reader takes: an escaped half of a surrogate pair (section 8.2), which an answer that was
cut within an emoji ends with, and a byte order mark (section 8.1). Servers also write NaN and Infinity, raw control
characters, and data behind the value.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MOST_DEPTH = 256
"""Levels of nesting that are kept; nothing that a provider documents has a tenth of them."""
BELOW = f"values below {MOST_DEPTH} levels are read as null"
"""The change that loses values."""
_DEEPEST = 5000
"""Levels of nesting that are read at all, before the deepest are cut."""
_BLANK = " \t\r\n"
_CONTROL = re.compile(r"[\x00-\x1f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def read_again(content: bytes, *, behind: bool = True) -> tuple[Any, list[str]]:
    """The value of a JSON text that was refused, and the changes that make it strict JSON, in words.

    NaN and Infinity become null, lone surrogates U+FFFD, values below `MOST_DEPTH` levels null. `behind`: data after an
    object or a list is left out, unless it begins another one. Raises ValueError for what is not JSON.
    """
    text = content.decode("utf-8")
    start = len(text) - len(text.lstrip(_BLANK + "\ufeff"))
    changes: dict[str, None] = {} if "\ufeff" not in text[:start] else {"a byte order mark is left out": None}

    def constant(name: str) -> None:
        changes[f"{name} is read as null"] = None

    def number(digits: str) -> float | None:
        value = float(digits)
        if math.isfinite(value):
            return value
        constant("a number out of range")
        return None

    decoder = json.JSONDecoder(strict=False, parse_constant=constant, parse_float=number)
    with _deep_recursion():
        try:
            value, end = decoder.raw_decode(text, start)
        except RecursionError as error:
            raise ValueError(f"nested deeper than {_DEEPEST} levels") from error
    rest = text[end:].strip(_BLANK + "\0")
    if rest:
        if not behind or not isinstance(value, dict | list) or rest[0] in "{[":
            raise ValueError(f"data behind the value, at character {end + 1}")
        changes["data behind the value is left out"] = None
    value = _strict(value, changes)
    if not changes and _CONTROL.search(text):
        changes["raw control characters are read as they are"] = None
    return value, list(changes)


def _strict(value: Any, changes: dict[str, None]) -> Any:
    """The value without lone surrogates and without what is nested too deep. Works without recursion."""
    holder: list[Any] = [value]
    stack: list[tuple[Any, int]] = [(holder, 0)]
    while stack:
        container, depth = stack.pop()
        for key, item in list(container.items() if isinstance(container, dict) else enumerate(container)):
            if isinstance(key, str) and _SURROGATE.search(key):
                del container[key]
                container[key := _without_surrogates(key, changes)] = item
            if isinstance(item, str):
                if _SURROGATE.search(item):
                    container[key] = _without_surrogates(item, changes)
            elif isinstance(item, dict | list):
                if depth < MOST_DEPTH:
                    stack.append((item, depth + 1))
                else:
                    changes[BELOW] = None
                    container[key] = None
    return holder[0]


def _without_surrogates(text: str, changes: dict[str, None]) -> str:
    changes["lone surrogates are read as U+FFFD"] = None
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """Lets the standard library's reader follow deep nesting."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _DEEPEST))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
