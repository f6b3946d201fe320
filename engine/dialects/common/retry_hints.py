"""The time that a provider requests before the next try: its headers and, failing these, its words.

Sources: RFC 9110 section 10.2.3 (Retry-After); the rate-limit headers of OpenAI, Groq, Azure, Cerebras, Mistral and
OpenRouter. What each of them means by a value is not agreed: Retry-After, too, comes as a point in time, in seconds or
milliseconds since 1970 (openclaw/clawhub#407, cloudfoundry/cloud_controller_ng#2544), so one reader takes every form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|μs|ns|s|m|h|d)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RESETS = ("", "-requests", "-tokens", "-requests-day", "-tokens-minute")
"""Endings of `x-ratelimit-reset*`: OpenRouter's and Together's, OpenAI's and Groq's, Cerebras'."""
_SAID = re.compile(
    r"(?:try again in|retry after|retry in|wait(?: for)?)\s+(?:about\s+)?"
    r"((?:\d+(?:\.\d+)?\s*(?:milliseconds?|ms|seconds?|secs?|minutes?|mins?|hours?|[hms](?![a-z]))[\s,]*)+)",
    re.IGNORECASE,
)
_SAID_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|mil|[hms])", re.IGNORECASE)
LONGEST_S = 86400.0
"""The longest wait that a hint can cause; a limit that comes back later is tried again after a day."""
_EPOCH_S = 1e9
"""A number above this is a point in time since 1970, not a duration: 31 years."""
_EPOCH_UNITS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3), (_EPOCH_S, 1.0))
"""Least number of a point in time in nanoseconds, microseconds, milliseconds, seconds; and that unit in seconds."""


def wait_s(text: str | None, wall_s: float, unit_s: float = 1.0) -> float | None:
    """Seconds from now in the value of a header or field, whichever of the forms in use it has; None for no hint.

    A number is a duration in `unit_s` or, above 1e9, a point in time in seconds, milliseconds, microseconds or
    nanoseconds since 1970. A text is a duration ("6m0s"), an HTTP date or an RFC 3339 time. `wall_s` is the time now in
    seconds since 1970. A time that has passed is 0. Never negative or infinite.
    """
    if text is None:
        return None
    number = _number(text)
    if number is not None:
        for least, epoch_unit_s in _EPOCH_UNITS:
            if number >= least:
                return max(0.0, number * epoch_unit_s - wall_s)
        return number * unit_s
    seconds = duration_s(text)
    return seconds if seconds is not None else _from_date(text.strip(), wall_s)


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
            wait_s(headers.get("retry-after-ms"), wall_s, 0.001),
            wait_s(headers.get("retry-after"), wall_s),
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
        reset = wait_s(headers.get("x-ratelimit-reset" + ending), wall_s)
        if reset is not None:
            left = _number(headers.get("x-ratelimit-remaining" + ending, ""))
            (used_up if left == 0 else others).append(reset)
    if used_up:
        return max(used_up)
    said = said_s(message)
    if said is not None:
        return said
    return max(others, default=None)


def rate_hint(
    headers: Mapping[str, str], unit: str, wall_s: float, window_s: float | None = None
) -> tuple[float, float, float] | None:
    """Limit, remaining and seconds until it is whole again of `x-ratelimit-*-<unit>`; None unless all are said.

    Of a limit for a window of `window_s` seconds the last may be left out: it then comes back evenly.
    """
    limit = headers.get("x-ratelimit-limit-" + unit)
    if limit is None:
        return None
    remaining = headers.get("x-ratelimit-remaining-" + unit)
    reset = headers.get("x-ratelimit-reset-" + unit)
    return limit_of(limit, remaining, reset, wall_s, window_s)


def limit_of(
    limit: str | None, remaining: str | None, reset: str | None, wall_s: float, window_s: float | None = None
) -> tuple[float, float, float] | None:
    """A limit, what remains and seconds until it is whole again, at most `LONGEST_S`, from the values of three headers;
    None unless all can be read. `window_s` as in `rate_hint`."""
    if limit is None or remaining is None:
        return None
    most, left = _number(limit), _number(remaining)
    if most is None or left is None:
        return None
    if reset is None:
        return (most, left, window_s * (1 - left / most)) if window_s and most > 0 else None
    seconds = wait_s(reset, wall_s)
    return (most, left, min(seconds, LONGEST_S)) if seconds is not None else None


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
    return total if end and end == len(text) and math.isfinite(total) else None


def said_s(message: str) -> float | None:
    """Returns the seconds in a message, as in "Please try again in 1m2.5s."."""
    said = _SAID.search(message)
    if said is None:
        return None
    total = 0.0
    for amount, unit in _SAID_PART.findall(said[1]):
        unit = unit.lower()
        total += float(amount) * _UNITS["ms" if unit == "mil" else unit]
    return total if math.isfinite(total) else None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _from_date(text: str, wall_s: float) -> float | None:
    """Seconds from now until an RFC 3339 time or an HTTP date; without a time zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text) if text[:1].isdigit() else parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - wall_s)
    except (ValueError, OverflowError):
        return None
