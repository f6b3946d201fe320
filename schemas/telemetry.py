"""Group `telemetry`: what is shown and logged."""

from typing import Annotated, Literal

from pydantic import BeforeValidator

from schemas.base import Spec

Switch = Annotated[
    Literal["auto", "on", "off"],
    # YAML 1.1 reads a bare on and off as booleans.
    BeforeValidator(lambda value: {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value),
]


class TelemetrySpec(Spec):
    """Progress and logs."""

    progress: Switch = "auto"
    """The progress bar on standard error; auto: only on a terminal."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Level of the run's log file."""
