"""Decides the outcome of a call from the time, its key, its size and the dice."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from engine.core.clock import Clock
from engine.schemas.simulated import STATUSES, FaultSpec, Hint, SimulatedProviderSpec
from engine.simulation import hints
from engine.simulation.capacity import Capacity, Level
from engine.simulation.counters import Counters, KeyCounters
from engine.simulation.draws import sampler
from engine.simulation.faults import Conditions, Schedule

IN_ANSWER = frozenset({"silent", "truncated", "malformed", "unterminated"})
"""Faults of a call that was let in: it holds its place until its caller leaves or the answer breaks."""
_IN_200 = {500: "server", 502: "server", 503: "overloaded", 529: "overloaded", 429: "throttled"}
"""Kinds of the errors in replies with status 200, by the status that the body names."""
MESSAGES = {  # On a wire that has no codes a client knows by the words that a quota is used up or content refused.
    "throttled": "too many requests or tokens just now",
    "quota_exhausted": "you exceeded your current quota: insufficient credits",
    "auth": "the API key is not valid",
    "invalid_request": "the request is not valid",
    "too_long": "prompt and answer do not fit the model's maximum context length",
    "content_filtered": "rejected by the safety system",
    "server": "the server failed inside",
    "overloaded": "no capacity just now",
    "timeout": "the server behind this one did not answer in time",
    "connect": "the connection broke before a reply",
    "silent": "no answer",
    "truncated": "the answer was cut",
    "malformed": "the answer can't be read",
    "unterminated": "the stream ended without its terminator",
    "error_in_200": "the request failed",
}


@dataclass(slots=True)
class Failure:
    """The reason why a call gets no whole answer."""

    kind: str
    """The fault's kind; of a limit, the refusal that it gives."""
    message: str
    status: int | None = None
    """The HTTP status, or the one that the body names; None where there is no reply."""
    delay_s: float = 0.0
    """Duration of a refusal in seconds."""
    at: float = 1.0
    """The share of the answer that comes before it breaks."""
    hint: Hint = "none"
    wait_s: float | None = None
    """The hint in seconds."""
    unit: str = "requests"
    """The exhausted unit: requests or tokens."""

    @property
    def in_answer(self) -> bool:
        """The call was let in and its answer breaks; else it is refused after `delay_s`."""
        return self.kind in IN_ANSWER

    @property
    def word(self) -> str:
        """The word of the failure vocabulary that a caller finds for it."""
        if self.kind == "error_in_200":
            return _IN_200[self.status or 500]
        return {"unterminated": "truncated", "silent": "timeout"}.get(self.kind, self.kind)


@dataclass(slots=True)
class Plan:
    """The outcome of one call. Times are in seconds."""

    key: str
    started_s: float
    input_tokens: int
    tokens: int
    """Of the whole answer, also if it breaks."""
    finish_reason: str
    first_s: float
    """To the first token, or to the reply of a call without tokens."""
    token_s: float
    """To each further token."""
    stall_s: float = 0.0
    stall_at: int = 0
    """The pause comes before this token, counted from 0."""
    begun: int = 0
    """Tokens of the beginning that the request continues."""
    failure: Failure | None = None

    @property
    def whole_s(self) -> float:
        """To the end of the whole answer."""
        return self.first_s + self.token_s * max(0, self.tokens - 1) + self.stall_s

    @property
    def broken_at(self) -> int | None:
        """The token, counted from 0, in whose place the answer breaks; None: it does not."""
        return None if self.failure is None else int(self.failure.at * self.tokens + 1e-9)

    def pause_s(self, index: int) -> float:
        """The wait before a token, or before the end of the answer where `index` is the number of tokens."""
        pause_s = self.first_s if index == 0 else self.token_s if index < self.tokens else 0.0
        return pause_s + self.stall_s if index == self.stall_at else pause_s


class SimulatedProvider:
    """One provider: its limits, its faults, its dice. The same seed and the same calls give the same answers.

    `admit` every call, and `leave` exactly once when it has ended in whatever way.
    """

    def __init__(self, spec: SimulatedProviderSpec, clock: Clock, seed: int) -> None:
        """It starts now: the times of `spec.faults` count from here."""
        self.spec = spec
        self.counters = Counters(keys={key: KeyCounters() for key in spec.key_names})
        self._clock = clock
        self._keyed = spec.keys > 0
        self._only_key = spec.key_names[0]
        self._rng = Random(f"{seed} {spec.name}")
        self._start_s = clock.monotonic()
        self._schedule = Schedule(spec.schedule)
        self._capacity = Capacity(spec.capacity, spec.key_names, self._start_s)
        self._latency = sampler(spec.latency_distribution, spec.latency_s, spec.latency_sigma)
        self._length = sampler(spec.output_distribution, float(spec.output_tokens), spec.output_sigma)

    def admit(
        self,
        key: str | None,
        input_tokens: int,
        output_limit: int | None,
        *,
        begun: int | None = None,
        stream: bool = False,
    ) -> Plan:
        """Decides the outcome of a call that arrives now. `output_limit` is the request's own limit of output tokens:
        0 for an embedding, None without a limit. `begun` counts the tokens of the answer that the request continues;
        None if it starts anew."""
        now_s = self._clock.monotonic()
        tokens, finish_reason = self._answer(output_limit, begun or 0)
        name = self._name(key)
        plan = Plan(name, now_s, input_tokens, tokens, finish_reason, self._latency(self._rng), self.spec.token_s)
        plan.begun = begun or 0
        counters = self.counters
        counters.calls += 1
        known = counters.keys.get(name)
        if known is None:
            plan.failure = _unknown(name)
        else:
            known.calls += 1
            found = self._schedule.conditions(now_s - self._start_s, name, stream, self._rng)
            plan.failure = self._failure(plan, found, output_limit, begun is not None)
        failure = plan.failure
        if failure is not None:
            counters.refused[failure.kind] = counters.refused.get(failure.kind, 0) + 1
            if known is not None:
                known.refused += 1
        return plan

    def leave(self, plan: Plan, *, answered: bool) -> None:
        """The call has ended. `answered`: its caller got everything that the plan has for it."""
        failure = plan.failure
        if failure is not None and not failure.in_answer:
            return
        self._capacity.in_flight -= 1
        counters = self.counters
        counters.in_flight -= 1
        if failure is not None:
            return
        if not answered:
            counters.left += 1
            return
        counters.served += 1
        counters.served_s += self._clock.monotonic() - plan.started_s
        for each in (counters, counters.keys[plan.key]):
            each.input_tokens += plan.input_tokens
            each.output_tokens += plan.tokens
        counters.keys[plan.key].served += 1

    def refusal(self, key: str | None) -> Failure | None:
        """Returns the reason why a query, such as the list of models, is refused, or None. Queries are not counted."""
        name = self._name(key)
        if name not in self.counters.keys:
            return _unknown(name)
        now_s = self._clock.monotonic() - self._start_s
        found = self._schedule.conditions(now_s, name, False, self._rng)
        return None if found.fault is None else self._fault(found.fault, found.left_s)

    def levels(self, key: str) -> dict[str, Level]:
        """The state of a key's rates, by `requests` and `tokens`; empty without rates."""
        return self._capacity.levels(key)

    def wall_s(self) -> float:
        """The time now, in seconds since 1970."""
        return self._clock.wall()

    def _name(self, key: str | None) -> str:
        """The key that a call counts as; empty where one is needed and none was sent."""
        return (key or "") if self._keyed else self._only_key

    def _answer(self, limit: int | None, begun: int) -> tuple[int, str]:
        """Tokens of the answer, after those that were begun, and why it ends there."""
        if limit == 0:
            return 0, "stop"
        tokens = max(1, round(self._length(self._rng)) - begun)
        return (limit, "length") if limit is not None and tokens > limit else (tokens, "stop")

    def _failure(self, plan: Plan, found: Conditions, output_limit: int | None, prefilled: bool) -> Failure | None:
        """Returns the reason why the call is refused; None admits it, also with a fault within the answer."""
        fault = found.fault
        if fault is not None and fault.kind not in IN_ANSWER:
            return self._fault(fault, found.left_s)
        if prefilled and self.spec.prefill == "refuse":
            return Failure("invalid_request", "the last message must not be the assistant's", 400)
        refusal = self._too_long(plan, output_limit) or self._over_limit(plan, found.share)
        if refusal is not None:
            return refusal
        self._let_in(plan, found)
        return None if fault is None else self._fault(fault, found.left_s)

    def _too_long(self, plan: Plan, output_limit: int | None) -> Failure | None:
        most = self.spec.context_length
        needed = plan.input_tokens + (output_limit or 0)
        if most is None or needed <= most:
            return None
        return Failure("too_long", f"maximum context length is {most} tokens, the request needs {needed}", 400)

    def _over_limit(self, plan: Plan, share: float) -> Failure | None:
        """The refusal of a call that is one too many; else takes its tokens from its key's rates."""
        capacity, spec = self._capacity, self.spec.capacity
        if capacity.full(share):
            return self._limit(spec.on_full, "too many calls at once", spec.retry_after_s, "requests")
        if not capacity.limited:
            return None
        tokens = plan.input_tokens + plan.tokens
        unit, wait_s = capacity.wait_s(plan.key, tokens, plan.started_s, share)
        if wait_s > 0:
            return self._limit("throttled", f"the key's {unit} per minute are used up", wait_s, unit)
        capacity.take(plan.key, tokens)
        return None

    def _limit(self, kind: str, message: str, wait_s: float | None, unit: str) -> Failure:
        hint = self.spec.capacity.hint
        said_s = hints.said_s(hint, wait_s, self._clock.wall())
        return Failure(kind, message, STATUSES[kind][0], hint=hint, wait_s=said_s, unit=unit)

    def _fault(self, fault: FaultSpec, left_s: float | None) -> Failure:
        wait_s = fault.retry_after_s if fault.retry_after_s is not None else left_s
        return Failure(
            fault.kind,
            MESSAGES[fault.kind],
            fault.status or STATUSES.get(fault.kind, (None,))[0],
            fault.delay_s,
            fault.at if fault.kind in ("truncated", "malformed") else 1.0,
            fault.hint,
            hints.said_s(fault.hint, wait_s, self._clock.wall()),
        )

    def _let_in(self, plan: Plan, found: Conditions) -> None:
        slowdown = self._capacity.slowdown(found.share)
        plan.first_s = plan.first_s * slowdown + found.slow_s
        plan.token_s *= slowdown
        if found.stall is not None:
            plan.stall_s, plan.stall_at = found.stall.delay_s, int(found.stall.at * plan.tokens + 1e-9)
        self._capacity.in_flight += 1
        counters = self.counters
        counters.in_flight += 1
        if counters.in_flight > counters.peak_in_flight:
            counters.peak_in_flight = counters.in_flight


def _unknown(name: str) -> Failure:
    return Failure("auth", "no such API key" if name else "no API key was sent", 401)
