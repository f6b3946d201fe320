"""`policy.breaker`: stop calling what is down."""

from pydantic import Field

from schemas.base import Spec


class BreakerSpec(Spec):
    """A circuit for each endpoint and model."""

    enabled: bool = True
    window: int = Field(50, ge=1)
    """Recent calls that the failure rate is computed over."""
    min_calls: int = Field(10, ge=1)
    """Calls in the window before the rate counts."""
    failure_threshold: float = Field(0.5, gt=0, le=1)
    """Share of failed calls at which the circuit opens."""
    open_s: float = Field(5.0, gt=0)
    """How long the circuit stays open at first; doubles with each failed recovery, in seconds."""
    max_open_s: float = Field(60.0, gt=0)
    """Cap of the open time, in seconds."""
    probes: int = Field(2, ge=1)
    """Calls let through at once while half open; a majority of successes closes the circuit."""
    on_open: str = Field("wait", pattern="^(wait|fail)$")
    """wait: hold the request until the circuit may close (batch); fail: circuit_open at once (interactive)."""
