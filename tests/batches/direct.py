"""A transport without sockets: it hands calls to the simulated provider's batch jobs, so that time can be virtual."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from urllib.parse import parse_qsl, urlsplit

from engine.core.clock import Clock
from engine.schemas.simulated import SimulatedProviderSpec
from engine.simulation.batches import Api, BatchStore, Called
from engine.simulation.provider import SimulatedProvider
from engine.simulation.server import BATCH_APIS
from engine.simulation.wire import Wire, key_of
from engine.transports.transport import HttpCall


class DirectReply:
    def __init__(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        self.status = status
        self.headers = headers
        self._content = content

    async def read(self) -> bytes:
        return self._content

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._content

    async def aclose(self) -> None: ...


class DirectTransport:
    """`times` has the moment of each call, by METHOD and path."""

    def __init__(self, spec: SimulatedProviderSpec, clock: Clock) -> None:
        self.store = BatchStore(SimulatedProvider(spec, clock, 0), spec.batch, clock, 0)
        self.times: list[tuple[float, str]] = []
        self._clock = clock
        wires = {name: Wire(name, spec, "simulated") for name in BATCH_APIS}
        self._routes: list[tuple[str, re.Pattern[str], str, Api]] = []
        for api in (made(self.store, wires) for made in BATCH_APIS.values()):
            for method, path in api.routes:
                pattern = re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/:]+)", re.escape(path)))
                self._routes.append((method, pattern, f"{method} {path}", api))

    async def open(self, call: HttpCall) -> DirectReply:
        parts = urlsplit(call.url)
        self.times.append((self._clock.monotonic(), f"{call.method} {parts.path}"))
        for method, pattern, route, api in self._routes:
            found = pattern.fullmatch(parts.path)
            if method == call.method and found:
                key = key_of(call.headers)
                called = Called(
                    route, found.groupdict(), dict(parse_qsl(parts.query)), key, call.headers, call.content or b""
                )
                reply = api.answer(called)
                return DirectReply(reply.status, reply.headers, reply.content)
        return DirectReply(404, {}, b"{}")

    async def aclose(self) -> None: ...
