"""Parts of a request that a wire can't express: refused before anything is sent, or dropped with a warning."""

from __future__ import annotations

from typing import Any

from engine.core.errors import InvalidRequest

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,), "best_of": (1,), "logprobs": (False,), "top_logprobs": (0,), "echo": (False,), "suffix": ("",),
    "tools": ([],), "functions": ([],), "tool_choice": ("none", "auto"), "parallel_tool_calls": (True,),
    "logit_bias": ({},), "response_format": ({"type": "text"},), "modalities": (["text"],), "store": (False,),
    "service_tier": ("auto",), "metadata": ({},), "presence_penalty": (0, 0.0), "frequency_penalty": (0, 0.0),
    "stop": ([],), "encoding_format": ("float",), "stream": (False, True),
}  # fmt: skip
"""Values with which a field requests nothing special: a wire without the field says the same by its silence."""


class Unsupported:
    """Of one request: collects what could not be said."""

    __slots__ = ("_drop", "_wire", "warnings")

    def __init__(self, wire: str, drop: bool) -> None:
        """`wire` names the protocol in messages; `drop` is `provider.drop_unsupported`."""
        self._wire = wire
        self._drop = drop
        self.warnings: list[str] = []

    def lose(self, where: str, why: str | None = None) -> None:
        """Notes that the field at `where`, such as `body.logit_bias`, is not sent. Raises InvalidRequest unless the
        provider's `drop_unsupported` is set."""
        why = why or f"{self._wire} has nothing like it"
        if not self._drop:
            raise InvalidRequest(f"{where}: {why}; leave it out, or set provider.drop_unsupported=true")
        self.warnings.append(f"{where} was dropped: {why}")

    def lose_field(self, name: str, value: Any) -> None:
        """The same for the body's field `name`, unless its value requests nothing."""
        if value is None or any(value == each and type(value) is type(each) for each in _NEUTRAL.get(name, ())):
            return
        self.lose(f"body.{name}")
