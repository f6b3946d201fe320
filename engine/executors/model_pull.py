"""Gets a model that its server does not have yet, before the first call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from engine.core.errors import InferenceError, SetupError
from engine.dialects.client import WireCall
from engine.dialects.discovery import ModelPull, Progress
from engine.transports.transport import HttpReply

Open = Callable[[WireCall], Awaitable[HttpReply]]
"""Begins a call. Raises InferenceError."""
_STEP = 10
"""Per cent between two lines of progress."""


async def pull(dialect: ModelPull, model: str, open_call: Open, notify: Callable[[str], Any] | None) -> None:
    """Pulls `model`, telling its progress line by line. Raises SetupError."""
    say = notify or (lambda text: None)
    say(f"pulling {model}")
    decoder = dialect.progress()
    told = _Told(model, say)
    try:
        reply = await open_call(dialect.pull(model))
        try:
            if reply.status != 200:
                raise SetupError(
                    f"provider.pull: {model} can't be pulled: {(await reply.read())[:200].decode('utf-8', 'replace')}"
                )
            async for data in reply.chunks():
                for progress in decoder.feed(data):
                    if progress.error:
                        raise SetupError(
                            f"provider.pull: {model} can't be pulled: {progress.error}; is model.name right, and does "
                            "the server reach its library?"
                        )
                    told.take(progress)
        finally:
            await reply.aclose()
    except InferenceError as error:
        raise SetupError(
            f"provider.pull: {model} can't be pulled: {error}; start again to continue from there"
        ) from error
    if not decoder.ended:
        raise SetupError(
            f"provider.pull: {model}: the server stopped in the middle; start again to continue from there"
        )
    say(f"pulled {model}")


class _Told:
    """Reports the progress: each state once, and of one with a size every tenth part."""

    def __init__(self, model: str, say: Callable[[str], Any]) -> None:
        self._model = model
        self._say = say
        self._status = ""
        self._percent = 0

    def take(self, progress: Progress) -> None:
        percent = 100 * progress.done_bytes // progress.total_bytes if progress.total_bytes else 0
        if progress.status == self._status and percent < self._percent + _STEP:
            return
        if progress.status != self._status:
            self._status, self._percent = progress.status, 0
        self._percent = percent
        size = f", {percent} % of {progress.total_bytes / 1e6:.1f} MB" if progress.total_bytes else ""
        self._say(f"  {self._model}: {progress.status}{size}")
