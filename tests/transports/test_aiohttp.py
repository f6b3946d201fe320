"""What only the aiohttp adapter has to say."""

from __future__ import annotations

import pytest

from engine.core.errors import InvalidRequest
from engine.schemas.provider import TransportSpec
from engine.transports.aiohttp import AiohttpTransport
from engine.transports.transport import HttpCall


async def test_a_proxy_that_aiohttp_can_not_speak_to_is_refused_with_the_next_step() -> None:
    transport = AiohttpTransport(TransportSpec(kind="aiohttp", proxy="socks5://user:canary@127.0.0.1:1"))
    with pytest.raises(InvalidRequest, match=r"provider\.transport\.kind=httpx") as caught:
        await transport.open(HttpCall("GET", "http://127.0.0.1:1/", {}))
    assert "canary" not in str(caught.value)
    await transport.aclose()
