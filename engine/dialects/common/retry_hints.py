"""How long a provider asks us to wait: its headers and, failing these, its words.

Sources: RFC 9110 section 10.2.3 (Retry-After); the rate-limit headers of OpenAI, Groq, Azure, Cerebras, Mistral and
OpenRouter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RESETS = ("", "-requests", "-tokens", "-requests-day", "-tokens-minute")
"""Endings of `x-ratelimit-reset*`: OpenRouter's and Together's, OpenAI's and Groq's, Cerebras'."""
_SAID = re.compile(
    r"(?:try again in|retry after|retry in|wait(?: for)?)\s+(?:about\s+)?"
    r"((?:\d+(?:\.\d+)?\s*(?:milliseconds?|ms|seconds?|secs?|minutes?|mins?|hours?|[hms](?![a-z]))[\s,]*)+)",
    re.IGNORECASE,
)
_SAID_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|mil|[hms])", re.IGNORECASE)
_EPOCH_S = 1e9
"""A reset above this is a point in time, not a duration: 31 years."""


def retry_after_s(headers: Mapping[str, str], message: str, wall_s: float, *, throttled: bool) -> float | None:
    """The provider's hint in seconds from now, or None. Never negative; what can't be read is ignored.

    An explicit answer (`retry-after-ms`, `Retry-After`) wins. Else, for a throttled call only, since these headers
    come with every reply: the resets of the limits that are used up, then the message ("try again in 1.2s"), then the
    longest reset. The largest of equals is taken: waiting a little too long costs less than being refused again.
    `wall_s` is the time now, in seconds since the epoch, for dates.
    """
    explicit = [
        hint
        for hint in (
            _number(headers.get("retry-after-ms"), 0.001),
            _seconds_or_date(headers.get("retry-after"), wall_s),
        )
        if hint is not None
    ]
    if explicit:
        return max(explicit)
    if not throttled:
        return said_s(message)
    used_up: list[float] = []
    others: list[float] = []
    for ending in _RESETS:
        reset = _reset(headers.get("x-ratelimit-reset" + ending), wall_s)
        if reset is not None:
            left = _number(headers.get("x-ratelimit-remaining" + ending))
            (used_up if left == 0 else others).append(reset)
    if used_up:
        return max(used_up)
    said = said_s(message)
    if said is not None:
        return said
    return max(others, default=None)


def rate_hint(
    headers: Mapping[str, str], unit: str, window_s: float | None = None
) -> tuple[float, float, float] | None:
    """Limit, remaining and seconds until it is whole again of `x-ratelimit-*-<unit>`; None unless all are said.

    Of a limit for a window of `window_s` seconds the last may be left out: it then comes back evenly.
    """
    limit = headers.get("x-ratelimit-limit-" + unit)
    if limit is None:
        return None
    remaining = headers.get("x-ratelimit-remaining-" + unit)
    reset = headers.get("x-ratelimit-reset-" + unit)
    if remaining is None:
        return None
    most, left = _number(limit), _number(remaining)
    if most is None or left is None:
        return None
    if reset is None:
        return (most, left, window_s * (1 - left / most)) if window_s and most > 0 else None
    seconds = duration_s(reset)
    return (most, left, seconds) if seconds is not None else None


def duration_s(text: str) -> float | None:
    """Seconds in "6m0s", "12ms", "1h2m3.5s" or a plain number of seconds; None for anything else."""
    text = text.strip()
    plain = _number(text)
    if plain is not None:
        return plain
    total, end = 0.0, 0
    for part in _PART.finditer(text):
        if part.start() != end:
            return None
        total += float(part[1]) * _UNITS[part[2]]
        end = part.end()
    return total if end and end == len(text) else None


def said_s(message: str) -> float | None:
    """Seconds that a message asks to wait, as in "Please try again in 1m2.5s."."""
    said = _SAID.search(message)
    if said is None:
        return None
    total = 0.0
    for amount, unit in _SAID_PART.findall(said[1]):
        unit = unit.lower()
        total += float(amount) * _UNITS["ms" if unit == "mil" else unit]
    return total


def _number(text: str | None, unit_s: float = 1.0) -> float | None:
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number * unit_s if math.isfinite(number) and number >= 0 else None


def _seconds_or_date(text: str | None, wall_s: float) -> float | None:
    if text is None:
        return None
    seconds = _number(text)
    if seconds is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - wall_s)
    except (ValueError, OverflowError):
        return None


def _reset(text: str | None, wall_s: float) -> float | None:
    if text is None:
        return None
    seconds = duration_s(text)
    if seconds is None or seconds < _EPOCH_S:
        return seconds
    if seconds >= _EPOCH_S * 1000:
        seconds /= 1000
    return max(0.0, seconds - wall_s)
