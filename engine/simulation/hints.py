"""Retry hints in the form of each provider.

Sources: RFC 9110 section 10.2.3 (Retry-After); the rate-limit headers of OpenAI and Azure (`retry-after-ms`,
`x-ratelimit-reset-*`) and of Anthropic; google.rpc.RetryInfo in error bodies of the Gemini API.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime

from engine.schemas.simulated import Hint
from engine.simulation.capacity import Level

MOST_S = 86_400.0 * 365
"""A wait is never said to be longer than a year."""


def said_s(hint: Hint, wait_s: float | None, wall_s: float) -> float | None:
    """The wait that a caller reads from the hint, in seconds; None for no hint. Rounded up to what the hint can say:
    whole seconds, or milliseconds."""
    if hint == "none" or wait_s is None:
        return None
    wait_s = min(wait_s, MOST_S)
    if hint == "retry_after":
        return float(math.ceil(wait_s))
    if hint in ("retry_after_date", "anthropic"):
        return math.ceil(wall_s + wait_s) - wall_s
    return _millis(wait_s) / 1000


def headers(hint: Hint, wait_s: float | None, wall_s: float, unit: str) -> dict[str, str]:
    """The headers that say `wait_s`, as `said_s` gave it. `wall_s` is the time now in seconds since 1970, `unit` the
    limit that is used up: requests or tokens."""
    if wait_s is None:
        return {}
    if hint == "retry_after":
        return {"retry-after": str(round(wait_s))}
    if hint == "retry_after_float":
        return {"retry-after": f"{wait_s:.3f}"}
    if hint == "retry_after_date":
        return {"retry-after": format_datetime(_moment(wall_s + wait_s), usegmt=True)}
    if hint == "retry_after_ms":
        return {"retry-after-ms": str(_millis(wait_s))}
    if hint == "x_ratelimit":
        return {f"x-ratelimit-remaining-{unit}": "0", f"x-ratelimit-reset-{unit}": duration(wait_s)}
    if hint == "anthropic":
        reset = _rfc3339(wall_s + wait_s)
        return {f"anthropic-ratelimit-{unit}-remaining": "0", f"anthropic-ratelimit-{unit}-reset": reset}
    return {}


def sentence(hint: Hint, wait_s: float | None) -> str:
    """Returns the text of a hint in the error's message; empty for other hints."""
    return f" Please try again in {wait_s:.3f}s." if hint == "message" and wait_s is not None else ""


def details(hint: Hint, wait_s: float | None) -> list[dict[str, str]]:
    """Returns the `details` of an error body for a hint in them; empty for other hints."""
    if hint != "gemini" or wait_s is None:
        return []
    return [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{wait_s:.3f}s"}]


def duration(seconds: float) -> str:
    """Seconds as OpenAI's reset headers have them: "12ms", "6m0s", "1h2m3.5s"."""
    millis = _millis(seconds)
    if millis < 1000:
        return f"{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s"
    if minutes or hours:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


def _openai_limits(levels: Mapping[str, Level], wall_s: float) -> dict[str, str]:
    found = {}
    for unit, level in levels.items():
        found[f"x-ratelimit-limit-{unit}"] = str(level.limit)
        found[f"x-ratelimit-remaining-{unit}"] = str(level.remaining)
        found[f"x-ratelimit-reset-{unit}"] = duration(level.reset_s)
    return found


def _anthropic_limits(levels: Mapping[str, Level], wall_s: float) -> dict[str, str]:
    found = {}
    for unit, level in levels.items():
        found[f"anthropic-ratelimit-{unit}-limit"] = str(level.limit)
        found[f"anthropic-ratelimit-{unit}-remaining"] = str(level.remaining)
        # Rounded up: a limit is never whole before the moment that was said.
        found[f"anthropic-ratelimit-{unit}-reset"] = _rfc3339(math.ceil(wall_s + level.reset_s))
    return found


LIMITS: Mapping[str, Callable[[Mapping[str, Level], float], dict[str, str]]] = {
    "openai": _openai_limits,
    "anthropic": _anthropic_limits,
}
"""By dialect: the headers of a served call that say what is left of its key's limits, at a time in seconds since 1970.
The other wires have none."""


def _millis(seconds: float) -> int:
    return math.ceil(seconds * 1000 - 1e-6)


def _moment(wall_s: float) -> datetime:
    return datetime.fromtimestamp(round(wall_s), UTC)


def _rfc3339(wall_s: float) -> str:
    return _moment(wall_s).strftime("%Y-%m-%dT%H:%M:%SZ")
