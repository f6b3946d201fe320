"""`policy.breaker`: stop calling what is down."""

from typing import Literal

from pydantic import Field

from engine.schemas.base import Spec


class BreakerSpec(Spec):
    """A circuit for each endpoint and model."""

    enabled: bool = True
    mode: Literal["auto", "metrics_only", "disabled", "forced_open"] = "auto"
    """auto: opens and closes by itself; metrics_only: counts and never opens; disabled: lets everything through;
    forced_open: lets nothing through."""
    window: int = Field(50, ge=1)
    """Recent calls that the rates are computed over."""
    window_s: float | None = Field(None, gt=0)
    """Age up to which a call counts, in seconds; null: any age."""
    min_calls: int = Field(10, ge=1)
    """Calls in the window before a rate counts."""
    failure_threshold: float = Field(0.5, gt=0, le=1)
    """Share of failed calls at which the circuit opens."""
    consecutive_failures: int | None = Field(None, ge=1)
    """Opens after so many failures in a row, whatever the rates; null: rates only."""
    refusals: int | None = Field(6, ge=1)
    """Opens after so many refusals (HTTP 429, 503) one after another without a success, when they have lasted for
    refused_s; of calls that were in flight together one counts. null: refusals never open it."""
    refused_s: float = Field(2.0, ge=0)
    """Time from the first to the last of these refusals, in seconds."""
    slow_after_s: float | None = Field(None, gt=0)
    """A call (of a stream: its first chunk) that takes longer is slow, in seconds, also while it is still in flight;
    null: none is."""
    slow_threshold: float = Field(0.8, gt=0, le=1)
    """Share of slow calls at which the circuit opens."""
    open_s: float = Field(5.0, gt=0)
    """First open time of the circuit; doubles with each failed recovery, in seconds."""
    max_open_s: float = Field(10.0, gt=0)
    """Cap of the open time, in seconds."""
    probes: int = Field(2, ge=1)
    """Calls let through at once while half open; a majority of successes closes the circuit."""
    half_open_s: float | None = Field(60.0, gt=0)
    """Longest time for half-open trials before the circuit opens again, in seconds; null: no limit."""
    on_open: Literal["wait", "fail"] = "wait"
    """wait: hold the request until a circuit may close (batch); fail: circuit_open at once (interactive)."""
