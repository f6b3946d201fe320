"""A gRPC server on loopback over our own server dialect, with a way to misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from grpc import aio

from engine.core.errors import InferenceError
from engine.dialects.kserve.grpc_server import KServeGrpcServerDialect
from engine.dialects.server import ClientCall

Answer = Callable[[ClientCall], Awaitable[dict[str, Any]]]


class GrpcServer:
    """Serves KServe's gRPC methods. `calls` are what its clients asked for, `metadata` what they sent with the last
    one; `asked` is set by the first call, and `left` when a client leaves one."""

    def __init__(self, answer: Answer, *, models: tuple[str, ...] = ("m",), tls: Any = None, port: int = 0) -> None:
        self.dialect = KServeGrpcServerDialect()
        self.answer = answer
        self.models = list(models)
        self.tls = tls
        self.port = port
        self.calls: list[ClientCall] = []
        self.metadata: Mapping[str, Any] = {}
        self.asked = asyncio.Event()
        self.left = asyncio.Event()
        self.url = ""

    async def __aenter__(self) -> GrpcServer:
        self._server = aio.server()
        methods: dict[str, Any] = {}
        for (_, path), task in self.dialect.routes.items():
            methods[path] = self._list if task == "models" else self._infer
        for _, path in self.dialect.pages:
            methods[path] = self._page(path)
        handlers: dict[str, dict[str, Any]] = {}
        for path, method in methods.items():
            _, service, name = path.split("/")
            handlers.setdefault(service, {})[name] = grpc.unary_unary_rpc_method_handler(method)
        for service, named in handlers.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, named),))
        address = f"127.0.0.1:{self.port}"
        port = self._server.add_secure_port(address, self.tls) if self.tls else self._server.add_insecure_port(address)
        await self._server.start()
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    async def _infer(self, content: bytes, context: Any) -> bytes:
        self.metadata = dict(context.invocation_metadata())
        try:
            call = self.dialect.read("", {}, self.metadata, content)
            self.calls.append(call)
            self.asked.set()
            return self.dialect.reply(call, await self.answer(call))
        except InferenceError as error:
            _, headers, words = self.dialect.refusal(error)
            code = grpc.StatusCode[headers.pop("grpc-status")]
            await context.abort(code, words.decode(), tuple(headers.items()))
            raise
        except asyncio.CancelledError:
            self.left.set()
            raise

    async def _list(self, content: bytes, context: Any) -> bytes:
        return self.dialect.models(self.models)

    def _page(self, path: str) -> Any:
        async def page(content: bytes, context: Any) -> bytes:
            status, body = self.dialect.page(path, {}, content, self.models)
            if status != 200:
                await context.abort(grpc.StatusCode.NOT_FOUND, body.decode())
            return body

        return page
