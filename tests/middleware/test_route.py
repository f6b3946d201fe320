"""Route: which endpoint and which key an attempt uses, and what its record says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine import Request
from engine.core.errors import (
    FAILURES,
    AuthFailed,
    CircuitOpen,
    ConfigError,
    InferenceError,
    Internal,
    Malformed,
    QuotaExhausted,
    ServerFailed,
    SetupError,
    Throttled,
)
from engine.core.pipeline import Stage
from engine.core.request import Context, Result
from engine.core.stream import Chunk, ChunkStream
from engine.core.usage import Usage
from engine.core.virtual_time import VirtualClock
from engine.middleware import breaker, queue, retry, route
from engine.middleware.layer_context import LayerContext
from engine.schemas.policy import BreakerSpec, PolicySpec, RetrySpec, RouteSpec
from engine.schemas.prices import PriceSpec
from engine.schemas.provider import RemoteProviderSpec
from tests.middleware.chain import Scripted, branch, chain, context, in_virtual_time, request

URLS = ("http://a/v1", "http://b/v1", "http://c/v1")


def at(clock: VirtualClock, count: int = 3, keys: tuple[str, ...] = (), **policy: Any) -> LayerContext:
    """A target with so many endpoints, where a token of a prompt costs a dollar, and one of an answer two."""
    price = PriceSpec(input=1e6, output=2e6)
    provider = RemoteProviderSpec(kind="remote", name="p", base_url=URLS[0], endpoints=URLS[1:count], price=price)
    return branch(clock, PolicySpec(**policy), keys=keys, provider=provider)


class Places:
    """Each endpoint does what it is told to, by its index; the others answer after `seconds`."""

    def __init__(self, seconds: float = 1.0, **told: InferenceError) -> None:
        self.seconds = seconds
        self.told = {int(place[1:]): error for place, error in told.items()}
        self.places: list[int] = []

    async def __call__(self, request: Request, context: Context) -> Result:
        assert context.attempt is not None
        place = context.attempt.place
        self.places.append(place)
        if place in self.told:
            raise self.told[place]
        await asyncio.sleep(self.seconds)
        return Result(request.id or "", {"place": place}, usage=Usage(1, 2))


# -- endpoints --------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_the_endpoint_with_the_fewest_calls_is_next(clock: VirtualClock) -> None:
    executor = Places(100.0)
    stage = chain([route], at(clock), executor)
    tasks = [asyncio.create_task(stage(request(), context(clock))) for _ in range(6)]
    await asyncio.sleep(1.0)
    assert sorted(executor.places) == [0, 0, 1, 1, 2, 2]
    assert sorted(executor.places[:3]) == [0, 1, 2]
    for index, place in enumerate(executor.places):
        if place == 1:
            tasks[index].cancel()
    await asyncio.sleep(1.0)
    tasks += [asyncio.create_task(stage(request(), context(clock))) for _ in range(2)]
    await asyncio.sleep(1.0)
    assert executor.places[6:] == [1, 1]


@in_virtual_time
async def test_idle_endpoints_take_turns(clock: VirtualClock) -> None:
    for choice in ("least_loaded", "round_robin"):
        executor = Places()
        stage = chain([route], at(clock, route=RouteSpec(endpoints=choice)), executor)  # type: ignore[arg-type]
        for _ in range(6):
            await stage(request(), context(clock))
        assert executor.places == [1, 2, 0, 1, 2, 0]


@in_virtual_time
async def test_of_two_endpoints_the_one_without_a_call_is_next_however_many_it_had(clock: VirtualClock) -> None:
    executor = Places(100.0)
    stage = chain([route], at(clock, count=2), executor)
    long = asyncio.create_task(stage(request(), context(clock)))
    await asyncio.sleep(1.0)
    executor.seconds = 1.0
    for _ in range(4):
        await stage(request(), context(clock))
    first, *others = executor.places
    assert others == [1 - first] * 4
    await long


@in_virtual_time
async def test_in_turn_whatever_is_in_flight(clock: VirtualClock) -> None:
    executor = Places(100.0)
    here = at(clock, count=2, route=RouteSpec(endpoints="round_robin"))
    stage = chain([route], here, executor)
    tasks = [asyncio.create_task(stage(request(), context(clock))) for _ in range(4)]
    await asyncio.sleep(1.0)
    tasks[0].cancel()
    tasks[2].cancel()
    await asyncio.sleep(1.0)
    tasks.append(asyncio.create_task(stage(request(), context(clock))))
    await asyncio.sleep(1.0)
    assert executor.places == [1, 0, 1, 0, 1]


@in_virtual_time
async def test_a_retry_goes_to_another_endpoint_at_once_whatever_the_hint(clock: VirtualClock) -> None:
    executor = Places(p1=ServerFailed("down", retry_after_s=50.0))
    stage = chain([retry, route], at(clock, count=2, retry=RetrySpec(initial_delay_s=0.0)), executor)
    mine = context(clock)
    await stage(request(), mine)
    assert executor.places == [1, 0]
    assert clock.monotonic() == pytest.approx(1.0)
    assert [attempt.endpoint for attempt in mine.record.attempts] == ["http://b/v1", "http://a/v1"]


@in_virtual_time
async def test_the_endpoint_that_just_failed_is_avoided_also_when_it_is_the_idle_one(clock: VirtualClock) -> None:
    executor = Places(100.0)
    stage = chain([route], at(clock, count=2), executor)
    busy = asyncio.create_task(stage(request(), context(clock)))
    await asyncio.sleep(1.0)
    assert executor.places == [1]
    mine = context(clock)
    mine.last_endpoint = 0
    another = asyncio.create_task(stage(request(), mine))
    await asyncio.sleep(1.0)
    assert executor.places == [1, 1]
    await asyncio.wait([busy, another])


@in_virtual_time
async def test_where_there_is_no_other_endpoint_the_same_one_is_asked_again(clock: VirtualClock) -> None:
    executor = Places(p0=CircuitOpen("open"))
    mine = context(clock)
    mine.last_endpoint = 1
    await chain([route], at(clock, count=2, route=RouteSpec(endpoints="round_robin")), executor)(request(), mine)
    assert executor.places[-1] == 1


@in_virtual_time
async def test_a_throttle_is_the_keys_and_not_the_endpoints(clock: VirtualClock) -> None:
    executor = Scripted(Throttled("slow down", retry_after_s=50.0), 0.0)
    await chain([retry, route], at(clock, count=2), executor)(request(), context(clock))
    assert clock.monotonic() >= 50.0


@in_virtual_time
async def test_an_endpoint_whose_circuit_is_open_is_passed_over_and_costs_nothing(clock: VirtualClock) -> None:
    executor = Places(p1=ServerFailed("down"))
    here = at(clock, keys=("A", "B"), retry=RetrySpec(enabled=False), breaker=BreakerSpec(min_calls=1, on_open="fail"))
    stage = chain([route, breaker], here, executor)
    with pytest.raises(ServerFailed):
        await stage(request(), context(clock))
    for _ in range(6):
        mine = context(clock)
        result = await stage(request(), mine)
        assert result.body != {"place": 1}
        assert len(mine.record.attempts) == 1
        assert mine.record.attempts[0] is mine.attempt
    assert executor.places.count(1) == 1
    assert here.resources.items("endpoints")[("endpoints", "t")].gauges() == {
        f"endpoint_{place}_in_flight": 0 for place in range(3)
    }
    assert here.resources.items("keys")[("keys", "t")].in_flight == {"A": 0, "B": 0}


@in_virtual_time
async def test_when_every_circuit_is_open_it_says_so_and_nothing_was_tried(clock: VirtualClock) -> None:
    executor = Places(p0=CircuitOpen("zero"), p1=CircuitOpen("one"), p2=CircuitOpen("two"))
    here = at(clock, keys=("A",))
    mine = context(clock)
    mine.next_attempt("retry", "try 2")
    with pytest.raises(CircuitOpen):
        await chain([route], here, executor)(request(), mine)
    assert sorted(executor.places) == [0, 1, 2]
    assert mine.record.attempts == []
    assert mine.attempt is None
    assert (mine.role, mine.why) == ("retry", "try 2")
    assert here.resources.items("keys")[("keys", "t")].in_flight == {"A": 0}


@in_virtual_time
async def test_what_was_not_tried_leaves_the_attempt_before_it_in_place(clock: VirtualClock) -> None:
    executor = Scripted(0.0, CircuitOpen("open"))
    stage = chain([route], branch(clock, PolicySpec()), executor)
    mine, other = context(clock), context(clock)
    await stage(request(), mine)
    other.record = mine.record  # another call of the same request
    with pytest.raises(CircuitOpen):
        await stage(request(), other)
    assert other.attempt is None
    with pytest.raises(CircuitOpen):
        await stage(request(), mine)
    assert mine.attempt is mine.record.attempts[0]


# -- keys -------------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_refused_key_gives_way_at_once_and_the_record_says_why(clock: VirtualClock) -> None:
    executor = Scripted(AuthFailed("bad key", status=401), QuotaExhausted("used up", status=429), 0.5)
    mine = context(clock)
    await chain([route], branch(clock, PolicySpec(), keys=("A", "B", "C")), executor)(request(), mine)
    assert executor.keys_used == ["A", "B", "C"]
    first, second, third = mine.record.attempts
    assert (first.role, first.why, first.outcome, first.message) == ("first", "A by round_robin", "auth", "bad key")
    assert (second.role, second.why) == ("retry", "A was refused: auth; B by round_robin")
    assert (third.role, third.why) == ("retry", "B was refused: quota_exhausted; C by round_robin")
    assert third.outcome == "ok"
    assert clock.monotonic() == pytest.approx(0.5)


@in_virtual_time
async def test_a_first_attempt_that_had_no_choice_says_no_why(clock: VirtualClock) -> None:
    for keys in ((), ("A",)):
        mine = context(clock)
        await chain([route], branch(clock, PolicySpec(), keys=keys), Scripted(0.0))(request(), mine)
        (attempt,) = mine.record.attempts
        assert (attempt.role, attempt.why, attempt.endpoint) == ("first", None, None)
        assert attempt.key == (keys[0] if keys else None)


@in_virtual_time
async def test_who_waits_for_a_key_never_gets_the_one_that_was_just_refused(clock: VirtualClock) -> None:
    executor = Scripted(AuthFailed("bad key"), 5.0)
    here = branch(clock, PolicySpec(route=RouteSpec(key_concurrency=1)), keys=("A", "B"))
    stage = chain([route], here, executor)
    results = await asyncio.gather(*(stage(request(str(n)), context(clock)) for n in range(4)))
    assert len(results) == 4
    assert executor.keys_used.count("A") == 1


@in_virtual_time
async def test_the_last_refused_key_is_the_answer_and_is_called_once(clock: VirtualClock) -> None:
    executor = Scripted(AuthFailed("bad key"))
    here = branch(clock, PolicySpec(), keys=("A",))
    stage = chain([route], here, executor)
    mine = context(clock)
    for _ in range(2):
        with pytest.raises(AuthFailed, match="bad key"):
            await stage(request(), mine)
    assert executor.calls == 1
    assert len(mine.record.attempts) == 1


@in_virtual_time
async def test_a_call_that_fails_otherwise_leaves_its_key_alone_and_is_not_made_again(clock: VirtualClock) -> None:
    here = branch(clock, PolicySpec(), keys=("A", "B"))
    executor = Scripted(ServerFailed("boom"))
    with pytest.raises(ServerFailed):
        await chain([route], here, executor)(request(), context(clock))
    assert executor.calls == 1
    assert here.resources.items("keys")[("keys", "t")].state("A") == "ready"


@in_virtual_time
async def test_a_throttle_tells_whether_another_key_is_free(clock: VirtualClock) -> None:
    for keys, elsewhere in ((("A", "B"), True), (("A",), False), ((), False)):
        executor = Scripted(Throttled("slow down", retry_after_s=5.0))
        mine = context(clock)
        with pytest.raises(Throttled) as caught:
            await chain([route], branch(clock, PolicySpec(), keys=keys), executor)(request(), mine)
        assert caught.value.elsewhere is elsewhere
        assert mine.last_key == (keys[0] if keys else None)
        assert mine.last_endpoint == 0


@in_virtual_time
async def test_a_failure_of_the_only_endpoint_is_nowhere_else_better(clock: VirtualClock) -> None:
    for error, count, elsewhere in (
        (ServerFailed("down"), 1, False),
        (ServerFailed("down"), 2, True),
        (InferenceError("odd"), 2, False),
    ):
        with pytest.raises(InferenceError) as caught:
            await chain([route], at(clock, count=count), Scripted(error))(request(), context(clock))
        assert caught.value.elsewhere is elsewhere


@in_virtual_time
async def test_a_success_ends_the_pause_of_its_key(clock: VirtualClock) -> None:
    here = branch(clock, PolicySpec(), keys=("A",))
    stage = chain([route], here, Scripted(Throttled("no", retry_after_s=50.0), 1.0))
    with pytest.raises(Throttled):
        await stage(request(), context(clock))
    ring = here.resources.items("keys")[("keys", "t")]
    assert ring.state("A") == "cooling 50.0 s"
    await stage(request(), context(clock))
    assert ring.state("A") == "ready"


@in_virtual_time
async def test_a_call_that_began_before_the_throttle_does_not_end_the_pause(clock: VirtualClock) -> None:
    here = branch(clock, PolicySpec(), keys=("A",))
    stage = chain([route], here, Scripted(5.0, Throttled("no", retry_after_s=50.0)))
    early = asyncio.create_task(stage(request(), context(clock)))
    await asyncio.sleep(1.0)
    with pytest.raises(Throttled):
        await stage(request(), context(clock))
    await early
    assert here.resources.items("keys")[("keys", "t")].state("A").startswith("cooling")


# -- records ----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_the_record_has_times_usage_and_what_the_provider_said(clock: VirtualClock) -> None:
    error = ServerFailed("boom", status=503, provider_request_id="req-1")
    mine = context(clock)
    await asyncio.sleep(1.0)
    stage = chain([route], at(clock, count=1), Scripted(error))
    mine.next_attempt("retry", "try 9")
    with pytest.raises(ServerFailed):
        await stage(request(), mine)
    assert (mine.role, mine.why) == ("first", None)
    await asyncio.sleep(1.0)
    mine.submitted_at = 1.5
    await chain([route], at(clock, count=1), Places(2.0))(request(), mine)
    failed, fine = mine.record.attempts
    assert (failed.target, failed.started_s, failed.duration_s) == ("t", 1.0, 0.0)
    assert (failed.role, failed.why, fine.role, fine.why) == ("retry", "try 9", "first", None)
    assert fine.started_s == 0.5
    assert (failed.status, failed.provider_request_id, failed.usage) == (503, "req-1", None)
    assert (fine.outcome, fine.duration_s, fine.usage) == ("ok", 2.0, Usage(1, 2))
    assert fine.place == 0


@in_virtual_time
async def test_the_record_has_what_the_call_cost_also_when_it_failed(clock: VirtualClock) -> None:
    fine, failed, refused = context(clock), context(clock), context(clock)
    await chain([route], at(clock), Places())(request(), fine)
    cut = Malformed("no JSON")
    cut.usage = Usage(3, 4)
    with pytest.raises(Malformed):
        await chain([route], at(clock), Scripted(cut))(request(), failed)
    with pytest.raises(ServerFailed):
        await chain([route], at(clock), Scripted(ServerFailed("boom")))(request(), refused)
    said = [(mine.record.attempts[0].usage, mine.record.attempts[0].cost) for mine in (fine, failed, refused)]
    assert said == [(Usage(1, 2), 5.0), (Usage(3, 4), 11.0), (None, None)]


@in_virtual_time
async def test_what_the_executor_noted_of_a_reply_outlives_an_error_that_says_less(clock: VirtualClock) -> None:
    async def noted(asked: Request, mine: Context) -> Result:
        assert mine.attempt is not None
        mine.attempt.status, mine.attempt.provider_request_id = 200, "req-2"
        raise Malformed("no JSON")

    mine = context(clock)
    with pytest.raises(Malformed):
        await chain([route], at(clock), noted)(request(), mine)
    (attempt,) = mine.record.attempts
    assert (attempt.status, attempt.provider_request_id) == (200, "req-2")


@pytest.mark.parametrize(
    ("defect", "said"),
    [(ZeroDivisionError("a defect"), "ZeroDivisionError: a defect"), (SetupError("no such device"), "no such device")],
)
def test_a_defect_fails_this_target_only(defect: Exception, said: str) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        async def broken(asked: Request, mine: Context) -> Result:
            raise defect

        here = at(clock, keys=("A",))
        mine = context(clock)
        with pytest.raises(Internal) as caught:
            await chain([route], here, broken)(request(), mine)
        assert caught.value.message == said
        assert caught.value.__cause__ is defect
        assert (mine.record.attempts[0].outcome, mine.record.attempts[0].message) == ("internal", said)
        assert here.resources.items("keys")[("keys", "t")].in_flight == {"A": 0}

    scenario()


@in_virtual_time
async def test_a_cancelled_call_is_recorded_and_holds_nothing(clock: VirtualClock) -> None:
    here = at(clock, keys=("A",))
    mine = context(clock)
    task = asyncio.create_task(chain([route], here, Places(100.0))(request(), mine))
    await asyncio.sleep(2.0)
    task.cancel()
    await asyncio.wait([task])
    (attempt,) = mine.record.attempts
    assert (attempt.outcome, attempt.duration_s) == ("cancelled", 2.0)
    assert "its caller left" in str(attempt.message)
    assert here.resources.items("keys")[("keys", "t")].in_flight == {"A": 0}
    assert set(here.resources.items("endpoints")[("endpoints", "t")].in_flight) == {0}


@pytest.mark.parametrize("kind", sorted(FAILURES))
@pytest.mark.parametrize("sent", [True, False])
def test_of_a_call_that_was_sent_and_told_no_count_the_prompt_is_estimated(kind: str, sent: bool) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        if kind == "circuit_open":
            return  # never sent

        async def fails(asked: Request, mine: Context) -> Result:
            assert mine.attempt is not None
            mine.attempt.sent = sent
            raise FAILURES[kind]("no")

        mine = context(clock)
        asked = Request("chat", {"messages": [{"role": "user", "content": "x" * 40}]})
        with pytest.raises(FAILURES[kind]):
            await chain([route], at(clock), fails)(asked, mine)
        counted = sent and kind in {"timeout", "truncated", "malformed", "cancelled", "deadline"}
        assert mine.record.attempts[0].usage == (Usage(11, 0, estimated=True) if counted else None)

    scenario()


# -- streams ----------------------------------------------------------------------------------------------------------


class Streams:
    """Chunks at 1, 2 and 3 seconds; then the end, with or without its usage, or an error."""

    def __init__(self, error: InferenceError | None = None, usage: Usage | None = None, primed: bool = False) -> None:
        self.error = error
        self.usage = usage
        self.primed = primed

    async def __call__(self, request: Request, context: Context) -> Result:
        stream = ChunkStream(self._chunks())
        if self.primed:
            await stream.prime()
        return Result(request.id or "", stream=stream)

    async def _chunks(self) -> AsyncIterator[Chunk]:
        for index in range(3):
            await asyncio.sleep(1.0)
            yield Chunk({"index": index}, self.usage if index == 2 else None)
        if self.error is not None:
            raise self.error


async def read(result: Result) -> int:
    assert result.stream is not None
    return len([chunk async for chunk in result.stream])


@in_virtual_time
async def test_a_streams_record_is_closed_at_its_end(clock: VirtualClock) -> None:
    for primed in (False, True):
        here = at(clock, keys=("A",))
        mine = context(clock)
        result = await chain([route], here, Streams(usage=Usage(7, 3), primed=primed))(request(), mine)
        (attempt,) = mine.record.attempts
        assert attempt.outcome == "running"
        assert here.resources.items("keys")[("keys", "t")].in_flight == {"A": 1}
        assert await read(result) == 3
        assert (attempt.outcome, attempt.duration_s, attempt.first_token_s) == ("ok", 3.0, 1.0)
        assert attempt.usage == Usage(7, 3)
        assert here.resources.items("keys")[("keys", "t")].in_flight == {"A": 0}
        assert set(here.resources.items("endpoints")[("endpoints", "t")].in_flight) == {0}


@in_virtual_time
async def test_of_a_broken_stream_without_a_count_the_usage_is_estimated_by_its_chunks(clock: VirtualClock) -> None:
    mine = context(clock)
    result = await chain([route], at(clock), Streams(ServerFailed("cut")))(request(), mine)
    with pytest.raises(ServerFailed):
        await read(result)
    (attempt,) = mine.record.attempts
    assert attempt.outcome == "server"
    assert attempt.usage == Usage(1, 3, estimated=True)


@in_virtual_time
async def test_a_stream_that_ended_well_without_a_count_is_not_guessed_at(clock: VirtualClock) -> None:
    mine = context(clock)
    assert await read(await chain([route], at(clock), Streams())(request(), mine)) == 3
    assert mine.record.attempts[0].usage is None


@in_virtual_time
async def test_a_broken_stream_that_told_its_count_keeps_it(clock: VirtualClock) -> None:
    mine = context(clock)
    result = await chain([route], at(clock), Streams(ServerFailed("cut"), Usage(7, 3)))(request(), mine)
    with pytest.raises(ServerFailed):
        await read(result)
    assert mine.record.attempts[0].usage == Usage(7, 3)


@pytest.mark.parametrize(("told", "counted"), [(1, 3), (9, 9)])
def test_an_answer_that_was_estimated_at_its_beginning_has_at_least_a_token_a_chunk(told: int, counted: int) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        mine = context(clock)
        await read(await chain([route], at(clock), Streams(usage=Usage(7, told, estimated=True)))(request(), mine))
        (attempt,) = mine.record.attempts
        assert attempt.usage == Usage(7, counted, estimated=True)
        assert attempt.cost == 7.0 + 2.0 * counted

    scenario()


@in_virtual_time
async def test_a_stream_left_before_its_first_chunk_cost_no_answer(clock: VirtualClock) -> None:
    mine = context(clock)
    result = await chain([route], at(clock), Streams())(request(), mine)
    assert result.stream is not None
    await result.stream.aclose()
    (attempt,) = mine.record.attempts
    assert (attempt.outcome, attempt.usage) == ("cancelled", None)


@in_virtual_time
async def test_a_key_that_is_refused_within_a_stream_is_parked(clock: VirtualClock) -> None:
    here = at(clock, keys=("A", "B"))
    result = await chain([route], here, Streams(AuthFailed("revoked")))(request(), context(clock))
    with pytest.raises(AuthFailed):
        await read(result)
    ring = here.resources.items("keys")[("keys", "t")]
    assert list(ring.parked) == ["A"]
    assert ring.in_flight == {"A": 0, "B": 0}


@in_virtual_time
async def test_a_key_throttled_within_a_stream_cools(clock: VirtualClock) -> None:
    here = at(clock, keys=("A", "B"))
    result = await chain([route], here, Streams(Throttled("no", retry_after_s=9.0)))(request(), context(clock))
    with pytest.raises(Throttled):
        await read(result)
    assert here.resources.items("keys")[("keys", "t")].state("A") == "cooling 9.0 s"


# -- its place --------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_the_deadline_that_waits_for_the_first_attempt_begins_before_the_wait_for_a_key(
    clock: VirtualClock,
) -> None:
    here = branch(clock, PolicySpec(route=RouteSpec(key_concurrency=1)), keys=("A",))
    stage: Stage = chain([queue, route], here, Scripted(5.0))
    began: list[float] = []
    contexts = [context(clock), context(clock)]
    contexts[1].on_first_attempt = lambda: began.append(clock.monotonic())
    await asyncio.gather(*(stage(request(), mine) for mine in contexts))
    assert began == [0.0]


@in_virtual_time
async def test_the_layer_says_its_settings(clock: VirtualClock) -> None:
    assert route.layer(branch(clock, PolicySpec())).settings == "target=t"
    assert route.layer(at(clock, count=2)).settings == "target=t endpoints=2 least_loaded"
    assert route.layer(at(clock, keys=("A", "B"))).settings == "target=t keys=2 round_robin endpoints=3 least_loaded"
    with pytest.raises(ConfigError):
        route.layer(branch(clock, PolicySpec(route=RouteSpec(keys="specific", key="X")), keys=("A",)))
