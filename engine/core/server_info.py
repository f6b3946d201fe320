"""The facts that a server reports about itself and its model: read at first need, used by several stages."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(slots=True)
class ServerInfo:
    """The facts of one target. None: not reported, or not read yet."""

    context_length: int | None = None
    """Tokens of prompt and answer together."""
    max_prompt_tokens: int | None = None
    """Tokens of the prompt alone."""
    max_inputs: int | None = None
    """Texts that one call may have; a request with more becomes several calls."""
    cuts: bool = False
    """The server cuts a prompt that is too long, so that it refuses none."""
    tasks: frozenset[str] = frozenset()
    """The model's tasks; empty: not reported."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """Fields that a request's body has unless it says otherwise, such as the names of a model's tensors."""
    missing: bool = False
    """The server has no such model."""
    found: str = ""
    """All of it in a few words, for `check`."""

    def take(self, other: ServerInfo) -> None:
        """Becomes equal to `other`, in place: several stages hold the same server_info."""
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))
