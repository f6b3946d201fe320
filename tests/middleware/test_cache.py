"""The cache: equal requests get one answer, each its own copy, and no caller's trouble is another's."""

import asyncio
from collections import OrderedDict
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine import Request
from engine.core.errors import (
    Cancelled,
    DeadlineExceeded,
    InferenceError,
    InvalidRequest,
    QueueFull,
    ServerFailed,
)
from engine.core.pipeline import Stage
from engine.core.request import Context, Result
from engine.core.stream import Chunk, ChunkStream
from engine.core.usage import Usage
from engine.core.virtual_time import VirtualClock, VirtualTimeLoop, run
from engine.middleware import cache, deadline, queue, route, trace
from engine.middleware.cache import Answer, Answers
from engine.middleware.layer_context import LayerContext
from engine.schemas.model import ModelSpec
from engine.schemas.policy import CacheSpec, DeadlineSpec, PolicySpec, QueueSpec
from tests.middleware.chain import branch, chain, context, in_virtual_time

HELLO = [{"role": "user", "content": "hello"}]


class Counting:
    """Answers after `seconds` with a number that no other call gets; the first calls fail with `errors`."""

    def __init__(self, seconds: float = 1.0, *errors: BaseException) -> None:
        self.seconds = seconds
        self.errors = list(errors)
        self.calls = self.active = 0

    async def __call__(self, request: Request, context: Context) -> Result:
        self.calls += 1
        number = self.calls
        if context.stream:
            return Result(request.id or "", stream=ChunkStream(self._chunks()))
        self.active += 1
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.active -= 1
        if self.errors:
            raise self.errors.pop(0)
        return Result(request.id or "", {"number": number, "list": [1]}, usage=Usage(3, 4))

    async def _chunks(self) -> Any:
        yield Chunk({"index": 0})


def ask(id: str = "r", task: str = "chat", priority: str = "normal", **body: Any) -> Request:
    return Request(task, {"messages": HELLO, "temperature": 0, **body}, id=id, priority=priority)


def made(
    clock: VirtualClock, executor: Stage, outer: tuple[Any, ...] = (), inner: tuple[Any, ...] = (), **fields: Any
) -> tuple[Stage, LayerContext]:
    rest = {name: fields.pop(name) for name in ("deadline", "queue") if name in fields}
    here = branch(clock, PolicySpec(cache=CacheSpec(enabled=True, **fields), **rest))
    return chain([trace, *outer, cache, *inner, route], here, executor), here


def answers(here: LayerContext) -> Answers:
    (found,) = here.resources.items("cache").values()
    assert isinstance(found, Answers)
    return found


@in_virtual_time
async def test_an_equal_request_is_answered_without_a_call(clock: VirtualClock) -> None:
    executor = Counting()
    stage, _ = made(clock, executor)
    first = await stage(ask("a"), context(clock))
    mine = context(clock)
    second = await stage(ask("b"), mine)
    assert executor.calls == 1
    assert clock.monotonic() == pytest.approx(1.0)
    assert (second.id, second.body, second.usage) == ("b", first.body, Usage(3, 4))
    assert (mine.record.cache, mine.record.cost, mine.record.attempts) == ("hit", 0.0, [])
    assert second.usage is not first.usage


@in_virtual_time
async def test_whoever_edits_an_answer_edits_only_their_own(clock: VirtualClock) -> None:
    stage, _ = made(clock, Counting())
    for _ in range(3):
        result = await stage(ask(), context(clock))
        assert result.body == {"number": 1, "list": [1]}
        assert result.usage == Usage(3, 4)
        result.body["list"].append(2)
        result.usage.input_tokens += 1


@in_virtual_time
async def test_the_order_of_fields_makes_no_difference_and_neither_does_who_asks(clock: VirtualClock) -> None:
    executor = Counting()
    stage, _ = made(clock, executor)
    await stage(Request("chat", {"messages": HELLO, "seed": 1, "user": "ann"}), context(clock))
    await stage(Request("chat", {"seed": 1, "messages": HELLO, "stream": False, "user": "bob"}), context(clock))
    assert executor.calls == 1


@pytest.mark.parametrize(
    "other",
    [
        ask(temperature=0, max_tokens=5),
        ask(messages=[{"role": "user", "content": "hello!"}]),
        ask(task="completion"),
        ask(model="another"),
    ],
    ids=["a parameter", "the prompt", "the task", "the model"],
)
def test_another_request_is_another_call(other: Request) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        executor = Counting()
        stage, _ = made(clock, executor)
        await stage(ask(), context(clock))
        await stage(other, context(clock))
        assert executor.calls == 2

    scenario()


@pytest.mark.parametrize(
    ("task", "body", "calls"),
    [
        ("chat", {"temperature": 0}, 1),
        ("chat", {"temperature": 0.0, "top_p": 0.5}, 1),
        ("chat", {"temperature": 0.7}, 2),
        ("chat", {}, 2),
        ("chat", {"temperature": None, "seed": None}, 2),
        ("chat", {"temperature": 0.7, "seed": 0}, 1),
        ("completion", {"temperature": 0.7, "seed": 7}, 1),
        ("embedding", {"input": "hello"}, 1),
    ],
)
def test_only_what_is_deterministic_is_kept(task: str, body: dict[str, Any], calls: int) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        executor = Counting()
        stage, _ = made(clock, executor)
        for _ in range(2):
            await stage(Request(task, dict(body)), context(clock))
        assert executor.calls == calls
        executor = Counting()
        stage, _ = made(clock, executor, only="all")
        for _ in range(2):
            await stage(Request(task, dict(body)), context(clock))
        assert executor.calls == 1

    scenario()


@in_virtual_time
async def test_the_models_own_parameters_count_where_the_request_says_nothing(clock: VirtualClock) -> None:
    here = branch(clock, PolicySpec(cache=CacheSpec(enabled=True)))
    model = here.target.model.model_copy(update={"parameters": {"temperature": 0}})
    here = LayerContext("t", here.target.model_copy(update={"model": model}), here.policy, here.resources)
    executor = Counting()
    stage = chain([cache], here, executor)
    for body in ({}, {}, {"temperature": 1}, {"temperature": 1}):
        await stage(Request("chat", dict(body)), context(clock))
    assert executor.calls == 3


@in_virtual_time
async def test_streams_pass_by(clock: VirtualClock) -> None:
    executor = Counting()
    stage, here = made(clock, executor)
    for _ in range(2):
        result = await stage(ask(), context(clock, stream=True))
        assert result.stream is not None
        assert [chunk.body async for chunk in result.stream] == [{"index": 0}]
    assert executor.calls == 2
    assert answers(here).gauges()["cache_entries"] == 0


@in_virtual_time
async def test_failures_are_not_kept(clock: VirtualClock) -> None:
    executor = Counting(1.0, ServerFailed("boom"))
    stage, _ = made(clock, executor)
    with pytest.raises(ServerFailed):
        await stage(ask(), context(clock))
    assert (await stage(ask(), context(clock))).body == {"number": 2, "list": [1]}


@in_virtual_time
async def test_a_body_that_is_no_json_goes_to_whoever_says_so(clock: VirtualClock) -> None:
    executor = Counting(1.0, InvalidRequest("no JSON"))
    stage, _ = made(clock, executor)
    with pytest.raises(InvalidRequest):
        await stage(ask(odd=object()), context(clock))


@in_virtual_time
async def test_an_answer_is_kept_no_longer_than_its_time(clock: VirtualClock) -> None:
    executor = Counting(0.0)
    stage, _ = made(clock, executor, ttl_s=10.0)
    await stage(ask(), context(clock))
    await asyncio.sleep(9.9)
    await stage(ask(), context(clock))
    assert executor.calls == 1
    await asyncio.sleep(0.1)
    await stage(ask(), context(clock))
    assert executor.calls == 2


@in_virtual_time
async def test_chains_over_other_targets_keep_their_answers_apart(clock: VirtualClock) -> None:
    one, two = Counting(), Counting()
    here = branch(clock, PolicySpec(cache=CacheSpec(enabled=True)))
    first, second = chain([cache], here, one), chain([cache], here, two)
    await first(ask(), context(clock))
    await second(ask(), context(clock))
    assert (one.calls, two.calls) == (1, 1)
    assert answers(here).gauges()["cache_entries"] == 2
    aimed = context(clock)
    aimed.order = (1,)
    await first(ask(), aimed)
    assert one.calls == 2


@in_virtual_time
async def test_warnings_come_with_the_answer(clock: VirtualClock) -> None:
    class Warns(Counting):
        async def __call__(self, request: Request, context: Context) -> Result:
            context.warn("the input was cut")
            return await super().__call__(request, context)

    stage, _ = made(clock, Warns())
    for _ in range(2):
        mine = context(clock)
        await stage(ask(), mine)
        assert mine.record.warnings == ["the input was cut"]


# -- single flight ------------------------------------------------------------------------------------------------


async def start(stage: Stage, clock: VirtualClock, *names: str, **fields: Any) -> list[tuple[Any, Context]]:
    """A task for each request, each of which has begun to wait."""
    begun = []
    for name in names:
        mine = context(clock)
        begun.append((asyncio.create_task(stage(ask(name, **fields), mine)), mine))
        await asyncio.sleep(0)
    return begun


@in_virtual_time
async def test_equal_requests_under_way_share_one_call(clock: VirtualClock) -> None:
    executor = Counting()
    stage, here = made(clock, executor)
    tasks = await start(stage, clock, "a", "b", "c")
    results = [await task for task, _ in tasks]
    assert executor.calls == 1
    assert [result.id for result in results] == ["a", "b", "c"]
    assert [mine.record.cache for _, mine in tasks] == [None, "shared", "shared"]
    assert [len(mine.record.attempts) for _, mine in tasks] == [1, 0, 0]
    assert [mine.record.cost for _, mine in tasks][1:] == [0.0, 0.0]
    results[0].body["list"].append(2)
    assert results[1].body == {"number": 1, "list": [1]}
    gauges = answers(here).gauges()
    assert (gauges["cache_misses_total"], gauges["cache_shared_total"], gauges["cache_under_way"]) == (1, 2, 0)


@in_virtual_time
async def test_without_single_flight_each_makes_its_own_call(clock: VirtualClock) -> None:
    executor = Counting()
    stage, _ = made(clock, executor, single_flight=False)
    for task, _ in await start(stage, clock, "a", "b"):
        await task
    assert executor.calls == 2


@in_virtual_time
async def test_a_failure_of_the_call_is_everybodys(clock: VirtualClock) -> None:
    executor = Counting(1.0, ServerFailed("boom", status=500))
    stage, here = made(clock, executor)
    outcomes = await asyncio.gather(
        *(task for task, _ in await start(stage, clock, "a", "b", "c")), return_exceptions=True
    )
    assert executor.calls == 1
    assert all(isinstance(outcome, ServerFailed) and outcome.status == 500 for outcome in outcomes)
    assert len({id(outcome) for outcome in outcomes}) == 3
    assert answers(here).gauges()["cache_under_way"] == 0
    await stage(ask(), context(clock))
    assert executor.calls == 2


@pytest.mark.parametrize("error", [QueueFull("no room"), DeadlineExceeded("late"), ZeroDivisionError("a defect")])
def test_what_is_the_leaders_own_is_not_the_others(error: Exception) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        executor = Counting(1.0, error)
        here = branch(clock, PolicySpec(cache=CacheSpec(enabled=True)))
        tasks = await start(chain([cache], here, executor), clock, "a", "b", "c")
        outcomes = await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
        assert outcomes[0] is error
        assert [outcome.body["number"] for outcome in outcomes[1:]] == [2, 2]  # type: ignore[union-attr]
        assert [mine.record.cache for _, mine in tasks] == [None, None, "shared"]
        assert executor.calls == 2

    scenario()


@in_virtual_time
async def test_a_leader_that_is_cancelled_leaves_the_call_to_the_next(clock: VirtualClock) -> None:
    executor = Counting()
    stage, _ = made(clock, executor)
    tasks = await start(stage, clock, "a", "b", "c")
    await asyncio.sleep(0.5)
    tasks[0][0].cancel()
    results = await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert [result.body["number"] for result in results[1:]] == [2, 2]  # type: ignore[union-attr]
    assert clock.monotonic() == pytest.approx(1.5)


@in_virtual_time
async def test_a_follower_that_is_cancelled_touches_nobody(clock: VirtualClock) -> None:
    executor = Counting()
    stage, here = made(clock, executor)
    tasks = await start(stage, clock, "a", "b", "c")
    tasks[1][0].cancel()
    results = await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["Result", "CancelledError", "Result"]
    assert executor.calls == 1
    assert answers(here).gauges()["cache_under_way"] == 0


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_a_follower_that_becomes_the_leader_as_it_is_cancelled_hands_on(names: str) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        stage, here = made(clock, Counting())
        tasks = await start(stage, clock, *names)
        tasks[0][0].cancel()
        await asyncio.sleep(0)  # the first one hands over; the second has not run yet
        tasks[1][0].cancel()
        results = await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["CancelledError", "CancelledError", "Result"][
            : len(names)
        ]
        assert answers(here).gauges()["cache_under_way"] == 0

    scenario()


@in_virtual_time
async def test_each_waits_no_longer_than_its_own_deadline(clock: VirtualClock) -> None:
    executor = Counting(10.0)
    stage, _ = made(clock, executor, outer=(deadline,), deadline=DeadlineSpec(starts="submit"))
    leader = asyncio.create_task(stage(ask("a"), context(clock)))
    await asyncio.sleep(0)
    hurried = ask("b")
    hurried.deadline_s = 3.0
    with pytest.raises(DeadlineExceeded):
        await stage(hurried, context(clock))
    assert clock.monotonic() == pytest.approx(3.0)
    await leader
    assert executor.calls == 1


@in_virtual_time
async def test_a_leaders_deadline_leaves_the_call_to_the_next(clock: VirtualClock) -> None:
    executor = Counting(10.0)
    stage, _ = made(clock, executor, outer=(deadline,), deadline=DeadlineSpec(starts="submit"))
    hurried = ask("a")
    hurried.deadline_s = 3.0
    leader = asyncio.create_task(stage(hurried, context(clock)))
    await asyncio.sleep(0)
    result = await stage(ask("b"), context(clock))
    assert result.body == {"number": 2, "list": [1]}
    with pytest.raises(DeadlineExceeded):
        await leader


@pytest.mark.parametrize("joins_after_s", [0.0, 2.5])
def test_a_deadline_from_the_first_attempt_starts_with_the_shared_one(joins_after_s: float) -> None:
    """The call waits 2 s in the queue; a follower has 3 s from there, or from when it comes later."""

    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        executor = Counting(10.0)
        stage, here = made(
            clock,
            executor,
            outer=(deadline,),
            inner=(queue,),
            deadline=DeadlineSpec(starts="first_attempt"),
            queue=QueueSpec(concurrency=1),
        )
        gate = here.resources.get(("queue", "t"), lambda: None)
        await gate.acquire(context(clock))  # type: ignore[attr-defined]
        asyncio.get_running_loop().call_later(2.0, gate.release)  # type: ignore[attr-defined]
        leader = asyncio.create_task(stage(ask("a"), context(clock)))
        await asyncio.sleep(joins_after_s)
        hurried = ask("b")
        hurried.deadline_s = 3.0
        with pytest.raises(DeadlineExceeded):
            await stage(hurried, context(clock))
        assert clock.monotonic() == pytest.approx(max(2.0, joins_after_s) + 3.0)
        assert (await leader).body == {"number": 1, "list": [1]}

    scenario()


@in_virtual_time
async def test_the_leaders_deadline_starts_with_its_own_attempt(clock: VirtualClock) -> None:
    stage, _ = made(clock, Counting(10.0), outer=(deadline,), deadline=DeadlineSpec(total_s=3.0))
    with pytest.raises(DeadlineExceeded):
        await stage(ask(), context(clock))
    assert clock.monotonic() == pytest.approx(3.0)


@in_virtual_time
async def test_one_who_left_before_the_attempt_began_does_not_disturb_it(clock: VirtualClock) -> None:
    stage, here = made(clock, Counting(), outer=(deadline,), inner=(queue,), deadline=DeadlineSpec(total_s=9.0))
    gate = here.resources.get(("queue", "t"), lambda: None)
    gate.concurrency = 0  # type: ignore[attr-defined]
    tasks = await start(stage, clock, "a", "b", "c")
    tasks[1][0].cancel()
    await asyncio.sleep(1.0)
    gate.concurrency = 1  # type: ignore[attr-defined]
    results = await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["Result", "CancelledError", "Result"]


@in_virtual_time
async def test_a_result_without_a_body_is_nobodys_answer(clock: VirtualClock) -> None:
    class Empty(Counting):
        async def __call__(self, request: Request, context: Context) -> Result:
            result = await super().__call__(request, context)
            return result if self.calls > 1 else Result(request.id or "")

    stage, _ = made(clock, Empty())
    results = [await task for task, _ in await start(stage, clock, "a", "b")]
    assert [result.body for result in results] == [None, {"number": 2, "list": [1]}]


@in_virtual_time
async def test_a_high_follower_shares_the_call_of_a_low_leader(clock: VirtualClock) -> None:
    executor = Counting()
    stage, _ = made(clock, executor)
    low = asyncio.create_task(stage(ask("a", priority="low"), context(clock, tier=2)))
    await asyncio.sleep(0)
    await stage(ask("b", priority="high"), context(clock, tier=0))
    await low
    assert executor.calls == 1


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 12), st.booleans()), min_size=1, max_size=6),
    st.lists(st.sampled_from(["ok", "server", "queue_full"]), max_size=4),
)
def test_cancelled_at_any_point_everybody_else_still_gets_an_answer(
    callers: list[tuple[int, int, bool]], outcomes: list[str]
) -> None:
    """Callers come after so many turns of the loop, and some leave after so many."""

    async def scenario(clock: VirtualClock) -> None:
        class Turns:
            calls = active = 0

            async def __call__(self, request: Request, context: Context) -> Result:
                outcome = outcomes[self.calls] if self.calls < len(outcomes) else "ok"
                self.calls += 1
                self.active += 1
                try:
                    for _ in range(3):
                        await asyncio.sleep(0)
                finally:
                    self.active -= 1
                if outcome != "ok":
                    raise ServerFailed("boom") if outcome == "server" else QueueFull("no room")
                return Result(request.id or "", {"number": self.calls})

        executor = Turns()
        stage, here = made(clock, executor)

        async def caller(comes: int, leaves: int, stays: bool) -> object:
            for _ in range(comes):
                await asyncio.sleep(0)
            task = asyncio.create_task(stage(ask(), context(clock)))
            if not stays:
                for _ in range(leaves):
                    await asyncio.sleep(0)
                task.cancel()
            return await task

        got = await asyncio.gather(*(caller(*each) for each in callers), return_exceptions=True)
        for (_, _, stays), outcome in zip(callers, got, strict=True):
            assert isinstance(outcome, Result | InferenceError) or (
                not stays and isinstance(outcome, asyncio.CancelledError)
            )
        assert executor.active == 0
        assert answers(here).gauges()["cache_under_way"] == 0
        assert len(asyncio.all_tasks()) == 1

    run(scenario)


# -- what is kept -------------------------------------------------------------------------------------------------


class AgainstANaiveCache(RuleBasedStateMachine):
    """The answers against a plain dict that is searched and summed from scratch each time."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.clock = VirtualClock(self.loop)
        self.spec = CacheSpec(enabled=True, max_entries=4, max_bytes=60, ttl_s=10.0)
        self.answers = Answers(self.spec, self.clock)
        self.model: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()

    @rule(key=st.integers(0, 6), size=st.integers(2, 70))
    def put(self, key: int, size: int) -> None:
        content = msgspec.json.encode("x" * (size - 2))
        name = bytes([key])
        self.answers.put(name, Answer(content, None, ()))
        self.model.pop(name, None)
        if size <= 60:
            self.model[name] = (content, self.clock.monotonic() + 10.0)
        while len(self.model) > 4 or sum(len(kept) for kept, _ in self.model.values()) > 60:
            self.model.popitem(last=False)

    @rule(key=st.integers(0, 6))
    def get(self, key: int) -> None:
        name = bytes([key])
        found = self.answers.get(name)
        kept = self.model.get(name)
        if kept is None or self.clock.monotonic() >= kept[1]:
            self.model.pop(name, None)
            assert found is None
        else:
            self.model.move_to_end(name)
            assert found is not None
            assert found.content == kept[0]

    @precondition(lambda self: self.model)
    @rule(seconds=st.sampled_from([0.5, 3.0, 9.9]))
    def pass_time(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @invariant()
    def counts_are_exact(self) -> None:
        gauges = self.answers.gauges()
        assert gauges["cache_entries"] == len(self.model) <= 4
        assert gauges["cache_bytes"] == sum(len(kept) for kept, _ in self.model.values()) <= 60

    def teardown(self) -> None:
        self.loop.close()


AgainstANaiveCache.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAgainstANaiveCache = pytest.mark.slow(AgainstANaiveCache.TestCase)


@in_virtual_time
async def test_off_there_is_no_such_stage(clock: VirtualClock) -> None:
    assert cache.layer(branch(clock, PolicySpec())) is None
    layer = cache.layer(branch(clock, PolicySpec(cache=CacheSpec(enabled=True, max_entries=5, max_bytes=1000))))
    assert layer is not None
    assert layer.settings == "deterministic ≤5 answers ≤1000 bytes for 3600 s, equal requests share a call"


@in_virtual_time
async def test_what_it_did_is_counted(clock: VirtualClock) -> None:
    stage, here = made(clock, Counting(), max_entries=2)
    for seed in (1, 2, 1, 3, 2, 2):  # 2 is the one unused for the longest time when 3 comes
        await stage(ask(seed=seed), context(clock))
    await asyncio.gather(*(stage(ask(seed=4), context(clock)) for _ in range(3)))
    gauges = answers(here).gauges()
    assert {name: value for name, value in gauges.items() if name != "cache_bytes"} == {
        "cache_entries": 2,
        "cache_under_way": 0,
        "cache_hits_total": 2,
        "cache_misses_total": 5,
        "cache_shared_total": 2,
        "cache_evicted_total": 3,
    }
    assert gauges["cache_bytes"] > 0


@in_virtual_time
async def test_without_single_flight_answers_are_kept_and_counted_too(clock: VirtualClock) -> None:
    executor = Counting()
    stage, here = made(clock, executor, single_flight=False)
    for _ in range(3):
        await stage(ask(), context(clock))
    assert executor.calls == 1
    gauges = answers(here).gauges()
    assert (gauges["cache_hits_total"], gauges["cache_misses_total"]) == (2, 1)


@in_virtual_time
async def test_how_a_stream_would_be_sent_makes_no_difference(clock: VirtualClock) -> None:
    executor = Counting()
    stage, _ = made(clock, executor)
    await stage(ask(), context(clock))
    await stage(ask(stream_options={"include_usage": True}), context(clock))
    assert executor.calls == 1


@in_virtual_time
async def test_a_shared_failure_says_that_it_was_shared_and_cost_nothing(clock: VirtualClock) -> None:
    stage, _ = made(clock, Counting(1.0, ServerFailed("boom")))
    contexts = [context(clock) for _ in range(2)]
    await asyncio.gather(*(stage(ask(), each) for each in contexts), return_exceptions=True)
    assert [(each.record.cache, each.record.cost) for each in contexts] == [(None, None), ("shared", 0.0)]


@in_virtual_time
async def test_a_leader_whose_call_was_stopped_leaves_it_to_the_next(clock: VirtualClock) -> None:
    executor = Counting(1.0, Cancelled("the batch was stopped"))
    stage, _ = made(clock, executor)
    outcomes = await asyncio.gather(*(stage(ask(), context(clock)) for _ in range(2)), return_exceptions=True)
    assert isinstance(outcomes[0], Cancelled)
    assert isinstance(outcomes[1], Result)
    assert executor.calls == 2


@in_virtual_time
async def test_the_models_own_seed_makes_a_request_deterministic(clock: VirtualClock) -> None:
    executor = Counting()
    here = branch(clock, PolicySpec(cache=CacheSpec(enabled=True)), model=ModelSpec(name="m", parameters={"seed": 7}))
    stage = chain([cache], here, executor)
    for _ in range(2):
        await stage(Request("chat", {"messages": HELLO}), context(clock))
    assert executor.calls == 1
