"""OpenTelemetry's real SDK, with exporters in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.telemetry.served import INSTALL


@pytest.fixture(scope="session")
def sdk() -> tuple[Any, Any]:
    """The exporter of spans and the reader of metrics behind the process's providers, which can be set once."""
    pytest.importorskip("opentelemetry.sdk", reason=INSTALL)
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(tracing)
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
    return exporter, reader


@pytest.fixture
def exported(sdk: tuple[Any, Any]) -> Iterator[Any]:
    """The exporter of spans, empty."""
    sdk[0].clear()
    yield sdk[0]
    sdk[0].clear()
