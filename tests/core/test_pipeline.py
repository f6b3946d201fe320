"""The fold and the order constraints."""

import pytest

from engine import Engine
from engine.api.build import PER_REQUEST, PER_TARGET
from engine.core.errors import ConfigError
from engine.core.pipeline import Layer, Middleware, Stage, check_order, compose
from engine.core.request import Context, EngineRecord, Request, Result
from engine.middleware.breaker import CircuitBreaker
from engine.middleware.queue import Queue
from engine.middleware.retry import Retry
from engine.middleware.timeout import Timeout


class Note(Middleware):
    """Writes its letter on the way in."""

    name = "note"
    why = "a test"

    def __init__(self, next: Stage, letter: str, seen: list[str]) -> None:
        self.next, self.letter, self.seen = next, letter, seen

    async def __call__(self, request: Request, context: Context) -> Result:
        self.seen.append(self.letter)
        return await self.next(request, context)


async def test_the_first_layer_is_outermost() -> None:
    seen: list[str] = []

    async def executor(request: Request, context: Context) -> Result:
        seen.append("executor")
        return Result("r")

    stage = compose([Layer(Note, {"letter": letter, "seen": seen}) for letter in "abc"], executor)
    await stage(Request("chat", {}), Context(EngineRecord(), 0.0))
    assert seen == ["a", "b", "c", "executor"]


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ([Queue, Retry], "retry must be outside queue, because a retry that waits must not hold a slot"),
        ([Timeout, CircuitBreaker], "breaker must be outside timeout, because the breaker must see timeouts"),
        ([CircuitBreaker, Queue], "queue must be outside breaker, because a permit taken before a wait goes stale"),
    ],
)
def test_a_wrong_order_is_refused_with_the_reason(order: list[type[Middleware]], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_order(order)
    assert said in str(caught.value)


def test_the_stages_stand_in_the_order_of_the_design() -> None:
    assert [*PER_REQUEST, *PER_TARGET] == [
        "trace",
        "deadline",
        "cache",
        "rescue",
        "preflight",
        "retry",
        "hedge",
        "queue",
        "route",
        "parameters",
        "rate_limit",
        "concurrency",
        "breaker",
        "timeout",
        "batch",
    ]


def test_every_stage_says_why_it_stands_where_it_stands() -> None:
    words = ["policy/concurrency=adaptive", "policy/rate_limit=per_key", "policy.rate_limit.requests_per_min=9"]
    lines = Engine.compose(["provider=simulated", "fallbacks=[{provider:simulated}]", *words]).describe()
    assert {"rate_limit", "concurrency", "fallback"} <= {line.name for line in lines}
    assert all(line.why for line in lines)


def test_every_signal_of_a_context_is_forked_or_its_own() -> None:
    signals = {name for name in vars(Context) if not name.startswith("_") and not callable(getattr(Context, name))}
    signals -= {"FORKED", "OWN", "spent"}
    assert signals == {*Context.FORKED, *Context.OWN}
    assert not {*Context.FORKED} & {*Context.OWN}


def test_a_fork_has_the_forked_signals_and_no_others() -> None:
    context = Context(EngineRecord(), 1.0, tier=2, stream=True)
    for name in (*Context.FORKED, *Context.OWN):
        setattr(context, name, f"a {name}")
    twin = context.fork()
    assert {name: getattr(twin, name) for name in Context.FORKED} == {name: f"a {name}" for name in Context.FORKED}
    assert all(getattr(twin, name) == getattr(Context, name) for name in Context.OWN)
    assert (twin.record, twin.submitted_at, twin.tier, twin.stream) == (context.record, 1.0, 2, True)
