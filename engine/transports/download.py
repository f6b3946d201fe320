"""One file from one address, for what a request names instead of carrying it."""

from __future__ import annotations

import asyncio

from engine.core.errors import InferenceError, InvalidRequest
from engine.transports.transport import HttpCall, Transport, origin


async def download(transport: Transport, url: str, max_bytes: int, timeout_s: float) -> tuple[bytes, str]:
    """The bytes at `url` and their content type. No key and no cookie is sent, and no redirect is followed.

    Raises InvalidRequest for whatever goes wrong: that another host can't be read says nothing about the provider, so
    that neither its breaker nor its keys may hear of it.
    """
    where = origin(url)
    try:
        async with asyncio.timeout(timeout_s):
            reply = await transport.open(HttpCall("GET", url, {"accept": "*/*"}))
            try:
                if reply.status != 200:
                    raise InvalidRequest(f"{where}: HTTP {reply.status}; the file can't be read there")
                pieces: list[bytes] = []
                size = 0
                async for piece in reply.chunks():
                    pieces.append(piece)
                    size += len(piece)
                    if size > max_bytes:
                        raise InvalidRequest(f"{where}: the file has more than {max_bytes} bytes (media.max_bytes)")
                return b"".join(pieces), reply.headers.get("content-type", "")
            finally:
                await reply.aclose()
    except TimeoutError as error:
        raise InvalidRequest(f"{where}: the file did not come within {timeout_s:g} s (media.timeout_s)") from error
    except InvalidRequest:
        raise
    except InferenceError as error:
        raise InvalidRequest(f"{where}: the file can't be read: {error.message}") from error
