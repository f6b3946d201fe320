"""What all layers have in common: a name, a reason for their place, and constraints that hold with their reasons."""

from __future__ import annotations

import pytest

from engine.core.errors import ConfigError
from engine.core.pipeline import Layer, Middleware, check_order, describe
from engine.core.virtual_time import VirtualClock
from engine.middleware import (
    batch,
    breaker,
    cache,
    concurrency,
    deadline,
    fallback,
    hedge,
    parameters,
    preflight,
    queue,
    rate_limit,
    rescue,
    retry,
    route,
    timeout,
    trace,
)
from engine.middleware.layer_context import LayerContext
from engine.schemas.policy import PolicySpec
from engine.schemas.provider import RemoteProviderSpec
from tests.middleware.chain import branch, in_virtual_time

STAGES: dict[str, type[Middleware]] = {
    "trace": trace.Trace,
    "deadline": deadline.Deadline,
    "cache": cache.Cache,
    "rescue": rescue.Rescue,
    "fallback": fallback.Fallback,
    "preflight": preflight.Preflight,
    "retry": retry.Retry,
    "hedge": hedge.Hedge,
    "queue": queue.Queue,
    "route": route.Route,
    "parameters": parameters.Parameters,
    "rate_limit": rate_limit.RateLimit,
    "concurrency": concurrency.Concurrency,
    "breaker": breaker.CircuitBreaker,
    "timeout": timeout.Timeout,
    "batch": batch.Batch,
}
"""Every stage by its name, outermost first."""

OUTSIDE = {
    "trace": "deadline queue",
    "deadline": "retry fallback",
    "cache": "fallback retry queue",
    "rescue": "fallback",
    "fallback": "retry",
    "preflight": "retry hedge queue rate_limit",
    "retry": "queue breaker timeout",
    "hedge": "queue route breaker timeout",
    "queue": "breaker timeout",
    "route": "breaker",
    "parameters": "batch",
    "rate_limit": "breaker",
    "concurrency": "breaker",
    "breaker": "timeout",
}
"""What a stage says must be further in."""
INSIDE = {
    "cache": "trace deadline",
    "rescue": "deadline",
    "preflight": "fallback",
    "hedge": "fallback",
    "route": "queue",
    "rate_limit": "queue route",
    "concurrency": "queue rate_limit",
    "batch": "retry route",
}
"""What a stage says must be further out."""
SAID = [(name, inner) for name, inners in OUTSIDE.items() for inner in inners.split()]
ASKED = [(name, outer) for name, outers in INSIDE.items() for outer in outers.split()]


@pytest.mark.parametrize(("name", "inner"), SAID)
def test_what_must_be_further_in_is_refused_further_out(name: str, inner: str) -> None:
    with pytest.raises(ConfigError, match=f"chain: {name} must be outside {inner}, because ") as caught:
        check_order([STAGES[inner], STAGES[name]])
    assert str(caught.value).count(" ") > 6


@pytest.mark.parametrize(("name", "outer"), ASKED)
def test_what_must_be_further_out_is_refused_further_in(name: str, outer: str) -> None:
    with pytest.raises(
        ConfigError, match=f"(chain: {name} must be inside {outer}|{outer} must be outside {name}), bec"
    ):
        check_order([STAGES[name], STAGES[outer]])


def test_every_stage_goes_by_its_name_and_declares_these_constraints_only() -> None:
    for name, stage in STAGES.items():
        assert stage.name == name
        assert sorted(stage.wraps) == sorted(OUTSIDE.get(name, "").split())
        assert sorted(stage.wrapped_by) == sorted(INSIDE.get(name, "").split())


def test_every_stage_says_why_it_stands_where_it_stands() -> None:
    lines = describe([Layer(stage) for stage in STAGES.values()])
    assert all(" " in line.why for line in lines)
    assert len({line.why for line in lines}) == len(STAGES)


@in_virtual_time
async def test_a_target_has_the_endpoints_of_its_provider_or_stands_for_itself(clock: VirtualClock) -> None:
    here = branch(clock, PolicySpec())
    assert here.endpoints == ("t",)
    assert LayerContext("t", here.target, here.policy, here.resources).primary
    provider = RemoteProviderSpec(kind="remote", name="p", base_url="http://a/v1", endpoints=("http://b/v1",))
    remote = branch(clock, PolicySpec(), provider=provider)
    assert remote.endpoints == ("http://a/v1", "http://b/v1")
