"""A transport: aiohttp with a header on each call, `provider.transport.kind=tagged provider.transport.tag=…`."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from engine.schemas.provider import TransportSpec
from engine.transports.aiohttp import AiohttpTransport
from engine.transports.transport import HttpCall, HttpReply


class TaggedTransportSpec(TransportSpec):
    """The knobs at `provider.transport`: those of every transport, and a tag."""

    kind: Literal["tagged"] = "tagged"  # type: ignore[assignment]
    tag: str = "none"
    """The value of the header x-tag."""


class TaggedTransport(AiohttpTransport):
    """Adds the header x-tag."""

    spec = TaggedTransportSpec

    def __init__(self, spec: TaggedTransportSpec) -> None:
        super().__init__(spec)
        self._tag = spec.tag

    async def open(self, call: HttpCall) -> HttpReply:
        return await super().open(replace(call, headers={**call.headers, "x-tag": self._tag}))
