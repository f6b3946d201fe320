"""What `engine check` finds out: whether an endpoint answers, whether a key works there, and what limits it says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.core.errors import InferenceError, nearest
from engine.core.request import RateHints
from engine.transports.transport import HttpReply

if TYPE_CHECKING:
    from engine.dialects.client import Dialect, WireCall

_NO_LIST = (404, 405, 501)
"""What servers that keep no list of models say to a probe."""


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """What became of a cheap call with one key at one endpoint."""

    endpoint: str
    """scheme://host:port."""
    key: str | None
    """Its name, never its value; None: none was sent."""
    place: str | None
    """Where it was found."""
    found: str
    """What the endpoint said, in a few words."""
    limits: RateHints | None = None
    """What the reply's headers say of the key's limits; None: nothing."""
    error: InferenceError | None = None

    @property
    def line(self) -> str:
        """The key and what was found, in one line."""
        name = self.key or "no key"
        return f"{name} ok, {self.found}" if self.error is None else f"{name} {self.error.kind}: {self.found}"


async def probe(
    dialect: Dialect, call: Callable[[WireCall], Awaitable[HttpReply]], model: str
) -> tuple[str, RateHints | None]:
    """Lists the models: what was found, and the limits that the reply tells. Raises InferenceError."""
    reply = await call(dialect.probe())
    content = await reply.read()
    limits = dialect.rate_hints(reply.headers)
    if reply.status in _NO_LIST:
        said = f"it keeps no list of models (HTTP {reply.status}), so neither the key nor the model is verified"
        return said, limits
    if reply.status != 200:
        raise dialect.error(reply.status, reply.headers, content)
    models = dialect.models(content)
    if models is None:
        return "it answers, and keeps no list of models, so neither the key nor the model is verified", limits
    if not models:
        raise dialect.error(reply.status, reply.headers, content)
    # Ollama lists `llama3.2:latest` for what everybody calls `llama3.2`.
    counted = f"({len(models)} {'model' if len(models) == 1 else 'models'})"
    if model in models or f"{model}:latest" in models:
        return f"has {model} {counted}", limits
    return f"does not list {model} {counted}; {nearest(model, models)}", limits
