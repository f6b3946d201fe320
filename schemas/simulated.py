"""`provider=simulated`: the simulated provider. Its speed, its capacity, and its faults over time."""

from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from engine.schemas.base import Spec
from engine.schemas.prices import PriceSpec

Distribution = Literal["constant", "lognormal", "exponential"]
Hint = Literal[
    "none",
    "retry_after",
    "retry_after_float",
    "retry_after_date",
    "retry_after_ms",
    "x_ratelimit",
    "anthropic",
    "gemini",
    "message",
]
FaultKind = Literal[
    "throttled",
    "quota_exhausted",
    "auth",
    "invalid_request",
    "too_long",
    "content_filtered",
    "server",
    "overloaded",
    "timeout",
    "connect",
    "silent",
    "slow",
    "stall",
    "truncated",
    "malformed",
    "unterminated",
    "error_in_200",
    "brownout",
]

STATUSES: dict[str, tuple[int, ...]] = {
    "throttled": (429,),
    "quota_exhausted": (429, 402),
    "auth": (401, 403),
    "invalid_request": (400, 422),
    "too_long": (400, 413),
    "content_filtered": (400,),
    "server": (500, 502, 520),
    "overloaded": (503, 529),
    "timeout": (504, 408, 524),
    "error_in_200": (500, 502, 503, 529, 429),
}
"""The HTTP statuses that mean each kind; the first is the usual one. `error_in_200`: the status that its body names."""
HINTED = frozenset({"throttled", "quota_exhausted", "server", "overloaded", "timeout"})
"""Kinds that may say when to come back."""
_ALWAYS = frozenset({"kind", "from_s", "to_s", "every_s", "for_s", "rate", "key"})
_REFUSAL = frozenset({"status", "delay_s"})
_KNOBS: dict[str, frozenset[str]] = {
    **dict.fromkeys(STATUSES, _REFUSAL),
    **{kind: _REFUSAL | {"hint", "retry_after_s"} for kind in HINTED},
    "error_in_200": frozenset({"status"}),
    "connect": frozenset({"delay_s"}),
    "silent": frozenset(),
    "slow": frozenset({"delay_s"}),
    "stall": frozenset({"delay_s", "at"}),
    "truncated": frozenset({"at"}),
    "malformed": frozenset({"at"}),
    "unterminated": frozenset(),
    "brownout": frozenset({"share"}),
}
"""The knobs of each kind, in addition to its time and its callers."""


class FaultSpec(Spec):
    """One thing that goes wrong: when, how often, for whom. Times count from the provider's start."""

    kind: FaultKind
    """The fault: a refusal by its word of the failure vocabulary, or a damage to the answer."""
    from_s: float = Field(0.0, ge=0)
    """Its begin, in seconds."""
    to_s: float | None = Field(None, gt=0)
    """Its end, in seconds; null: never."""
    every_s: float | None = Field(None, gt=0)
    """Comes again after so many seconds, counted from begin to begin; null: lasts without a pause."""
    for_s: float | None = Field(None, gt=0)
    """Its duration each time, in seconds; goes with every_s."""
    rate: float = Field(1.0, ge=0, le=1)
    """Share of the calls that it hits while it lasts."""
    key: str | None = None
    """Only calls with this key, such as sim_1; null: all."""
    status: int | None = None
    """HTTP status of a refusal; null: the usual one of its kind."""
    hint: Hint = "none"
    """The form of a refusal's retry hint."""
    retry_after_s: float | None = Field(None, ge=0)
    """The hint in seconds; null: the time until the fault is over."""
    delay_s: float = Field(0.0, ge=0)
    """slow: added to the first token; stall: the pause; a refusal: how long it takes; in seconds."""
    at: float = Field(0.5, ge=0, le=1)
    """truncated, malformed, stall: the share of the answer that comes before."""
    share: float = Field(0.5, gt=0, le=1)
    """brownout: the share of the capacity that is left."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        takes = _KNOBS[self.kind]
        for name, field in type(self).model_fields.items():
            if name not in _ALWAYS | takes and getattr(self, name) != field.default:
                raise ValueError(f"{self.kind} takes no {name}; in addition to time and callers: {_listed(takes)}")
        statuses = STATUSES.get(self.kind, ())
        if self.status is not None and self.status not in statuses:
            raise ValueError(f"status {self.status} does not mean {self.kind}; one of: {_listed(statuses)}")
        if self.to_s is not None and self.to_s <= self.from_s:
            raise ValueError(f"to_s must be later than from_s, {self.from_s:g}")
        if (self.every_s is None) != (self.for_s is None):
            raise ValueError("every_s and for_s go together: a period, and how long the fault lasts in each")
        if self.every_s is not None and self.for_s is not None and self.for_s > self.every_s:
            raise ValueError(f"for_s must not be longer than every_s, {self.every_s:g}")
        if self.retry_after_s is not None and self.hint == "none":
            raise ValueError("retry_after_s needs a hint to be said with, such as hint: retry_after")
        if self.kind in ("slow", "stall") and self.delay_s == 0:
            raise ValueError(f"{self.kind} needs delay_s, in seconds")
        return self


def _listed(names: Any) -> str:
    return ", ".join(str(name) for name in sorted(names)) or "nothing"


class FaultScheduleSpec(Spec):
    """An option of `provider/faults`."""

    faults: tuple[FaultSpec, ...] = ()
    """The faults and their times. Of several that refuse a call the first one counts; delays add up."""


class CapacitySpec(Spec):
    """The capacity of the provider. Without limits it accepts every call."""

    concurrency: int | None = Field(None, ge=1)
    """Calls at once; one more is refused; null: no limit."""
    full_speed: int | None = Field(None, ge=1)
    """Calls at once that do not slow each other down; n times as many take n times as long; null: all."""
    on_full: Literal["throttled", "overloaded"] = "throttled"
    """The refusal of a call above `concurrency`: throttled is HTTP 429, overloaded is 503."""
    requests_per_min: float | None = Field(None, gt=0)
    """Calls a minute for each key; null: no limit."""
    tokens_per_min: float | None = Field(None, gt=0)
    """Tokens a minute for each key, of prompt and answer; null: no limit."""
    burst_s: float = Field(60.0, gt=0)
    """Burst of the two rates, in seconds of the rate."""
    hint: Hint = "x_ratelimit"
    """The form of a refusal's retry hint."""
    retry_after_s: float | None = Field(None, ge=0)
    """The hint of a call above `concurrency`, in seconds; null: no hint."""


class SimulatedBatchSpec(Spec):
    """Its batch jobs, which `engine simulate` serves on the wires of OpenAI, Anthropic and Gemini."""

    takes_s: float = Field(0.0, ge=0)
    """Duration of a job in seconds."""
    expired: float = Field(0.0, ge=0, le=1)
    """Share of a job's requests that expire unanswered: the last ones."""
    missing: float = Field(0.0, ge=0, le=1)
    """Share of the results that are not written down."""
    doubled: float = Field(0.0, ge=0, le=1)
    """Share of the results that are written down twice."""
    lost_replies: int = Field(0, ge=0)
    """So many jobs are made, and the connection breaks before the reply that says so."""
    max_bytes: int | None = Field(None, ge=1)
    """Bytes of a file of requests at OpenAI's wire; a larger one is refused with HTTP 413; null: no limit."""
    failed_creations: int = Field(0, ge=0)
    """So many calls that create a job fail with HTTP 500, and make none."""
    crowded: int = Field(0, ge=0)
    """So many jobs are refused, because too many tokens wait in the queue."""
    bad_lines: tuple[int, ...] = ()
    """Lines of the first job, counted from 1, that make it fail as a whole."""
    unlisted_s: float = Field(0.0, ge=0)
    """Time that a new job is missing from the list of jobs, in seconds."""


class SimulatedProviderSpec(FaultScheduleSpec):
    """Behaves like a provider without being one; its replies say `simulated`."""

    kind: Literal["simulated"]
    name: str = "simulated"
    default_model: str = "simulated"
    time: Literal["auto", "real", "virtual"] = "auto"
    """virtual: a run jumps from event to event, exact and quick; real: it takes as long as it says; auto: virtual where
    the rows are synthetic (workload=synthetic) and every target is simulated."""
    latency_s: float = Field(0.0, ge=0)
    """Time to the first token in seconds: the value, the median (lognormal) or the mean (exponential)."""
    latency_distribution: Distribution = "constant"
    """The distribution of the times to the first token."""
    latency_sigma: float = Field(0.5, ge=0)
    """lognormal: the spread of the latency's logarithm; 0.5: one in 20 takes 2.3 times the median or more."""
    token_s: float = Field(0.0, ge=0)
    """Time for each further token, in seconds."""
    output_tokens: int = Field(8, ge=1)
    """Tokens in a reply: the number, the median (lognormal) or the mean (exponential). A request's limit cuts it."""
    output_distribution: Distribution = "constant"
    """The distribution of the lengths of replies."""
    output_sigma: float = Field(0.5, ge=0)
    """lognormal: the spread of the length's logarithm."""
    context_length: int | None = Field(None, ge=1)
    """Tokens of prompt and answer together; a request that needs more is refused as too long; null: no limit."""
    prefill: Literal["continue", "refuse"] = "continue"
    """A chat that ends with a turn of the assistant: continue continues it, refuse is HTTP 400."""
    dimensions: int = Field(8, ge=1)
    """Length of a simulated embedding."""
    keys: int = Field(0, ge=0, le=1000, validate_default=True)
    """Keys that it knows: sim_1, sim_2 …; 0: no key is required, and every call counts as sim_1's."""
    capacity: CapacitySpec = CapacitySpec()
    batch: SimulatedBatchSpec = SimulatedBatchSpec()
    failure_rate: float = Field(0.0, ge=0, le=1)
    """Share of the calls that fail: a fault in short, after those of `faults`."""
    failure_kind: Literal[
        "throttled", "timeout", "connect", "server", "overloaded", "truncated", "malformed", "auth", "invalid_request"
    ] = "server"
    """The failure of a failing call, a word of the failure vocabulary."""
    retry_after_s: float | None = Field(None, ge=0)
    """The hint that such a failure carries, in seconds; null: none."""
    price: PriceSpec | None = None
    """The price that its tokens count as, in US dollars; null: unknown."""

    @property
    def key_names(self) -> tuple[str, ...]:
        """sim_1, sim_2 …; at least one."""
        return _key_names(self.keys)

    @property
    def schedule(self) -> tuple[FaultSpec, ...]:
        """`faults`, and the one that `failure_rate` means."""
        if self.failure_rate == 0:
            return self.faults
        said: dict[str, Any] = {}
        if self.retry_after_s is not None and self.failure_kind in HINTED:
            said = {"hint": "retry_after_float", "retry_after_s": self.retry_after_s}
        if "delay_s" in _KNOBS[self.failure_kind]:
            said["delay_s"] = self.latency_s
        return (*self.faults, FaultSpec(kind=self.failure_kind, rate=self.failure_rate, **said))

    @field_validator("keys")
    @classmethod
    def _has_the_keys_of_its_faults(cls, keys: int, info: ValidationInfo) -> int:
        known = _key_names(keys)
        for index, fault in enumerate(info.data.get("faults", ())):
            if fault.key is not None and fault.key not in known:
                raise ValueError(f"faults[{index}].key is {fault.key!r}, but the provider has {', '.join(known)}")
        return keys


def _key_names(keys: int) -> tuple[str, ...]:
    return tuple(f"sim_{number}" for number in range(1, max(1, keys) + 1))
