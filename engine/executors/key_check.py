"""Checks of an endpoint and a key for `engine check`: the list of models, the operation itself, the limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from engine.core.errors import InferenceError, nearest
from engine.core.request import RateHints
from engine.transports.transport import HttpReply

if TYPE_CHECKING:
    from engine.dialects.client import Dialect, WireCall

_NOT_THERE = (404, 405, 501)
"""The statuses of pages that a server does not have."""


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """The outcome of cheap calls with one key at one endpoint."""

    endpoint: str
    """scheme://host:port."""
    key: str | None
    """Its name, never its value; None: none was sent."""
    place: str | None
    """The place where it was found."""
    found: str
    """The endpoint's answer, in a few words."""
    limits: RateHints | None = None
    """The key's limits in the reply's headers; None if unknown."""
    error: InferenceError | None = None
    verified: bool = True
    """False: nothing failed, and nothing shows that the model would answer."""

    @property
    def state(self) -> State:
        if self.error is not None:
            return "failed"
        return "works" if self.verified else "unverified"

    @property
    def line(self) -> str:
        """The key and what was found, in one line."""
        name = self.key or "no key"
        return f"{name} ok, {self.found}" if self.error is None else f"{name} {self.error.kind}: {self.found}"


State = Literal["works", "unverified", "failed"]
"""works: the model answers, or is listed by a server that has its operation; unverified: nothing failed, and nothing
shows that the model would answer; failed: it would not."""


class Trial(NamedTuple):
    """A small request that shows whether an operation is there."""

    task: str
    body: dict[str, Any]


_HI = [{"role": "user", "content": "hi"}]
_TRIALS = (
    Trial("chat", {"messages": _HI, "max_tokens": 16}),  # 16: reasoning models refuse less
    Trial("completion", {"prompt": "hi", "max_tokens": 1}),
    Trial("embedding", {"input": "hi"}),
    Trial("rerank", {"query": "hi", "documents": ["hi"]}),
    Trial("response", {"input": "hi", "max_output_tokens": 16}),
    Trial("moderation", {"input": "hi"}),
)
"""Operations whose smallest call costs a few tokens at most."""


def trial_for(tasks: Sequence[str], known: Container[str]) -> Trial | None:
    """Returns the trial of a model with these tasks (empty: any) on a wire with tasks `known`; None if none fits."""
    return next((each for each in _TRIALS if each.task in known and (not tasks or each.task in tasks)), None)


def is_missing(status: int | None) -> bool:
    """Returns True for a status that says that the operation, or the model, is not there."""
    return status in _NOT_THERE


class Listing(NamedTuple):
    """The entry of one model in a server's list of models."""

    has: bool | None
    """None: it keeps no list."""
    found: str
    """The same in a few words."""
    limits: RateHints | None


async def list_models(dialect: Dialect, call: Callable[[WireCall], Awaitable[HttpReply]], model: str | None) -> Listing:
    """Lists the models; `model` None: any will do. Raises InferenceError."""
    reply = await call(dialect.probe())
    content = await reply.read()
    limits = dialect.rate_hints(reply.headers)
    if reply.status in _NOT_THERE:
        return Listing(None, f"it keeps no list of models (HTTP {reply.status})", limits)
    if reply.status != 200:
        raise dialect.error(reply.status, reply.headers, content)
    models = dialect.models(content)
    if models is None:
        return Listing(None, "it answers, and keeps no list of models", limits)
    if not models:
        raise dialect.error(reply.status, reply.headers, content)
    counted = f"{len(models)} {'model' if len(models) == 1 else 'models'}"
    if model is None:
        return Listing(True, f"lists {counted}", limits)
    # Ollama lists `llama3.2:latest` for what everybody calls `llama3.2`.
    if model in models or f"{model}:latest" in models:
        return Listing(True, f"has {model} ({counted})", limits)
    return Listing(False, f"does not list {model} ({counted}); {nearest(model, models)}", limits)
