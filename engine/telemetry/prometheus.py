"""The counts of an engine in the text format of Prometheus, version 0.0.4: prometheus.io, "Exposition formats"."""

from __future__ import annotations

from typing import Protocol

from engine.core.resources import Resources
from engine.telemetry.metrics import Metrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Bounds of the buckets in seconds: those of gen_ai.client.operation.duration in OpenTelemetry's GenAI conventions."""


class Counted(Protocol):
    """An object that counts and keeps the state of stages: an Engine."""

    @property
    def metrics(self) -> Metrics: ...
    @property
    def resources(self) -> Resources: ...


def text(engine: Counted) -> str:
    """Renders the whole exposition. Call it on the engine's event loop, where the counting is done."""
    from engine.telemetry.prometheus_families import render  # loads prometheus_client: only where text is rendered

    return render(engine)
