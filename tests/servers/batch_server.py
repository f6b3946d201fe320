"""The simulated provider's batch jobs behind a tripwire: a proxy that ends a process at a chosen call."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
from aiohttp import ClientSession, web

from engine.schemas.simulated import SimulatedProviderSpec
from engine.simulation.server import BATCHES_PATH, SimulatedServer

_KEPT = ("content-type", "x-goog-upload-url", "x-goog-upload-status")
When = Literal["before", "beside", "after", "within"]
"""before: the provider never sees the call; beside: all goes on as if nothing was; after: it does, and its reply is
lost; within: half of the reply comes."""


@dataclass
class Wire:
    """Ends `pid` at the `nth` call that matches `pattern`, once."""

    pattern: str
    when: When = "after"
    nth: int = 1
    signal: int = signal.SIGKILL
    pid: int = 0
    tripped: threading.Event = field(default_factory=threading.Event)


class Tripwire:
    """A provider at `url`, whose calls are in `calls` as METHOD and path."""

    def __init__(self, spec: SimulatedProviderSpec) -> None:
        self.calls: list[str] = []
        self.wire: Wire | None = None
        self.url = ""
        self.server = SimulatedServer(spec)
        self._matched = 0

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs that the provider has, with the bodies of their requests."""
        jobs: list[dict[str, Any]] = httpx.get(self.url + BATCHES_PATH, trust_env=False).json()
        return jobs

    def prompts(self) -> list[str]:
        """What was asked, over all jobs."""
        return [re.findall(r"ask \d+", body)[0] for job in self.jobs() for body in job["requests"]]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        call = f"{request.method} {request.path}"
        if BATCHES_PATH not in call:
            self.calls.append(call)
        trips = self._trips(call)
        if trips == "before":
            self._end()
            return web.Response(status=503)
        if trips == "beside":
            self._end()
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        async with (
            ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, self.server.url + request.path_qs, headers=headers, data=await request.content.read()
            ) as reply,
        ):
            content = await reply.read()
            if trips == "after":
                self._end()
                return web.Response(status=503)
            kept = {name: reply.headers[name] for name in _KEPT if name in reply.headers}
            response = web.StreamResponse(status=reply.status, headers=kept)
            response.content_length = len(content)
            await response.prepare(request)
            if trips == "within":
                await response.write(content[: len(content) // 2])
                await asyncio.sleep(0.2)  # so that what has come is read
                self._end()
                return response
            await response.write(content)
            return response

    def _trips(self, call: str) -> When | None:
        wire = self.wire
        if wire is None or wire.tripped.is_set() or re.fullmatch(wire.pattern, call) is None:
            return None
        self._matched += 1
        return wire.when if self._matched == wire.nth else None

    def _end(self) -> None:
        assert self.wire is not None
        os.kill(self.wire.pid, self.wire.signal)
        self.wire.tripped.set()


@contextmanager
def tripwire(**batch: Any) -> Iterator[Tripwire]:
    """Serves on loopback in a thread of its own. `batch` is `provider.batch` of the simulated provider; `provider`
    holds what else its spec says."""
    provider = batch.pop("provider", {})
    proxy = Tripwire(SimulatedProviderSpec.model_validate({"kind": "simulated", "batch": batch, **provider}))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        await proxy.server.start()
        proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    async def stop(runner: web.AppRunner) -> None:
        await runner.cleanup()
        await proxy.server.aclose()

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(stop(runner), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
