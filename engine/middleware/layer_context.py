"""The port of policies: the facts that a layer is made from.

A policy's file has `layer(context)`, which returns the inert layer for a target, or None when its policy is off.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.core.resources import Resources
from engine.core.server_info import ServerInfo
from engine.schemas import TargetSpec
from engine.schemas.policy import PolicySpec


@dataclass(frozen=True)
class LayerContext:
    """The context of a layer: one target under one policy."""

    name: str
    """The target's name, made unique within the engine."""
    target: TargetSpec
    policy: PolicySpec
    resources: Resources
    keys: tuple[str, ...] = ()
    """Names of the keys that the target's executor accepts."""
    primary: bool = True
    """The run's own target, not a fallback."""
    server_info: ServerInfo = field(default_factory=ServerInfo)
    """The facts that the target's server reports about itself, once they are read."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Returns the addresses that serve it; one entry for a target without addresses."""
        provider = self.target.provider
        return (provider.base_url, *provider.endpoints) if provider.kind == "remote" else (self.name,)
