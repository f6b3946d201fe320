"""Explains a request before it is sent: targets, key, waits and tries, with their reasons."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from engine.api.build import Pipeline, TargetChain
from engine.core import token_estimate
from engine.core.errors import InferenceError
from engine.core.request import PRIORITIES, Request
from engine.middleware.preflight import Preflight
from engine.middleware.rate_limit import cost_of


@dataclass
class Explanation:
    """One request's way. Times are in seconds; nothing is called or taken."""

    id: str
    targets: list[dict[str, Any]] = field(default_factory=list)
    """In the order in which they would be tried; of each what would be done there, and why."""
    tokens: dict[str, int] = field(default_factory=dict)
    """Estimated, of the prompt, and at most of the answer."""
    deadline_s: float | None = None
    max_attempts: int | None = None
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "tokens": self.tokens,
            "deadline_s": self.deadline_s,
            "max_attempts": self.max_attempts,
            "targets": self.targets,
            "notes": self.notes,
        }


def explain(pipeline: Pipeline, request: Request) -> Explanation:
    """Reads the live state of the stages; an engine that has not answered yet gives what its policy says."""
    policy = pipeline.spec.policy
    found = Explanation(request.id or "")
    limit = policy.rate_limit.output_tokens_default
    found.tokens = {
        "input": token_estimate.input_tokens(request.body),
        "output_at_most": token_estimate.output_tokens(request.task, request.body, limit),
    }
    if policy.deadline.enabled:
        limits = [each for each in (request.deadline_s, policy.deadline.total_s) if each is not None]
        found.deadline_s = min(limits, default=None)
    found.max_attempts = policy.budget.max_attempts if policy.budget.enabled else None
    found.targets = [_at(pipeline, chain, request) for chain in pipeline.target_chains]
    if len(found.targets) > 1:
        found.notes.append(f"the next target is tried after: {', '.join(policy.fallback.on)}")
    if policy.cache.enabled:
        found.notes.append(f"an equal request would be answered from the cache (only={policy.cache.only})")
    if request.body.get("stream") and policy.stream.rescue != "off":
        found.notes.append(f"a stream that breaks is rescued: {policy.stream.rescue}")
    return found


def _at(pipeline: Pipeline, chain: TargetChain, request: Request) -> dict[str, Any]:
    """Explains what one target would do."""
    policy, resources = pipeline.spec.policy, pipeline.resources
    record: dict[str, Any] = {"target": chain.name, "refused": _refusal(pipeline, chain, request)}
    ring = resources.find(("keys", chain.name))
    if ring is not None and ring.names:
        key, why = ring.preview()
        record["key"], record["key_why"] = key, why
    wait = 0.0
    gate = resources.find(("queue", chain.name))
    if gate is not None:
        record["queue"] = (
            f"{gate.ahead_of(PRIORITIES[request.priority])} ahead, {gate.active} of {gate.concurrency} in flight"
        )
    bucket = resources.find(("rate_limit", chain.name, record.get("key") if policy.rate_limit.per == "key" else None))
    if bucket is not None and bucket.limited:
        wait = bucket.wait_s(cost_of(request, policy.rate_limit))
    record["rate_limit_wait_s"] = round(wait, 3)
    circuits = [resources.find(("breaker", endpoint, chain.target.model_id)) for endpoint in chain.endpoints]
    open_s = [circuit.open_for_s for circuit in circuits if circuit is not None]
    if open_s and min(open_s) > 0:
        forced = min(open_s) == float("inf")
        record["circuit"] = "opened by hand" if forced else f"open for {min(open_s):.1f} s more"
    record["tries"] = _tries(pipeline)
    return record


def _refusal(pipeline: Pipeline, chain: TargetChain, request: Request) -> str | None:
    """Returns the reason why the target would not be called; None if it would."""
    check = next((layer for layer in chain.layers if layer.cls is Preflight), None)
    if check is None:
        return None
    stage = Preflight(next=chain.executor, **check.arguments)
    try:
        stage.check(replace(request))
    except InferenceError as error:
        return f"{error.kind}: {error.message}"
    return None


def _tries(pipeline: Pipeline) -> str:
    policy = pipeline.spec.policy
    if policy.hedge.enabled:
        return f"1, and {policy.hedge.max_hedges} more when it is slow (from {policy.hedge.after_s:g} s) or fails"
    if not policy.retry.enabled:
        return "1"
    throttles = policy.retry.max_throttle_retries
    again = f"up to {policy.retry.max_retries} more after failures"
    return f"1, {again}, {policy.retry.max_retries if throttles is None else throttles} after throttles"
