"""Policies on bad days of a provider, in virtual time: the share of its true capacity that they reach.

    python benchmarks/simulation.py              policies on three days, below
    python benchmarks/simulation.py traffic [S]  what S seconds (an hour) at 1,000 requests a second cost to simulate

The provider takes 32 calls at once, of a second each (median); one more is a 429. 160 users keep sending, two fifths of
them at high priority, so that high alone would fill it. Each day lasts 20 minutes of virtual time and is lived through
with several policies, from the same seed. The figures are the provider's own counters, not what the policy believes.

- storm: nothing but the limit itself.
- brown-out: from minute 5 to 10 a quarter of the 32 places is left.
- outage: from minute 5 to 7 every connection is refused.

goodput: time of served calls ÷ (places × time), in the last ten minutes, and within the brown-out once it has lasted a
minute. rejected: share of the calls that the provider refused, from the second minute on. recovery: from the end of the
fault until ten seconds with 90 % of the goodput from before it, in cooldowns (`policy.breaker.open_s`). waits: the
longest time that a request spent on anything but its last call.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from contest import machine

from engine import Engine
from engine.config.compose import compose
from engine.core import virtual_time
from engine.core.request import Request
from engine.core.virtual_time import VirtualClock
from engine.executors.services import Services

PLACES = 32
USERS = {"high": 64, "normal": 64, "low": 32}
DAY_S = 1200
SETTLED_S = 600
PROVIDER = [
    "provider=simulated",
    f"provider.capacity.concurrency={PLACES}",
    "provider.latency_s=1.0",
    "provider.latency_distribution=lognormal",
    "policy.queue.concurrency=64",
]
DAYS = {
    "storm": ([], None),
    "brown-out": (["provider.faults=[{kind: brownout, share: 0.25, from_s: 300, to_s: 600}]"], (300, 600)),
    "outage": (["provider.faults=[{kind: connect, from_s: 300, to_s: 420}]"], (300, 420)),
}
POLICIES = {
    "default": [],
    "no adaptive limit": ["policy/concurrency=off"],
    "no breaker": ["policy/breaker=off"],
    "neither": ["policy/concurrency=off", "policy/breaker=off"],
}
HEADS = [
    "goodput", "in the brown-out", "rejected", "failed", "recovery, cooldowns", "LOW waits, s", "HIGH waits, s",
]  # fmt: skip


@dataclass
class Day:
    """The provider's counts at each second, and its callers' waiting times."""

    served_s: list[float] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    failed: int = 0
    waited_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(USERS, 0.0))
    cooldown_s: float = 0.0

    def goodput(self, from_s: int, to_s: int, places: float = PLACES) -> float:
        return (self.served_s[to_s] - self.served_s[from_s]) / (places * (to_s - from_s))

    def rejected(self, from_s: int, to_s: int) -> float:
        return (self.refused[to_s] - self.refused[from_s]) / max(1, self.calls[to_s] - self.calls[from_s])

    def recovery_s(self, fault: tuple[int, int]) -> float | None:
        before = self.goodput(120, fault[0])
        for second in range(fault[1], DAY_S - 10):
            if self.goodput(second, second + 10) >= 0.9 * before:
                return second - fault[1]
        return None


async def live(words: list[str], clock: VirtualClock) -> Day:
    """One day with one policy."""
    spec = compose([*PROVIDER, *words]).spec
    day = Day(cooldown_s=spec.policy.breaker.open_s)
    async with Engine(spec, services=Services(clock=clock, seed=spec.seed)) as engine:
        counters = engine.pipeline.target_chains[0].executor.counters  # type: ignore[attr-defined]
        users = [
            asyncio.create_task(ask(engine, day, priority)) for priority, count in USERS.items() for _ in range(count)
        ]
        for _ in range(DAY_S + 1):
            day.served_s.append(counters.served_s)
            day.calls.append(counters.calls)
            day.refused.append(sum(counters.refused.values()))
            await asyncio.sleep(1)
        for user in users:
            user.cancel()
        await asyncio.gather(*users, return_exceptions=True)
    return day


async def ask(engine: Engine, day: Day, priority: str) -> None:
    """A user who sends the next request on each answer, and a second after a failure."""
    while True:
        request = Request("chat", {"messages": [{"role": "user", "content": "hello"}]}, priority=priority)
        result = await engine.submit(request)
        record = result.engine
        last_s = record.attempts[-1].duration_s if record.attempts else 0.0
        day.waited_s[priority] = max(day.waited_s[priority], record.total_s - last_s)
        if result.error is not None:
            day.failed += 1
            await asyncio.sleep(1)


def traffic(seconds: float) -> None:
    """Runs `python -m engine` as a whole: journal, results, report; requests of half a second, all policies on."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["provider=simulated", "provider.latency_s=0.5", "policy.queue.concurrency=2000"]
        words += ["workload=synthetic", "workload.rate_per_s=1000", f"workload.duration_s={seconds}"]
        command = [sys.executable, "-m", "engine", *words, f"output.dir={folder}/run", "telemetry.progress=off"]
        pid = os.posix_spawn(command[0], command, os.environ)
        _, status, used = os.wait4(pid, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            raise SystemExit(f"failed: {' '.join(command)}")
        manifest = json.loads((Path(folder) / "run/manifest.json").read_text())
        real_s, cpu_s = manifest["sessions"][0]["real_s"], used.ru_utime + used.ru_stime
        print(
            f"- {manifest['rows']:,} rows in {manifest['wall_s']:,.0f} s of virtual time: {real_s:,.0f} s of real time,"
        )
        print(f"  {cpu_s:,.0f} s of CPU, peak memory {used.ru_maxrss / 1024:.0f} MB")


def main() -> None:
    print(machine("msgspec"))
    if sys.argv[1:2] == ["traffic"]:
        traffic(float(sys.argv[2]) if sys.argv[2:] else 3600.0)
        return
    for name, (faults, fault) in DAYS.items():
        print(f"\n{name}\n")
        print("| policy | " + " | ".join(HEADS) + " |\n|---" + "|--:" * len(HEADS) + "|")
        for policy, words in POLICIES.items():
            day = virtual_time.run(partial(live, [*words, *faults]))
            print(f"| {policy} | {' | '.join(figures(name, day, fault))} |", flush=True)


def figures(name: str, day: Day, fault: tuple[int, int] | None) -> list[str]:
    within, recovery = "–", "–"
    if name == "brown-out":
        within = f"{day.goodput(360, 600, PLACES / 4):.0%}"
    if fault is not None:
        took_s = day.recovery_s(fault)
        recovery = "never" if took_s is None else f"{took_s / day.cooldown_s:.1f}"
    return [
        f"{day.goodput(SETTLED_S, DAY_S):.0%}",
        within,
        f"{day.rejected(60, DAY_S):.1%}",
        f"{day.failed:,}",
        recovery,
        f"{day.waited_s['low']:.0f}",
        f"{day.waited_s['high']:.0f}",
    ]


if __name__ == "__main__":
    main()
