"""Group `telemetry`: what is shown, logged and exported."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from engine.schemas.base import Spec


def _switch(value: Any) -> Any:
    """YAML 1.1 reads a bare on and off as booleans."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(_switch)]
OnOff = Annotated[Literal["on", "off"], BeforeValidator(_switch)]


class TelemetrySpec(Spec):
    """Progress, logs, and what goes to Prometheus and OpenTelemetry."""

    progress: Switch = "auto"
    """The progress bar on standard error; auto: only on a terminal."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Level of the run's log file."""
    prometheus_file: str | None = None
    """A file that holds the metrics in Prometheus text, replaced every 5 s and at the end; null: none. node_exporter's
    textfile collector reads names that end in .prom."""
    prometheus_port: int | None = Field(None, ge=0, le=65535)
    """A port on 127.0.0.1 that serves /metrics while the engine lives. 0: any free one, which the log
    names; null: none."""
    otel: bool = False
    """OpenTelemetry: a span for each request and attempt, and metrics, by its GenAI conventions. Where they go is said
    by the OTEL_* environment variables."""
    otel_content: OnOff = "off"
    """on: spans hold prompts and answers, too."""
