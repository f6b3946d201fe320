"""The counts of an engine in the text format of Prometheus, version 0.0.4: prometheus.io, "Exposition formats"."""

from __future__ import annotations

from engine.telemetry.counted import Counted

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def text(engine: Counted) -> str:
    """Renders the whole exposition. Call it on the engine's event loop, where the counting is done."""
    from engine.telemetry.prometheus_families import render  # loads prometheus_client: only where text is rendered

    return render(engine)
