"""`engine bench seed`: the seed's twelve rows, measured here, claim next to figure."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.bench.report import Table, number
from engine.bench.rows import ROWS, Row
from engine.core.child_process import module_command
from engine.core.errors import ConfigError, nearest

LIMIT_S = 400.0
"""Time limit of a contender, in seconds."""
MEASURES = {
    "tokens_s": ("tokens/s", True),
    "latency_s": ("s", False),
    "realtime": ("× real time", True),
    "query_ms": ("ms a query", False),
    "sentence_ms": ("ms a sentence", False),
    "preprocessing_s": ("s of preprocessing", False),
    "memory_mb": ("MB", False),
}
"""A figure's unit, and True if more is better."""
_SPEED = ("tokens_s", "realtime", "query_ms", "sentence_ms", "latency_s")


@dataclass
class Outcome:
    """The figures of a row's contenders, or the reasons for missing ones."""

    row: Row
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def best(self) -> str | None:
        """The fastest contender."""
        measure = next(name for name in _SPEED if name in (self.row.claim or {"latency_s": 0}))
        better = max if MEASURES[measure][1] else min
        found = {name: figures[measure] for name, figures in self.figures.items() if measure in figures}
        return better(found, key=found.__getitem__) if found else None


def run(names: Sequence[str], clock: str, say: Callable[[str], None]) -> list[Outcome]:
    """Measures the rows named, or all. Raises ConfigError for a name that is not a row."""
    known = {row.name: row for row in ROWS}
    for name in names:
        if name not in known:
            raise ConfigError(f"bench seed {name}: no such row; {nearest(name, known)}")
    outcomes = []
    for row in [known[name] for name in names] or list(ROWS):
        outcome = Outcome(row)
        for variant in row.variants:
            _one(outcome, variant, clock)
            said = outcome.problems.get(variant) or _said(outcome.figures[variant], row)
            say(f"{row.name:<20} {variant:<20} {said}")
        outcomes.append(outcome)
    return outcomes


def _one(outcome: Outcome, variant: str, clock: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} if clock == "cpu" else dict(os.environ)
    command = module_command("engine.bench.worker", outcome.row.name, variant, clock)
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        outcome.problems[variant] = f"took longer than {LIMIT_S:g} s"
        return
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        ended = f"ended by signal {-done.returncode}" if done.returncode < 0 else "no reason was given"
        last = (done.stderr.strip().splitlines() or [ended])[-1]
        outcome.problems[variant] = last[:200]
        return
    outcome.figures[variant] = json.loads(lines[-1])


def _said(figures: dict[str, Any], row: Row) -> str:
    return ", ".join(f"{number(figures[name])} {MEASURES[name][0]}" for name in row.claim or {"latency_s": 0})


def table(outcomes: Sequence[Outcome]) -> Table:
    """The rows, the claim next to the figure of the fastest contender."""
    lines = []
    for outcome in outcomes:
        row, best = outcome.row, outcome.best
        if best is None:
            why = "; ".join(outcome.problems.values()) or row.note
            lines.append([row.name, row.what, "", "", "", "", why])
            continue
        cosine = outcome.figures[best].get("cosine")
        drift = [f"{best}: cosine {cosine:.4f} with float32"] if cosine else []
        others = [
            f"{name}: {outcome.problems[name]}" if name in outcome.problems else f"{name}: {_said(figures, row)}"
            for name, figures in [(name, outcome.figures.get(name, {})) for name in row.variants]
            if name != best
        ]
        for place, name in enumerate(row.claim or {"latency_s": 0.0}):
            claim, figure = row.claim.get(name), outcome.figures[best].get(name)
            unit, more = MEASURES[name]
            ratio = "" if not claim or not figure else f"{figure / claim if more else claim / figure:.2f} ×"
            first = place == 0
            lines.append([
                row.name if first else "", row.what if first else "", best if first else "",
                "" if claim is None else f"{number(claim)} {unit}", f"{number(figure)} {unit}", ratio,
                "; ".join([*([row.note] if row.note else []), *drift, *others]) if first else "",
            ])  # fmt: skip
    heads = ["row", "what", "best of ours", "claimed", "measured", "better by", "notes; the other contenders"]
    return Table(heads, lines)
