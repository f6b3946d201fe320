"""Formats the metrics for both reports: groups, roles, stages, the chart of latencies, and numbers as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from engine.core.printable import printable
from engine.telemetry.histogram import Histogram
from engine.telemetry.tally import ROLES

_TEXT_CHARS = 600
_BARS = 48
_FEWEST_CHARTED = 20
"""Fewer answers than this do not make a distribution."""

Group = tuple[str, dict[str, dict[str, Any]]]


def groups(metrics: dict[str, Any]) -> list[Group]:
    """Returns the views of the metrics, each with its heading, without those that would only repeat another."""
    targets, models, keys = metrics["targets"], metrics["models"], metrics["keys"]
    views = [("Target", targets)]
    if len(targets) > 1:
        views.append(("Model", models))
    if keys:
        views.append(("Key", keys))
    if len(metrics["priorities"]) > 1:
        views.append(("Priority", metrics["priorities"]))
    return views


def roles(metrics: dict[str, Any]) -> list[tuple[str, int, int]]:
    """Returns each kind of further attempt that was made: its name, its count, and how many brought the answer."""
    names = {"retry": "retries", "fallback": "fallbacks", "hedge": "hedges", "rescue": "rescues"}
    return [
        (names[role], metrics[names[role]], metrics["helped"].get(role, 0))
        for role in ROLES
        if role in names and metrics[names[role]]
    ]


def stage_rows(stages: dict[str, list[dict[str, str | float]]]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Returns stage, owner, and readings: their names without the stage's, their values as text."""
    rows = []
    for stage, things in stages.items():
        for thing in things:
            labels = [value for value in thing.values() if isinstance(value, str)]
            readings = [
                _reading(name.removeprefix(f"{stage}_"), value)
                for name, value in thing.items()
                if not isinstance(value, str)
            ]
            rows.append((stage.replace("_", " "), ", ".join(labels), readings))
    return rows


def _reading(name: str, value: float) -> tuple[str, str]:
    if name == "state":  # of a breaker
        return name, ("closed", "half open", "open")[int(value)]
    if name.endswith("_s"):
        return name.removesuffix("_s").replace("_", " "), seconds(value)
    return name.removesuffix("_total").replace("_", " "), number(value)


def chart(latency: Histogram) -> dict[str, Any] | None:
    """Returns the distribution on a logarithmic axis, in percent of its width and height; None if it is too small."""
    bars = latency.bars(_BARS)
    if latency.count < _FEWEST_CHARTED or len(bars) < 3:
        return None
    low, high, most = bars[0][0], bars[-1][1], max(count for _, _, count in bars)

    def place(value: float) -> float:
        share = math.log(value / low) / math.log(high / low)
        return round(100 * min(max(share, 0.0), 1.0), 2)

    return {
        "bars": [
            {
                "height": round(100 * count / most, 2),
                "title": f"{seconds(lower)} – {seconds(upper)}: {number(count)} rows",
            }
            for lower, upper, count in bars
        ],
        "ticks": [{"left": place(value), "text": _round_seconds(value)} for value in _ticks(low, high)],
        "marks": [
            {"left": place(value), "name": name, "text": seconds(value)}
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
            if (value := latency.quantile(share))
        ],
    }


def _ticks(low: float, high: float) -> Iterator[float]:
    """Yields 1, 2 and 5 of each power of ten; over more than four powers only the powers."""
    steps = (1.0,) if high / low > 1e4 else (1.0, 2.0, 5.0)
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        yield from (step * 10.0**power for step in steps if low <= step * 10.0**power <= high)


def _round_seconds(value: float) -> str:
    return seconds(value) if value < 1 else f"{value:,.0f} s"


def seconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 0.001:
        return f"{value * 1e6:.0f} µs" if value else "0"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < 120 else f"{value / 60:.1f} min"


def number(value: float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, int) or value >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percent(part: int, whole: int) -> str:
    """Formats a share: 100 % only for the whole, 0 % only for nothing."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if part < whole:
        share = min(share, 99.9)
    return f"{max(share, 0.01) if part else 0:.3g} %"


def dollars(view: dict[str, Any]) -> str:
    """Formats the cost of a view of the metrics. An unknown cost is named, and never counted as zero."""
    cost, requests = view["cost"], view.get("cost_unknown", 0)
    attempts = view.get("attempts_cost_unknown", 0)
    unknown = _counted(requests, "request") if requests else _counted(attempts, "attempt") if attempts else ""
    if cost is None:
        if not view["attempts"]:
            return "–"
        return f"unknown ({unknown})" if unknown else "nothing"
    notes = []
    if view.get("cost_estimated"):
        notes.append(f"{money(view['cost_estimated'])} of it estimated")
    if unknown:
        notes.append(f"{unknown} unknown")
    said = f"at least {money(cost)}" if unknown else money(cost)
    return f"{said} ({', '.join(notes)})" if notes else said


def _counted(count: int, what: str) -> str:
    return f"{number(count)} {what}" + ("" if count == 1 else "s")


def money(dollars: float) -> str:
    """Formats US dollars: cents for large amounts, three significant digits for parts of a cent."""
    if dollars >= 100:
        return f"${dollars:,.2f}"
    return f"${dollars:.{max(4, 2 - math.floor(math.log10(dollars)))}f}" if dollars else "$0.00"


def clip(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _TEXT_CHARS else text[:_TEXT_CHARS] + " …"


def _cell(text: str) -> str:
    """Returns a text as a cell of a Markdown table, which is read on terminals, too."""
    text = printable(text.replace("\r", ""))
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", "<br>")


FILTERS: dict[str, Callable[..., str]] = {
    "cell": _cell,
    "dollars": dollars,
    "number": number,
    "percent": percent,
    "seconds": seconds,
}
"""The filters of the templates."""
