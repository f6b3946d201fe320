"""OpenTelemetry: a span for each request, a child for each attempt, and metrics, by the GenAI conventions.

Source: open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-spans.md and gen-ai-metrics.md. An attempt is what
these call a client operation. It alone has the tokens, and gen_ai.client.* counts attempts, so nothing counts twice.
All are made afterwards, from the times in the result: a request in flight costs nothing.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from engine.core.clock import Clock
from engine.core.errors import SetupError
from engine.core.request import Attempt, Request, Result
from engine.core.usage import Usage
from engine.telemetry.counted import BOUNDS_S
from engine.telemetry.otel_attributes import (
    OPERATIONS,
    Attributes,
    Place,
    asked,
    place_of,
    replied,
    served,
    spent,
    tried,
)
from engine.telemetry.otel_content import content

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, Meter
    from opentelemetry.trace import Span, SpanKind

    from engine.schemas import TargetSpec

BOUNDS_TOKENS = tuple(4**power for power in range(14))
"""Bounds of the buckets of gen_ai.client.token.usage."""
_OF_METRICS = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model",
               "server.address", "server.port", "error.type")  # fmt: skip
"""The attributes of an attempt's span that its metrics have, too."""
_EXPORT_S = 2
"""Time for an export with its retries, in seconds, unless an OTEL_* variable sets another."""
_SAID_CHARS = 120
"""Characters shown of an exporter's message."""
_INSTALL = "pip install 'ipfs-accelerate[otel]', or set telemetry.otel=false"


class OpenTelemetry:
    """An observer of an engine: called once for each finished request, in the context of its caller."""

    def __init__(self, targets: Mapping[str, TargetSpec], clock: Clock, with_content: bool = False) -> None:
        """`targets` by name, the primary one first. Raises SetupError when a package is missing."""
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise SetupError(f"telemetry.otel: opentelemetry-api is not installed: {_INSTALL}") from error
        _set_up_sdk()
        self._trace = trace
        self._tracer = trace.get_tracer("ipfs_accelerate.engine")
        self._error = trace.Status(trace.StatusCode.ERROR)
        self._clock = clock
        self._with_content = with_content
        self._places = {name: place_of(target, index == 0) for index, (name, target) in enumerate(targets.items())}
        self._primary = next(iter(self._places.values()))
        meter = metrics.get_meter("ipfs_accelerate.engine")
        self._duration = _seconds(meter, "gen_ai.client.operation.duration", "GenAI operation duration.")
        self._first_chunk = _seconds(
            meter, "gen_ai.client.operation.time_to_first_chunk", "Time to receive the first chunk."
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=BOUNDS_TOKENS,
        )
        self._request_duration = _seconds(
            meter, "engine.request.duration", "Whole requests, over all attempts and waits."
        )

    def __call__(self, request: Request, result: Result) -> None:
        """Makes the spans and measurements of a finished request."""
        record = result.engine
        ended_s = self._clock.wall()
        started_s = ended_s - record.total_s
        place = self._places.get(record.target or "", self._primary)
        operation = OPERATIONS.get(request.task, request.task)
        attributes: Attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": place.attributes["gen_ai.provider.name"],
            "gen_ai.request.model": place.model_for(request),
            **served(request, record),
        }
        if result.error is not None:
            attributes["error.type"] = result.error.kind
        if self._with_content:
            attributes |= content(request, result.body)
        span = self._tracer.start_span(
            f"{operation} {attributes['gen_ai.request.model']}", attributes=attributes, start_time=_ns(started_s)
        )
        if result.error is not None:
            span.set_status(self._error)
        self._attempts(span, request, result, started_s)
        span.end(_ns(ended_s))
        self._request_duration.record(
            record.total_s,
            {
                name: attributes[name]
                for name in ("gen_ai.operation.name", "engine.target", "engine.priority", "error.type")
                if name in attributes
            },
        )

    def _attempts(self, parent: Span, request: Request, result: Result, submitted_s: float) -> None:
        attempts = result.engine.attempts
        if not attempts:
            return
        context = self._trace.set_span_in_context(parent)
        parameters = asked(request)
        answering = next((attempt for attempt in reversed(attempts) if attempt.outcome == "ok"), None)
        unsaid = result.usage if all(attempt.usage is None for attempt in attempts) else None
        for attempt in attempts:
            place = self._places.get(attempt.target, self._primary)
            operation, model = OPERATIONS.get(request.task, request.task), place.model_for(request)
            usage = attempt.usage or (unsaid if attempt is attempts[-1] else None)
            attributes: Attributes = {
                "gen_ai.operation.name": operation,
                "gen_ai.request.model": model,
                **place.attributes,
                **parameters,
                **(replied(result.body) if attempt is answering else {}),
                **tried(attempt),
                **(spent(usage) if usage is not None else {}),
            }
            if attempt.first_token_s is not None:
                attributes["gen_ai.request.stream"] = True
            began_s = submitted_s + attempt.started_s
            span = self._tracer.start_span(
                f"{operation} {model}", context, self._kind(place), attributes, start_time=_ns(began_s)
            )
            if attempt.outcome != "ok":
                span.set_status(self._error)
            span.end(_ns(began_s + attempt.duration_s))
            self._measure(attempt, usage, {name: attributes[name] for name in _OF_METRICS if name in attributes})

    def _measure(self, attempt: Attempt, usage: Usage | None, attributes: Attributes) -> None:
        self._duration.record(attempt.duration_s, attributes)
        if attempt.first_token_s is not None:
            self._first_chunk.record(attempt.first_token_s, attributes)
        if usage is not None:
            self._tokens.record(usage.input_tokens, {**attributes, "gen_ai.token.type": "input"})
            if usage.output_tokens:
                self._tokens.record(usage.output_tokens, {**attributes, "gen_ai.token.type": "output"})

    def _kind(self, place: Place) -> SpanKind:
        return self._trace.SpanKind.INTERNAL if place.in_process else self._trace.SpanKind.CLIENT


def _seconds(meter: Meter, name: str, about: str) -> Histogram:
    return meter.create_histogram(name, "s", about, explicit_bucket_boundaries_advisory=BOUNDS_S)


def _set_up_sdk() -> None:
    """Gives the process the SDK's providers by the OTEL_* variables, unless the program has set its own.

    Without OTEL_TRACES_EXPORTER and OTEL_METRICS_EXPORTER they go out by OTLP, as the specification's defaults have it.
    Raises SetupError: nothing would be recorded, or an exporter is missing.
    """
    from opentelemetry import trace

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    try:
        # Private by its name, but the SDK's only reader of these variables, and the base of its distributions.
        from opentelemetry.sdk._configuration import _OTelSDKConfigurator
    except ImportError as error:
        raise SetupError(
            f"telemetry.otel: opentelemetry-sdk is not installed, so nothing would be recorded: {_INSTALL}"
        ) from error
    # Read when the exporters are made: with the default a process would wait for 16 s at its end without a collector.
    timed = "OTEL_EXPORTER_OTLP_TIMEOUT" in os.environ
    os.environ.setdefault("OTEL_EXPORTER_OTLP_TIMEOUT", str(_EXPORT_S))
    logging.getLogger("opentelemetry.exporter").addHandler(_FirstFailure())
    try:
        _OTelSDKConfigurator().configure(  # type: ignore[no-untyped-call]
            trace_exporter_names=_default_exporters("TRACES"), metric_exporter_names=_default_exporters("METRICS")
        )
    except (RuntimeError, ValueError, ImportError) as error:
        raise SetupError(
            f"telemetry.otel: the OTEL_* environment variables can't be followed: {error}; install the exporter "
            "(pip install 'ipfs-accelerate[otel]' has OTLP over HTTP), or set OTEL_TRACES_EXPORTER and "
            "OTEL_METRICS_EXPORTER to console or none"
        ) from error
    finally:
        if not timed:
            del os.environ["OTEL_EXPORTER_OTLP_TIMEOUT"]


class _FirstFailure(logging.Handler):
    """Reports the exporters' first failure in one line; they log each of their tries."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        if self._told or logging.getLogger().handlers:
            return  # a program that has set up its logging gets every record
        self._told = True
        words = " ".join(record.getMessage().split())[:_SAID_CHARS]
        print(
            f"telemetry.otel: some spans or metrics were not sent: got {words}; expected a collector. Fix: start one, "
            "name it with OTEL_EXPORTER_OTLP_ENDPOINT, or set telemetry.otel=false",
            file=sys.stderr,
        )


def _default_exporters(signal: str) -> list[str]:
    if os.environ.get(f"OTEL_{signal}_EXPORTER"):
        return []
    protocol = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    return ["otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"]


def _ns(wall_s: float) -> int:
    """Returns nanoseconds in whole microseconds, the precision of a float of this size."""
    return round(wall_s * 1e6) * 1000
