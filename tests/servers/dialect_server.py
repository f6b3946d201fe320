"""A loopback server that speaks one of our server dialects, for the vendors' own clients to call.

    async def answer(call: ClientCall) -> dict[str, Any] | Sequence[Chunk | InferenceError]: ...

    async with DialectServer("anthropic", answer, models=["m"]) as server:
        client = AsyncAnthropic(base_url=server.url, api_key="k")

`answer` gets what the client asked for in the canonical form. It returns a canonical reply, or the chunks of a stream;
an error among the chunks breaks the stream there, and one that it raises is a refusal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from engine.core.errors import InferenceError
from engine.core.registry import SERVER_DIALECTS
from engine.core.stream import Chunk
from engine.dialects.server import ClientCall, Describing, ServerDialect

Answer = Callable[[ClientCall], Awaitable[dict[str, Any] | Sequence[Chunk | InferenceError]]]


class DialectServer:
    """Serves every route of a dialect. `calls` are what its clients asked for, in order of arrival."""

    def __init__(self, dialect: str, answer: Answer, *, models: Sequence[str] = ()) -> None:
        self.dialect: ServerDialect = SERVER_DIALECTS.get(dialect)()
        self.answer = answer
        self.models = list(models)
        self.calls: list[ClientCall] = []
        self.url = ""
        """Scheme, host and port, without a path."""

    async def __aenter__(self) -> DialectServer:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        for (method, path), task in self.dialect.routes.items():
            app.router.add_route(method, path, self._list if task == "models" else self._serve)
        for method, path in getattr(self.dialect, "pages", ()):
            app.router.add_route(method, path, self._page)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _list(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=self.dialect.models(self.models), content_type="application/json")

    async def _page(self, request: web.Request) -> web.StreamResponse:
        assert isinstance(self.dialect, Describing)
        parts = dict(request.match_info)
        status, content = self.dialect.page(request.path, parts, await request.read(), self.models)
        return web.Response(status=status, body=content, content_type="application/json")

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            # The path comes with its query: some wires keep the kind of stream or the key there.
            call = self.dialect.read(request.path_qs, dict(request.match_info), headers, await request.read())
            self.calls.append(call)
            answer = await self.answer(call)
        except InferenceError as error:
            status, said, content = self.dialect.refusal(error)
            return web.Response(status=status, headers={"content-type": "application/json", **said}, body=content)
        if isinstance(answer, dict):
            return web.Response(body=self.dialect.reply(call, answer), headers={"content-type": call.reply_type})
        return await self._stream(request, call, answer)

    async def _stream(
        self, request: web.Request, call: ClientCall, chunks: Sequence[Chunk | InferenceError]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": self.dialect.stream_type})
        await response.prepare(request)
        encoder = self.dialect.stream_encoder(call)
        for chunk in chunks:
            if isinstance(chunk, InferenceError):
                await response.write(encoder.failed(chunk))
                return response
            data = encoder.chunk(chunk)
            if data:
                await response.write(data)
        await response.write(encoder.end())
        return response
