"""What only the httpx adapter can do."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from engine.core.errors import InvalidRequest
from engine.schemas.provider import TransportSpec
from engine.transports.httpx import HttpxTransport
from engine.transports.transport import HttpCall


async def test_an_asgi_application_answers_without_a_socket() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-path", scope["path"].encode())]})
        await send({"type": "http.response.body", "body": body.upper()})

    transport = HttpxTransport(TransportSpec(kind="httpx"), transport=httpx.ASGITransport(app))
    reply = await transport.open(HttpCall("POST", "http://app/v1/x", {}, b"hello"))
    assert (reply.headers["x-path"], await reply.read()) == ("/v1/x", b"HELLO")
    await transport.aclose()


async def test_a_proxy_that_httpx_can_not_use_is_refused_with_the_next_step() -> None:
    transport = HttpxTransport(TransportSpec(kind="httpx", proxy="gopher://user:canary@127.0.0.1:1"))
    with pytest.raises(InvalidRequest, match=r"provider\.transport\.proxy") as caught:
        await transport.open(HttpCall("GET", "http://127.0.0.1:1/", {}))
    assert "canary" not in str(caught.value)
