"""Batches: what travels together, who gets which part, and what one bad row does."""

import asyncio
from collections.abc import Callable
from copy import copy
from typing import Any

import pytest

from engine import Request
from engine.core.errors import (
    FAILURES,
    Cancelled,
    InferenceError,
    Internal,
    InvalidRequest,
    Malformed,
    ServerFailed,
)
from engine.core.request import Attempt, Context, RateHints, Result
from engine.core.server_info import ServerInfo
from engine.core.usage import Usage
from engine.core.virtual_time import VirtualClock
from engine.middleware import batch, retry, route
from engine.schemas.policy import BatchSpec, PolicySpec, RetrySpec, RouteSpec
from engine.schemas.provider import RemoteProviderSpec
from tests.middleware.chain import branch, chain, context, in_virtual_time


class Embedder:
    """Embeds a text as [its length]; refuses the texts that it is told to refuse."""

    def __init__(self, refuse: str = "", error: InferenceError | None = None, seconds: float = 1.0) -> None:
        self.refuse = refuse
        self.error = error
        self.seconds = seconds
        self.calls: list[list[str]] = []

    async def __call__(self, request: Request, context: Context) -> Result:
        texts = request.body["input"]
        texts = texts if isinstance(texts, list) else [texts]
        self.calls.append(texts)
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise copy(self.error)
        if self.refuse and self.refuse in texts:
            raise InvalidRequest(f"can't embed {self.refuse!r}")
        data = [{"object": "embedding", "index": n, "embedding": [float(len(text))]} for n, text in enumerate(texts)]
        body = {"object": "list", "model": "m", "data": data[::-1], "usage": {"prompt_tokens": len(texts)}}
        return Result(request.id or "", body, usage=Usage(input_tokens=len(texts)))


def embed(text: str | list[str], **fields: Any) -> Request:
    return Request("embedding", {"input": text, **fields})


def stage_of(clock: VirtualClock, executor: Embedder, **fields: Any) -> Any:
    return chain([route, batch], branch(clock, PolicySpec(batch=BatchSpec(**fields))), executor)


@in_virtual_time
async def test_requests_travel_together_and_each_gets_its_own_part(clock: VirtualClock) -> None:
    executor = Embedder()
    stage = stage_of(clock, executor, max_size=4, max_wait_s=0.01)
    texts: list[str | list[str]] = ["a", "bb", ["ccc", "dddd"], "eeeee"]
    results = await asyncio.gather(*(stage(embed(text), context(clock)) for text in texts))
    assert executor.calls == [["a", "bb", "ccc", "dddd", "eeeee"]]
    vectors = [[item["embedding"][0] for item in result.body["data"]] for result in results]
    assert vectors == [[1.0], [2.0], [3.0, 4.0], [5.0]]
    assert [[item["index"] for item in result.body["data"]] for result in results] == [[0], [0], [0, 1], [0]]
    assert sum(result.usage.input_tokens for result in results) == 5


@in_virtual_time
async def test_a_lonely_request_waits_no_longer_than_max_wait(clock: VirtualClock) -> None:
    stage = stage_of(clock, Embedder(seconds=0.0), max_wait_s=0.05)
    await stage(embed("a"), context(clock))
    assert clock.monotonic() == pytest.approx(0.05)


@in_virtual_time
async def test_what_arrives_during_the_calls_makes_the_next_batch_larger(clock: VirtualClock) -> None:
    executor = Embedder()
    stage = stage_of(clock, executor, max_size=8, max_wait_s=0.0, max_calls=1)
    tasks = [asyncio.create_task(stage(embed("first"), context(clock)))]
    await asyncio.sleep(0.5)
    tasks += [asyncio.create_task(stage(embed(f"t{n}"), context(clock))) for n in range(8)]
    await asyncio.gather(*tasks)
    assert [len(call) for call in executor.calls] == [1, 8]


@in_virtual_time
async def test_different_parameters_never_share_a_call(clock: VirtualClock) -> None:
    executor = Embedder()
    stage = stage_of(clock, executor, max_wait_s=0.01)
    requests = [embed("a", dimensions=8), embed("b", dimensions=16), embed("c", dimensions=8)]
    await asyncio.gather(*(stage(request, context(clock)) for request in requests))
    assert sorted(executor.calls) == [["a", "c"], ["b"]]


@in_virtual_time
async def test_a_bad_row_fails_alone(clock: VirtualClock) -> None:
    executor = Embedder(refuse="bad")
    stage = stage_of(clock, executor, max_size=8, max_wait_s=0.01)
    texts = ["a", "b", "c", "bad", "d", "e", "f", "g"]
    outcomes = await asyncio.gather(*(stage(embed(text), context(clock)) for text in texts), return_exceptions=True)
    failed = [text for text, outcome in zip(texts, outcomes, strict=True) if isinstance(outcome, InvalidRequest)]
    assert failed == ["bad"]
    assert sum(isinstance(outcome, Result) for outcome in outcomes) == 7


@in_virtual_time
async def test_a_failure_of_the_endpoint_is_not_split(clock: VirtualClock) -> None:
    executor = Embedder(error=ServerFailed("down"))
    stage = stage_of(clock, executor, max_size=8, max_wait_s=0.01)
    outcomes = await asyncio.gather(*(stage(embed(f"t{n}"), context(clock)) for n in range(8)), return_exceptions=True)
    assert all(isinstance(outcome, ServerFailed) for outcome in outcomes)
    assert len(executor.calls) == 1


class BreaksOn(Embedder):
    """Fails a whole call as broken where one text makes the model fail, as servers of models do."""

    async def __call__(self, request: Request, context: Context) -> Result:
        result = await super().__call__(request, context)
        if "bad" in request.body["input"]:
            raise ServerFailed("the model failed", status=500)
        return result


async def check_bad_row(clock: VirtualClock, retries: int) -> None:
    executor = BreaksOn()
    policy = PolicySpec(batch=BatchSpec(max_size=8, max_wait_s=0.01), retry=RetrySpec(max_retries=retries))
    stage = chain([retry, route, batch], branch(clock, policy), executor)
    texts = [f"t{n}" for n in range(7)] + ["bad"]
    outcomes = await asyncio.gather(*(stage(embed(text), context(clock)) for text in texts), return_exceptions=True)
    assert [isinstance(outcome, Result) for outcome in outcomes] == [True] * 7 + [False]
    assert isinstance(outcomes[-1], ServerFailed)
    assert len(executor.calls) <= 7 + 8 * retries


@in_virtual_time
async def test_a_row_that_breaks_the_model_fails_alone(clock: VirtualClock) -> None:
    await check_bad_row(clock, retries=0)


@in_virtual_time
async def test_a_row_that_breaks_the_model_fails_alone_after_its_last_try(clock: VirtualClock) -> None:
    await check_bad_row(clock, retries=2)


@in_virtual_time
async def test_one_callers_cancellation_leaves_the_others_alone(clock: VirtualClock) -> None:
    stage = stage_of(clock, Embedder(), max_size=3, max_wait_s=0.01)
    tasks = [asyncio.create_task(stage(embed(f"t{n}"), context(clock))) for n in range(3)]
    await asyncio.sleep(0.5)
    tasks[1].cancel()
    await asyncio.wait(tasks)
    assert tasks[1].cancelled()
    assert tasks[0].result().ok
    assert tasks[2].result().ok


@in_virtual_time
async def test_a_call_that_nobody_waits_for_is_stopped(clock: VirtualClock) -> None:
    stage = stage_of(clock, Embedder(seconds=1000.0), max_size=2, max_wait_s=0.01)
    tasks = [asyncio.create_task(stage(embed(f"t{n}"), context(clock))) for n in range(2)]
    await asyncio.sleep(0.5)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await asyncio.sleep(1.0)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


# -- what goes as it is -----------------------------------------------------------------------------------------------


class Seen:
    """Answers with one vector an input, at once; keeps the requests that came and whether each was a member's own."""

    def __init__(self, hints: Callable[[], RateHints] | None = None, **reply: Any) -> None:
        self.hints = hints
        self.requests: list[Request] = []
        self.contexts: list[Context] = []
        self.reply = reply
        self.seconds = 0.0
        self.active = self.peak = 0

    async def __call__(self, request: Request, context: Context) -> Result:
        self.requests.append(request)
        self.contexts.append(context)
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.active -= 1
        texts = request.body.get("input")
        count = len(texts) if isinstance(texts, list) else 1
        if context.attempt is not None:
            context.attempt.status, context.attempt.provider_request_id = 200, "req-1"
            context.attempt.sent, context.attempt.hints = True, self.hints
        data = [{"index": number, "embedding": [float(number)]} for number in range(count)]
        fields = {"usage": Usage(input_tokens=count), **self.reply}
        return Result(request.id or "", {"model": "m", "data": data}, **fields)


@pytest.mark.parametrize("given", [[], [1, 2, 3], [[1], [2]], ["a", ""], "", None, ["a", 5]])
def test_token_lists_and_mistakes_go_as_they_are(given: Any) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        executor = Seen()
        stage = chain([route, batch], branch(clock, PolicySpec()), executor)
        asked = Request("embedding", {"input": given})
        await stage(asked, context(clock))
        assert executor.requests == [asked]
        assert clock.monotonic() == 0.0  # nobody waited for company

    scenario()


@in_virtual_time
async def test_chats_and_streams_go_as_they_are(clock: VirtualClock) -> None:
    executor = Seen()
    stage = chain([route, batch], branch(clock, PolicySpec()), executor)
    await stage(Request("chat", {"input": "a"}), context(clock))
    await stage(embed("a"), context(clock, stream=True))
    assert len(executor.requests) == 2
    assert clock.monotonic() == 0.0


@in_virtual_time
async def test_one_alone_goes_with_its_own_request_and_record(clock: VirtualClock) -> None:
    executor = Seen()
    stage = chain([route, batch], branch(clock, PolicySpec()), executor)
    asked, mine = Request("embedding", {"input": "a"}, id="mine"), context(clock)
    result = await stage(asked, mine)
    assert executor.requests == [asked]
    assert executor.contexts == [mine]
    assert result.id == "mine"
    assert mine.record.attempts[0].status == 200


# -- when calls begin -------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_full_batch_goes_at_once_and_the_rest_waits_its_own_time(clock: VirtualClock) -> None:
    executor = Embedder(seconds=0.0)
    stage = stage_of(clock, executor, max_size=2, max_wait_s=1.0)
    tasks = [asyncio.create_task(stage(embed(f"t{n}"), context(clock))) for n in range(3)]
    await asyncio.sleep(0.5)
    assert executor.calls == [["t0", "t1"]]
    tasks += [asyncio.create_task(stage(embed("late"), context(clock)))]
    await asyncio.gather(*tasks)
    assert executor.calls == [["t0", "t1"], ["t2", "late"]]
    assert clock.monotonic() == pytest.approx(0.5)


@in_virtual_time
async def test_who_comes_later_does_not_put_off_the_first_one(clock: VirtualClock) -> None:
    executor = Embedder(seconds=0.0)
    stage = stage_of(clock, executor, max_size=8, max_wait_s=1.0)
    tasks = []
    for number in range(4):
        tasks.append(asyncio.create_task(stage(embed(f"t{number}"), context(clock))))
        await asyncio.sleep(0.3)
    await asyncio.gather(*tasks)
    assert executor.calls == [["t0", "t1", "t2", "t3"]]
    assert clock.monotonic() == pytest.approx(1.2)


@in_virtual_time
async def test_no_more_calls_than_allowed_are_in_flight(clock: VirtualClock) -> None:
    executor = Seen()
    executor.seconds = 1.0
    spec = BatchSpec(max_size=2, max_wait_s=0.0, max_calls=3)
    stage = chain([route, batch], branch(clock, PolicySpec(batch=spec)), executor)
    await asyncio.gather(*(stage(embed(f"t{n}"), context(clock)) for n in range(12)))
    assert executor.peak == 3
    assert clock.monotonic() == pytest.approx(2.0)


@in_virtual_time
async def test_after_a_call_has_ended_the_next_ones_wait_for_company_again(clock: VirtualClock) -> None:
    executor = Embedder(seconds=1.0)
    stage = stage_of(clock, executor, max_size=8, max_wait_s=0.5, max_calls=1)
    for _ in range(2):
        began = clock.monotonic()
        await stage(embed("a"), context(clock))
        assert clock.monotonic() - began == pytest.approx(1.5)


@in_virtual_time
async def test_who_leaves_before_the_call_is_not_in_it(clock: VirtualClock) -> None:
    executor = Embedder(seconds=0.0)
    stage = stage_of(clock, executor, max_size=8, max_wait_s=1.0)
    tasks = [asyncio.create_task(stage(embed(f"t{n}"), context(clock))) for n in range(3)]
    await asyncio.sleep(0.5)
    tasks[1].cancel()
    await asyncio.wait(tasks)
    assert executor.calls == [["t0", "t2"]]


@in_virtual_time
async def test_who_has_left_does_not_fill_a_batch(clock: VirtualClock) -> None:
    executor = Embedder(seconds=0.0)
    stage = stage_of(clock, executor, max_size=2, max_wait_s=1.0)
    left = asyncio.create_task(stage(embed("left"), context(clock)))
    await asyncio.sleep(0.2)
    left.cancel()
    await asyncio.wait([left])
    await stage(embed("alone"), context(clock))
    assert executor.calls == [["alone"]]
    assert clock.monotonic() >= 1.0


@in_virtual_time
async def test_a_batch_that_was_full_leaves_the_next_one_its_whole_time(clock: VirtualClock) -> None:
    stage = stage_of(clock, Embedder(seconds=5.0), max_size=2, max_wait_s=1.0)
    tasks = [asyncio.create_task(stage(embed(f"t{n}"), context(clock))) for n in range(2)]
    await asyncio.sleep(0.5)
    await stage(embed("later"), context(clock))
    assert clock.monotonic() == pytest.approx(0.5 + 1.0 + 5.0)
    await asyncio.gather(*tasks)


@in_virtual_time
async def test_whose_time_came_while_no_call_was_free_goes_when_one_is(clock: VirtualClock) -> None:
    executor = Embedder(seconds=5.0)
    stage = stage_of(clock, executor, max_size=8, max_wait_s=0.5, max_calls=1)
    first = asyncio.create_task(stage(embed("first"), context(clock)))
    await asyncio.sleep(1.0)
    await stage(embed("second"), context(clock))
    assert clock.monotonic() <= 0.5 + 5.0 + 0.5 + 5.0 + 1e-6
    await first


@in_virtual_time
async def test_kinds_of_requests_that_are_over_take_no_room(clock: VirtualClock) -> None:
    stage: Any = chain([batch], branch(clock, PolicySpec(batch=BatchSpec(max_wait_s=0.1))), Seen())
    for dimensions in range(1, 20):
        await asyncio.gather(*(stage(embed(text, dimensions=dimensions), context(clock)) for text in ("a", "b")))
    left = asyncio.create_task(stage(embed("left"), context(clock)))
    await asyncio.sleep(0.05)
    left.cancel()
    await asyncio.sleep(1.0)
    assert stage._lanes == {}


@in_virtual_time
async def test_a_call_that_is_stopped_from_outside_tells_its_members(clock: VirtualClock) -> None:
    stage = stage_of(clock, Embedder(seconds=100.0), max_size=2, max_wait_s=0.01)
    tasks = [asyncio.create_task(stage(embed(f"t{n}"), context(clock))) for n in range(2)]
    await asyncio.sleep(1.0)
    (call,) = asyncio.all_tasks() - {*tasks, asyncio.current_task()}
    call.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["the batch was stopped"] * 2
    assert all(isinstance(outcome, Cancelled) for outcome in outcomes)


@in_virtual_time
async def test_keys_never_share_a_call(clock: VirtualClock) -> None:
    executor = Embedder(seconds=0.0)
    here = branch(clock, PolicySpec(batch=BatchSpec(max_wait_s=1.0)), keys=("A", "B"))
    stage = chain([route, batch], here, executor)
    await asyncio.gather(*(stage(embed(f"t{n}"), context(clock)) for n in range(4)))
    assert sorted(executor.calls) == [["t0", "t2"], ["t1", "t3"]]


@in_virtual_time
async def test_a_call_goes_out_with_the_key_and_to_the_endpoint_that_were_chosen(clock: VirtualClock) -> None:
    provider = RemoteProviderSpec(kind="remote", name="p", base_url="http://a", endpoints=("http://b",))
    policy = PolicySpec(batch=BatchSpec(max_wait_s=1.0), route=RouteSpec(endpoints="round_robin"))
    said = RateHints(requests=(60.0, 5.0, 55.0))
    executor = Seen(hints=lambda: said)
    here = branch(clock, policy, keys=("A", "B", "C"), provider=provider)
    contexts = [context(clock) for _ in range(12)]
    stage = chain([route, batch], here, executor)
    await asyncio.gather(*(stage(embed(f"t{n}"), mine) for n, mine in enumerate(contexts)))
    used = [each.attempt for each in executor.contexts]
    assert sorted((each.target, each.key, each.place) for each in used if each) == [
        ("t", key, place) for key in "ABC" for place in (0, 1)
    ]
    for mine in contexts:
        assert mine.attempt is not None
        assert mine.attempt.hints is executor.hints
        assert mine.attempt.sent


@in_virtual_time
async def test_the_order_of_the_fields_does_not_keep_requests_apart(clock: VirtualClock) -> None:
    executor = Embedder(seconds=0.0)
    stage = stage_of(clock, executor, max_wait_s=1.0)
    one = Request("embedding", {"input": "a", "user": "u", "dimensions": 8})
    other = Request("embedding", {"dimensions": 8, "input": "b", "user": "u"})
    await asyncio.gather(stage(one, context(clock)), stage(other, context(clock)))
    assert executor.calls == [["a", "b"]]


# -- who gets what ----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_tokens_are_shared_by_length_and_add_up(clock: VirtualClock) -> None:
    executor = Seen(usage=Usage(input_tokens=10))
    spec = BatchSpec(max_wait_s=0.1)
    stage = chain([route, batch], branch(clock, PolicySpec(batch=spec)), executor)
    results = await asyncio.gather(*(stage(embed(text), context(clock)) for text in ("a", "bb", ["c", "dd"], "eee")))
    shares = [result.usage.input_tokens for result in results]
    assert shares == [1, 2, 3, 4]
    for result, share in zip(results, shares, strict=True):
        assert result.body["usage"] == {"prompt_tokens": share, "total_tokens": share}
        assert result.body["model"] == "m"


@in_virtual_time
async def test_without_a_count_nobody_knows_what_was_used(clock: VirtualClock) -> None:
    stage = chain([route, batch], branch(clock, PolicySpec(batch=BatchSpec(max_wait_s=0.1))), Seen(usage=None))
    results = await asyncio.gather(*(stage(embed(text), context(clock)) for text in ("a", "b")))
    assert [result.usage for result in results] == [None, None]


@in_virtual_time
async def test_what_the_provider_says_of_the_cost_is_shared_like_the_tokens(clock: VirtualClock) -> None:
    executor = Seen(usage=Usage(input_tokens=10, cost=0.5))
    stage = chain([route, batch], branch(clock, PolicySpec(batch=BatchSpec(max_wait_s=0.1))), executor)
    contexts = [context(clock), context(clock)]
    await asyncio.gather(stage(embed("a"), contexts[0]), stage(embed("bbbb"), contexts[1]))
    assert [mine.record.attempts[0].cost for mine in contexts] == [0.1, 0.4]


@in_virtual_time
async def test_each_members_record_says_what_the_provider_said(clock: VirtualClock) -> None:
    executor = Seen()
    stage = chain([route, batch], branch(clock, PolicySpec(batch=BatchSpec(max_wait_s=0.1))), executor)
    contexts = [context(clock), context(clock)]
    asked = [Request("embedding", {"input": "a"}, id=name) for name in ("r0", "r1")]
    results = await asyncio.gather(*(stage(*each) for each in zip(asked, contexts, strict=True)))
    assert [result.id for result in results] == ["r0", "r1"]
    assert [request.id for request in executor.requests] == ["r0"]
    for each in contexts:
        (attempt,) = each.record.attempts
        assert (attempt.status, attempt.provider_request_id, attempt.outcome) == (200, "req-1", "ok")


@in_virtual_time
async def test_without_a_record_there_is_a_batch_too(clock: VirtualClock) -> None:
    executor = Seen()
    stage = chain([batch], branch(clock, PolicySpec(batch=BatchSpec(max_wait_s=0.1))), executor)
    results = await asyncio.gather(*(stage(embed(text), context(clock)) for text in ("a", "b")))
    assert [len(result.body["data"]) for result in results] == [1, 1]
    (used,) = executor.contexts
    assert used.attempt == used.record.attempts[0] == Attempt("", status=200, provider_request_id="req-1", sent=True)


# -- when calls fail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(FAILURES))
def test_only_what_one_row_can_cause_splits_a_call(kind: str) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        executor = Embedder(error=FAILURES[kind]("no"))
        stage = stage_of(clock, executor, max_size=8, max_wait_s=0.01)
        tasks = (asyncio.create_task(stage(embed(f"t{n}"), context(clock))) for n in range(4))
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, FAILURES[kind]) for outcome in outcomes)
        assert len({id(outcome) for outcome in outcomes}) == 4  # what a stage notes in one is none of another's
        splits = {"invalid_request", "too_long", "content_filtered", "malformed", "internal"}
        assert [len(call) for call in executor.calls] == ([4, 2, 1, 1, 2, 1, 1] if kind in splits else [4])

    if kind != "circuit_open":  # which is raised before the batch
        scenario()


class Short:
    """Gives one vector too few, for a call of more than one; or none at all."""

    def __init__(self, data: Any = None) -> None:
        self.data = data
        self.calls = 0

    async def __call__(self, request: Request, context: Context) -> Result:
        self.calls += 1
        texts = request.body["input"]
        if isinstance(texts, list) and len(texts) > 1:
            return Result("", {"data": self.data})
        return Result("", {"data": [{"index": 0, "embedding": []}]})


@pytest.mark.parametrize("data", [None, [], [{"index": 0}], "x"])
def test_a_reply_with_too_few_vectors_is_asked_for_one_by_one(data: Any) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        executor = Short(data)
        stage = chain([route, batch], branch(clock, PolicySpec(batch=BatchSpec(max_wait_s=0.01))), executor)
        results = await asyncio.gather(*(stage(embed(text), context(clock)) for text in ("a", "b")))
        assert all(result.ok for result in results)
        assert executor.calls == 3

    scenario()


@in_virtual_time
async def test_a_row_whose_own_vectors_are_missing_is_malformed(clock: VirtualClock) -> None:
    stage = chain([route, batch], branch(clock, PolicySpec(batch=BatchSpec(max_wait_s=0.01))), Short([]))
    outcomes = await asyncio.gather(
        stage(embed("a"), context(clock)), stage(embed(["b", "c"]), context(clock)), return_exceptions=True
    )
    assert isinstance(outcomes[0], Result)


@in_virtual_time
async def test_a_reply_that_counts_wrong_says_how_many_were_expected(clock: VirtualClock) -> None:
    for data, found in ((None, "none"), ([{"index": 0}], "1")):
        said: list[str] = []

        async def executor(asked: Request, mine: Context, data: Any = data, said: list[str] = said) -> Result:
            return Result("", {"data": data})

        stage = batch.Batch(executor, BatchSpec(), ServerInfo())
        members = [batch._Member(embed(text), context(clock), [text]) for text in ("a", "b", "c")]
        with pytest.raises(Malformed, match=f"^expected 3 embeddings, got {found}$"):
            stage._distribute(members, await executor(embed("a"), context(clock)))


@in_virtual_time
async def test_a_defect_fails_every_member_of_the_call(clock: VirtualClock) -> None:
    async def broken(asked: Request, mine: Context) -> Result:
        raise ZeroDivisionError("a defect")

    stage = chain([batch], branch(clock, PolicySpec(batch=BatchSpec(max_wait_s=0.01))), broken)
    outcomes = await asyncio.gather(
        *(stage(embed(text), context(clock)) for text in ("a", "b")), return_exceptions=True
    )
    assert [str(outcome) for outcome in outcomes] == ["batch: ZeroDivisionError: a defect"] * 2
    assert all(isinstance(outcome, Internal) for outcome in outcomes)


@in_virtual_time
async def test_members_that_left_during_a_failing_call_are_not_asked_for_again(clock: VirtualClock) -> None:
    executor = Embedder(error=InvalidRequest("no"), seconds=1.0)
    stage = stage_of(clock, executor, max_size=4, max_wait_s=0.01)
    tasks = [asyncio.create_task(stage(embed(f"t{n}"), context(clock))) for n in range(4)]
    await asyncio.sleep(0.5)
    for number in (0, 1, 2):
        tasks[number].cancel()
    await asyncio.wait(tasks)
    assert [len(call) for call in executor.calls] == [4, 1]


@in_virtual_time
async def test_the_layer_says_its_settings_and_is_not_there_when_off(clock: VirtualClock) -> None:
    def settings_of(**fields: Any) -> str | None:
        layer = batch.layer(branch(clock, PolicySpec(batch=BatchSpec(**fields))))
        return layer.settings if layer else None

    assert settings_of() == "embeddings: ≤32 requests, ≤5 ms, ≤2 calls at once"
    assert settings_of(max_size=1) is None
    assert settings_of(enabled=False) is None
    assert settings_of(max_size=2) is not None
