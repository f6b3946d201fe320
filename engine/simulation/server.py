"""The simulated provider on a socket, for any client. It carries out what `provider.py` decides."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

import msgspec
from aiohttp import web

from engine.core.clock import Clock, SystemClock
from engine.core.errors import InvalidRequest, SetupError
from engine.dialects.server import ClientCall
from engine.schemas.simulated import SimulatedProviderSpec
from engine.simulation import answers
from engine.simulation.batches import Api, BatchStore, Called
from engine.simulation.batches_anthropic import AnthropicBatches
from engine.simulation.batches_gemini import GeminiBatches
from engine.simulation.batches_openai import OpenAIBatches
from engine.simulation.provider import Failure, Plan, SimulatedProvider
from engine.simulation.wire import WIRES, Head, Wire, key_of

MAX_BODY_BYTES = 64 * 1024 * 1024
"""A larger request is refused with HTTP 413."""
_STOP_S = 0.2
"""The time that calls in flight have left when the server stops, in seconds."""
OWN_FAULTS = frozenset({"invalid_request", "too_long", "content_filtered"})
"""Faults of a request, which hit the members of a batch job and not the calls about it."""
COUNTERS_PATH = "/simulated/counters"
BATCHES_PATH = "/simulated/batches"
BATCH_APIS: Mapping[str, type[Api]] = {
    "openai": OpenAIBatches,
    "anthropic": AnthropicBatches,
    "gemini": GeminiBatches,
}
"""Batch API → what serves it."""


class SimulatedServer:
    """An HTTP server over one simulated provider, which speaks all wires of `WIRES` at once, told apart by the path.
    `async with` starts and stops it."""

    def __init__(
        self,
        spec: SimulatedProviderSpec,
        *,
        model: str | None = None,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
    ) -> None:
        """`model` is the name that it lists, by default the spec's. `port` 0 takes a free one."""
        self.provider = SimulatedProvider(spec, clock or SystemClock(), seed)
        self.host = host
        self.port = port
        self._numbered = 0
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_get(COUNTERS_PATH, self._counters)
        taken: set[tuple[str, str]] = set()
        for name in WIRES:
            wire = Wire(name, spec, model or spec.default_model)
            for (method, path), task in wire.routes.items():
                if (method, path) not in taken:
                    app.router.add_route(method, path, self._shows(wire) if task == "models" else self._answers(wire))
                    taken.add((method, path))
            for method, path in wire.pages - taken:
                app.router.add_route(method, path, self._describes(wire))
                taken.add((method, path))
        self.batches = BatchStore(self.provider, spec.batch, clock or SystemClock(), seed)
        app.router.add_get(BATCHES_PATH, self._jobs)
        wires = {name: Wire(name, spec, model or spec.default_model) for name in BATCH_APIS}
        for kind, api in BATCH_APIS.items():
            made = api(self.batches, wires)
            for method, path in made.routes:
                app.router.add_route(method, path, self._batches(made, wires[kind], f"{method} {path}"))
        # A client that leaves cancels its call, so that its place is free at once.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_STOP_S)

    @property
    def url(self) -> str:
        """http://host:port; the paths of each wire protocol are below it."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    async def start(self) -> None:
        """Listens. Raises SetupError."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise SetupError(
                f"--host {self.host} --port {self.port}: can't listen there: {error.strerror or error}; "
                "--port 0 takes a free port"
            ) from error
        self.port = self._runner.addresses[0][1]

    async def aclose(self) -> None:
        """Stops listening, and breaks the calls in flight."""
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _counters(self, request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self.provider.counters.as_dict()), content_type="application/json")

    async def _jobs(self, request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self.batches.as_dict()), content_type="application/json")

    def _batches(self, api: Api, wire: Wire, route: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(request: web.Request) -> web.Response:
            key = key_of(request.headers)
            failure = self.provider.refusal(key)
            if failure is not None and failure.kind not in OWN_FAULTS:
                return await self._refuse(wire, failure, request)
            # Without the limit on a body: jobs are large.
            content = await request.content.read()
            called = Called(route, dict(request.match_info), request.query, key, request.headers, content)
            try:
                reply = api.answer(called)
            except (InvalidRequest, msgspec.MsgspecError) as error:
                return await self._refuse(wire, Failure("invalid_request", str(error), 400), request)
            if reply.lost:
                return _reset(request)
            return web.Response(
                status=reply.status, body=reply.content, headers=reply.headers, content_type=reply.content_type
            )

        return handler

    def _shows(self, wire: Wire) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(request: web.Request) -> web.Response:
            refusal = self.provider.refusal(key_of(request.headers))
            if refusal is not None:
                return await self._refuse(wire, refusal, request)
            return web.Response(body=wire.models(), content_type="application/json")

        return handler

    def _describes(self, wire: Wire) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(request: web.Request) -> web.Response:
            refusal = self.provider.refusal(key_of(request.headers))
            if refusal is not None and not refusal.in_answer:
                return await self._refuse(wire, refusal, request)
            status, body = wire.page(request.path, dict(request.match_info), await request.read())
            return web.Response(status=status, body=body, content_type="application/json")

        return handler

    def _answers(self, wire: Wire) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handler(request: web.Request) -> web.StreamResponse:
            try:
                # The path comes with its query: some wires keep the kind of stream or the key there.
                call = wire.read(request.path_qs, dict(request.match_info), request.headers, await request.read())
            except InvalidRequest as error:
                return await self._refuse(wire, Failure("invalid_request", error.message, 400), request)
            return await self._answer(wire, call, request)

        return handler

    async def _answer(self, wire: Wire, call: ClientCall, request: web.Request) -> web.StreamResponse:
        plan = self.provider.admit(
            call.key,
            answers.input_tokens(call.task, call.body),
            answers.output_limit(call.task, call.body),
            begun=answers.begun(call.task, call.body),
            stream=call.stream,
        )
        failure = plan.failure
        if failure is not None and not failure.in_answer:
            return await self._refuse(wire, failure, request)
        self._numbered += 1
        wall_s = self.provider.wall_s()
        head = wire.head(call, f"simulated-{self._numbered}", int(wall_s))
        answered = False
        try:
            if failure is not None and failure.kind == "silent":
                await _for_ever()
            headers = wire.headers(head.answer_id, self.provider.levels(plan.key), wall_s)
            respond = self._stream if call.stream else self._whole
            response = await respond(wire, head, plan, request, headers)
            answered = True
            return response
        finally:
            self.provider.leave(plan, answered=answered)

    async def _whole(
        self, wire: Wire, head: Head, plan: Plan, request: web.Request, headers: dict[str, str]
    ) -> web.StreamResponse:
        await asyncio.sleep(plan.whole_s)
        failure = plan.failure
        body = wire.whole(head, plan)
        if failure is not None and failure.kind == "malformed":
            body = body[: len(body) // 2]
        response = web.StreamResponse(headers={**headers, "content-length": str(len(body))})
        response.content_type = "application/json"
        await response.prepare(request)
        if failure is not None and failure.kind == "truncated":
            await response.write(body[: int(len(body) * min(failure.at, 0.99))])
            _cut(request)
            return response
        await response.write(body)
        await response.write_eof()
        return response

    async def _stream(
        self, wire: Wire, head: Head, plan: Plan, request: web.Request, headers: dict[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={**headers, "cache-control": "no-cache"})
        response.content_type = wire.stream_type
        response.enable_chunked_encoding()
        await asyncio.sleep(plan.pause_s(0))
        await response.prepare(request)
        failure, answer = plan.failure, wire.stream(head, plan)
        index = 0
        while index < plan.tokens and index != plan.broken_at:
            await response.write(answer.piece(index))
            index += 1
            pause_s = plan.pause_s(index)
            if pause_s:
                await asyncio.sleep(pause_s)
        if failure is not None and failure.kind == "truncated":
            _cut(request)
            return response
        if failure is not None and failure.kind == "malformed":
            await response.write(answer.garbled(index))
        else:
            await response.write(answer.end(terminated=failure is None))
        await response.write_eof()
        return response

    async def _refuse(self, wire: Wire, failure: Failure, request: web.Request) -> web.Response:
        """Says no, or nothing: a fault that would break an answer hides a page as silence does."""
        await asyncio.sleep(failure.delay_s)
        if failure.in_answer:
            await _for_ever()
        if failure.kind == "connect":
            return _reset(request)
        self._numbered += 1
        status, headers, body = wire.refusal(failure, f"simulated-{self._numbered}", self.provider.wall_s())
        return web.Response(status=status, headers=headers, body=body)


async def _for_ever() -> None:
    """Until the caller leaves."""
    await asyncio.get_running_loop().create_future()


def _cut(request: web.Request) -> None:
    """Ends the connection after what was written, without the end of the body."""
    if request.transport is not None:
        request.transport.close()


def _reset(request: web.Request) -> web.Response:
    """Breaks the connection with a TCP reset."""
    transport = request.transport
    if transport is not None:
        sock: Any = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()  # not sent; a handler must return one
