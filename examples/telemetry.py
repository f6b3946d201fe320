"""The figures of an engine's work: python examples/telemetry.py [OVERRIDE …], such as provider=simulated."""

from __future__ import annotations

import asyncio
import sys

from engine import Engine, Request
from engine.telemetry import prometheus


async def main(overrides: list[str]) -> None:
    async with Engine.compose(overrides) as engine:
        for priority in ("high", "normal", "low"):
            messages = [{"role": "user", "content": f"What is {priority} priority?"}]
            await engine.submit(Request("chat", {"messages": messages, "max_tokens": 16}, priority=priority))

        report = engine.report()
        print("outcomes:", report["outcomes"], "cost:", report["cost"], "unknown:", report["cost_unknown"])
        for target, view in report["targets"].items():
            print(f"{target}: {view['attempts']} attempts, p95 {view['latency_s']['p95']} s")
        for line in prometheus.text(engine).splitlines():
            if line.startswith("engine_requests_total"):
                print(line)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
