"""The port of what exporters read, and the bounds that they share."""

from __future__ import annotations

from typing import Protocol

from engine.core.resources import Resources
from engine.telemetry.metrics import Metrics

BOUNDS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Bounds of the buckets in seconds: those of gen_ai.client.operation.duration in OpenTelemetry's GenAI conventions."""


class Counted(Protocol):
    """An object that counts and keeps the state of stages: an Engine."""

    @property
    def metrics(self) -> Metrics: ...
    @property
    def resources(self) -> Resources: ...
