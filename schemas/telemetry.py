"""Group `telemetry`: what is shown and logged."""

from typing import Literal

from schemas.base import Spec


class TelemetrySpec(Spec):
    """Progress and logs."""

    progress: Literal["auto", "on", "off"] = "auto"
    """The progress bar on standard error; auto: only on a terminal."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Level of the run's log file."""
