"""Text from outside, made safe to show: no control characters, no forged lines."""

from __future__ import annotations

import re

_CONTROLS = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]")
"""All but tab and newline, and the marks that turn a text's direction."""
_BREAKS = re.compile("[\\n\\u2028\\u2029]")


def printable(text: str) -> str:
    """Returns a text with each control character as its JSON escape, so that JSON stays the same JSON."""
    return _CONTROLS.sub(_escape, text)


def one_line(text: str) -> str:
    """Returns a printable text whose line breaks are escapes, too."""
    return _BREAKS.sub(lambda found: "\\n" if found[0] == "\n" else _escape(found), printable(text))


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
