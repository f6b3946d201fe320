"""Synthetic traffic: arrival times, lengths and priorities drawn from a seed, row by row.

Each of the three has a random stream of its own, so that another rate does not change the prompts.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from engine.core.errors import ConfigError, SetupError
from engine.core.request import PRIORITIES, Request
from engine.schemas.workload import LengthSpec, SyntheticWorkloadSpec
from engine.workloads.lines import open_bytes, read_lines
from engine.workloads.rows import TEXT_FIELDS, Form, Row
from engine.workloads.source import ClosedLoop, Source, find_file

_STORY = (
    "the river runs past an old stone mill where children once watched how grain became flour and their parents told "
    "them of dry summers when nothing turned for weeks but everybody stayed because rain would come as it always had"
)
_WORDS = _STORY.split()


def open_synthetic(spec: SyntheticWorkloadSpec, form: Form, seed: int) -> Source:
    """Raises ConfigError for traffic that would never end or that its knobs do not describe."""
    path = None
    if spec.arrivals == "trace":
        path = _check_trace(spec)
    elif spec.duration_s is None and spec.limit is None:
        raise ConfigError("workload.duration_s: these rows would never end; set workload.duration_s or workload.limit")
    if not any((spec.priorities.high, spec.priorities.normal, spec.priorities.low)):
        raise ConfigError("workload.priorities: all weights are 0; give at least one of high, normal, low")
    for name, lengths in (("prompt_tokens", spec.prompt_tokens), ("max_tokens", spec.max_tokens)):
        if lengths is not None and lengths.min > lengths.max:
            raise ConfigError(f"workload.{name}.min: {lengths.min} is more than {name}.max, {lengths.max}")
    name = spec.times if isinstance(spec.times, str) and path is not None else spec.arrivals
    return SyntheticSource("synthetic", name, lambda: iter(()), form, spec.limit, path, spec=spec, seed=seed)


@dataclass(frozen=True, slots=True)
class SyntheticSource(Source):
    """Rows that are made, not read; the same in every iteration."""

    spec: SyntheticWorkloadSpec = None  # type: ignore[assignment]  # after fields with defaults
    seed: int = 0

    def rows(self, known: Callable[[int, bytes], bool] | None = None) -> Iterator[Row]:
        """Yields all rows: a skipped row must be made like any other. Raises SetupError for a trace that is out of
        order or not a list of numbers."""
        spec, task, parameters = self.spec, self.form.task, self.form.parameters
        priority = _priorities(spec, Random(f"{self.seed} priorities"))
        lengths = Random(f"{self.seed} lengths")
        prompt_words = _lengths(spec.prompt_tokens, lengths)
        answer = None if spec.max_tokens is None or task == "embedding" else _lengths(spec.max_tokens, lengths)
        text = _Text(spec.prompt_tokens)
        field = TEXT_FIELDS.get(task, "prompt")
        for index, at_s in enumerate(self._times()):
            prompt = text.of(index + 1, prompt_words())
            body: dict[str, Any] = dict(parameters)
            body[field] = [{"role": "user", "content": prompt}] if field == "messages" else prompt
            if answer is not None:
                body.setdefault("max_tokens", answer())
            id = f"row-{index + 1}"
            request = Request(task, body, id, priority(), spec.deadline_s)
            raw: dict[str, Any] = {"custom_id": id, "task": task, "priority": request.priority, "body": body}
            if spec.deadline_s is not None:
                raw["deadline_s"] = spec.deadline_s
            yield Row(index, id, request, None, raw, at_s)

    def count(self) -> int | None:
        """None in a closed loop, whose rows depend on the speed of the answers."""
        if self.spec.arrivals == "closed":
            return self.limit if self.spec.duration_s is None else None
        return sum(1 for _ in self._times())

    def describe(self) -> str:
        spec = self.spec
        how = {
            "poisson": f"poisson {spec.rate_per_s:g}/s",
            "constant": f"constant {spec.rate_per_s:g}/s",
            "trace": f"trace {self.name}",
            "closed": f"{spec.users} users who think {spec.think_s:g} s",
        }[spec.arrivals]
        length = f", {spec.duration_s:g} s" if spec.duration_s is not None else ""
        limit = f", at most {self.limit} rows" if self.limit is not None else ""
        return f"synthetic {how}{length} ({self.form.task}{limit})"

    @property
    def made(self) -> bool:
        return True

    @property
    def closed_loop(self) -> ClosedLoop | None:
        spec = self.spec
        if spec.arrivals != "closed":
            return None
        return ClosedLoop(spec.users, spec.think_s, spec.duration_s, self.seed)

    def _times(self) -> Iterator[float | None]:
        """Yields the arrival time of each row, in seconds; None: as soon as a user of the closed loop is free."""
        spec = self.spec
        if spec.arrivals == "closed":
            return itertools.repeat(None) if self.limit is None else itertools.repeat(None, self.limit)
        if spec.arrivals == "constant":
            times: Iterator[float] = (index / spec.rate_per_s for index in itertools.count())
        elif spec.arrivals == "poisson":
            times = _poisson(spec.rate_per_s, Random(f"{self.seed} arrivals"))
        else:
            times = _trace(spec.times, self.path)
        if spec.duration_s is not None:
            end = spec.duration_s
            times = itertools.takewhile(lambda at_s: at_s < end, times)
        return itertools.islice(times, self.limit)


class _Text:
    """Prompts of a given number of words, cut from one long text; the number in front makes each unique."""

    def __init__(self, lengths: LengthSpec) -> None:
        longest = math.ceil(lengths.median) if lengths.distribution == "constant" else lengths.max
        words = itertools.islice(itertools.cycle(_WORDS), longest)
        self._ends = [0, *itertools.accumulate(len(word) + 1 for word in words)]
        self._whole = " " + " ".join(itertools.islice(itertools.cycle(_WORDS), longest))

    def of(self, number: int, words: int) -> str:
        return f"{number}{self._whole[: self._ends[words - 1]]}"


def _check_trace(spec: SyntheticWorkloadSpec) -> Path | None:
    if isinstance(spec.times, str):
        path, live = find_file(spec.times, "workload.times")
        if live:
            raise ConfigError(f"workload.times: {spec.times} is a pipe; write the times to a file")
        return path
    if not spec.times:
        raise ConfigError("workload.times: arrivals=trace needs a list of seconds or a file; add workload.times=FILE")
    if spec.times[0] < 0 or any(after < before for before, after in itertools.pairwise(spec.times)):
        raise ConfigError("workload.times: expected seconds from the start, in order, none below 0")
    return None


def _poisson(rate_per_s: float, rng: Random) -> Iterator[float]:
    at_s = 0.0
    while True:
        at_s += rng.expovariate(rate_per_s)
        yield at_s


def _trace(times: tuple[float, ...] | str | None, path: Path | None) -> Iterator[float]:
    if path is None:
        yield from times or ()  # type: ignore[misc]  # a text has a path
        return
    last = 0.0
    try:
        with open_bytes(path) as stream:
            for number, line in read_lines(stream):
                if not line or line.isspace():
                    continue
                at_s = _seconds(line)
                if at_s is None or at_s < last:
                    what = "no number" if at_s is None else f"{at_s:g} comes after {last:g}"
                    raise SetupError(
                        f"workload.times: {times}:{number}: {what}; expected one number of seconds a line, in order"
                    )
                last = at_s
                yield at_s
    except OSError as error:
        raise SetupError(f"workload.times: {times} can't be read: {error}; repair the file and try again") from error


def _seconds(line: bytes) -> float | None:
    try:
        at_s = float(line)
    except ValueError:
        return None
    return at_s if math.isfinite(at_s) else None


def _lengths(spec: LengthSpec, rng: Random) -> Callable[[], int]:
    """Draws the tokens of one text."""
    low, high = spec.min, spec.max
    if spec.distribution == "constant":
        always = math.ceil(spec.median)
        return lambda: always
    if spec.distribution == "uniform":
        span = high - low + 1
        return lambda: low + int(rng.random() * span)
    mu, sigma = math.log(spec.median), spec.sigma
    return lambda: min(high, max(low, round(math.exp(rng.gauss(mu, sigma)))))


def _priorities(spec: SyntheticWorkloadSpec, rng: Random) -> Callable[[], str]:
    """Draws the priority of one row."""
    names = [name for name in PRIORITIES if getattr(spec.priorities, name)]
    if len(names) == 1:
        return lambda: names[0]
    bounds = list(itertools.accumulate(getattr(spec.priorities, name) for name in names))
    return lambda: names[min(bisect.bisect(bounds, rng.random() * bounds[-1]), len(names) - 1)]
