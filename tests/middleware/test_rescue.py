"""Rescue: who is asked for the rest of a broken stream, how often, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from engine import Request
from engine.core.errors import (
    ContentFiltered,
    InferenceError,
    InvalidRequest,
    ServerFailed,
    Throttled,
    Truncated,
)
from engine.core.pipeline import Layer, compose
from engine.core.request import Context, Result
from engine.core.stream import Chunk, ChunkStream
from engine.core.usage import Usage
from engine.core.virtual_time import VirtualClock
from engine.middleware import parameters, rescue, retry, route
from engine.middleware.fallback import Fallback
from engine.middleware.rescue import Rescue
from engine.schemas.policy import PolicySpec, RetrySpec, StreamSpec
from engine.schemas.provider import RemoteProviderSpec
from tests.middleware.chain import branch, context, in_virtual_time

ANSWER = "The quick brown fox jumps over the lazy dog."
WORDS = [f"{word} " for word in ANSWER.split(" ")[:-1]] + ["dog."]


def said(text: str | None = None, finish: str | None = None, **delta: Any) -> Chunk:
    delta = delta if text is None else {"content": text, **delta}
    return Chunk({"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


class Speaker:
    """A provider that streams an answer, a word a second. Each call takes the next step: how many words come before
    it breaks with an error (None: it comes to its end), or an error at once. The last one repeats."""

    def __init__(
        self, *steps: int | InferenceError | None, words: list[str] | None = None, breaks: InferenceError | None = None
    ) -> None:
        self.steps = list(steps)
        self.words = words or WORDS
        self.breaks = breaks or Truncated("cut")
        self.bodies: list[dict[str, Any]] = []
        self.closed = 0

    async def __call__(self, request: Request, context: Context) -> Result:
        step = self.steps[min(len(self.bodies), len(self.steps) - 1)]
        self.bodies.append(request.body)
        if isinstance(step, InferenceError):
            raise step
        if not context.stream:
            return Result("r", {"whole": True})
        return Result("r", stream=ChunkStream(self._chunks(request, step)))

    async def _chunks(self, request: Request, words: int | None) -> AsyncIterator[Chunk]:
        last = request.body["messages"][-1]
        begun = last["content"] if last["role"] == "assistant" else ""
        rest = self.words[len(begun.split()) :] if begun else self.words
        try:
            yield said("", role="assistant")
            for word in rest[:words]:
                await asyncio.sleep(1.0)
                yield said(word)
            if words is not None:
                raise self.breaks
            yield said(finish="stop")
            yield Chunk({"id": "x", "choices": [], "usage": {}}, Usage(3, len(rest)))
        finally:
            self.closed += 1


class Run:
    """One stream over some speakers; the primary's target is t0."""

    def __init__(
        self,
        clock: VirtualClock,
        *speakers: Speaker,
        prefill: str = "none",
        retries: int = 0,
        retried: bool = True,
        **stream: Any,
    ) -> None:
        retry_spec = RetrySpec(enabled=retried, max_retries=retries, initial_delay_s=0.0)
        policy = PolicySpec(stream=StreamSpec(**stream), retry=retry_spec)
        provider = RemoteProviderSpec(kind="remote", name="p", base_url="http://a", prefill=prefill)  # type: ignore[arg-type]
        branches = []
        self.names = [f"t{index}" for index in range(len(speakers))]
        for name, speaker in zip(self.names, speakers, strict=True):
            here = replace(branch(clock, policy, provider=provider), name=name)
            layers = [module.layer(here) for module in (retry, route, parameters)]
            branches.append(compose([layer for layer in layers if layer is not None], speaker))
        under = Fallback(branches, self.names, [None] * len(branches), policy, clock)
        layer = rescue.layer(branch(clock, policy))
        self.stage = compose([layer], under) if layer is not None else under
        self.context = context(clock, stream=True)
        self.chunks: list[Chunk] = []

    async def read(self, **body: Any) -> Run:
        asked = Request("chat", {"messages": [{"role": "user", "content": "?"}], **body})
        result = await self.stage(asked, self.context)
        assert result.stream is not None
        async for chunk in result.stream:
            self.chunks.append(chunk)
        return self

    @property
    def text(self) -> str:
        text = ""
        for chunk in self.chunks:
            text = "" if chunk.restarted else text
            for choice in chunk.body["choices"]:
                text += choice["delta"].get("content") or ""
        return text

    @property
    def tried(self) -> list[tuple[str, str, str]]:
        return [(attempt.target, attempt.role, attempt.outcome) for attempt in self.context.record.attempts]


@pytest.mark.parametrize("how", ["continue", "restart"])
@pytest.mark.parametrize("prefill", ["none", "assistant"])
@pytest.mark.parametrize("cut", range(len(WORDS) + 1))
def test_wherever_a_stream_breaks_its_caller_reads_one_answer(cut: int, prefill: str, how: str) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        first, second = Speaker(cut), Speaker(None)
        run = await Run(clock, first, second, prefill=prefill, rescue=how).read()
        assert run.text == ANSWER
        assert not any(chunk.restarted for chunk in run.chunks)
        assert run.tried == [("t0", "first", "truncated"), ("t1", "rescue", "ok")]
        assert run.context.record.attempts[1].why == f"t0 broke after {cut + 1} chunks: truncated"
        continued = prefill == "assistant" and how == "continue" and cut > 0
        assert len(second.bodies[0]["messages"]) == (2 if continued else 1)
        assert (first.closed, second.closed) == (1, 1)

    scenario()


@in_virtual_time
async def test_usage_of_the_broken_attempt_is_estimated_and_that_of_the_last_one_is_known(clock: VirtualClock) -> None:
    run = await Run(clock, Speaker(4), Speaker(None)).read()
    broken, last = run.context.record.attempts
    assert broken.usage == Usage(1, 5, estimated=True)
    assert last.usage == Usage(3, len(WORDS))
    assert [chunk.usage for chunk in run.chunks if chunk.usage] == [Usage(3, len(WORDS))]


@in_virtual_time
async def test_another_answer_is_marked_and_begins_anew(clock: VirtualClock) -> None:
    run = await Run(clock, Speaker(4), Speaker(None, words=["Something ", "else."])).read()
    assert run.text == "Something else."
    (mark,) = [chunk for chunk in run.chunks if chunk.restarted]
    assert mark.body["engine"] == {"rescue": "restarted", "target": "t1"}


@in_virtual_time
async def test_off_means_that_the_stream_ends_with_its_error(clock: VirtualClock) -> None:
    run = Run(clock, Speaker(4), Speaker(None), rescue="off")
    with pytest.raises(Truncated):
        await run.read()
    assert len(run.tried) == 1


@pytest.mark.parametrize("most", [1, 2, 5])
def test_a_stream_is_rescued_so_often_and_no_more(most: int) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        run = Run(clock, Speaker(2), Speaker(3), max_rescues=most)
        with pytest.raises(Truncated):
            await run.read()
        assert len(run.tried) == 1 + most
        assert [target for target, _, _ in run.tried] == ["t0", "t1", "t0", "t1", "t0", "t1"][: 1 + most]

    scenario()


@in_virtual_time
async def test_no_stream_is_rescued_beyond_the_attempts_of_its_request(clock: VirtualClock) -> None:
    run = Run(clock, Speaker(2), Speaker(3), max_rescues=5)
    run.context.record.max_attempts = 2
    with pytest.raises(Truncated):
        await run.read()
    assert len(run.tried) == 2
    assert run.context.record.warnings == ["all its 2 attempts are used up (policy.budget.max_attempts)"]


@in_virtual_time
async def test_the_same_target_is_asked_last(clock: VirtualClock) -> None:
    speakers = Speaker(2, None), Speaker(ServerFailed("no")), Speaker(ServerFailed("no"))
    run = await Run(clock, *speakers).read()
    assert run.text == ANSWER
    assert [target for target, _, _ in run.tried] == ["t0", "t1", "t2", "t0"]
    assert [role for _, role, _ in run.tried] == ["first", "rescue", "fallback", "fallback"]


@pytest.mark.parametrize("error", [ContentFiltered("no"), InvalidRequest("no")])
def test_what_no_other_try_can_mend_ends_the_stream(error: InferenceError) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        run = Run(clock, Speaker(2, breaks=error), Speaker(None))
        with pytest.raises(type(error)):
            await run.read()
        assert len(run.tried) == 1

    scenario()


@in_virtual_time
async def test_when_nobody_can_rescue_it_the_error_says_both(clock: VirtualClock) -> None:
    run = Run(clock, Speaker(2, ServerFailed("down")), Speaker(Throttled("too many")))
    with pytest.raises(Truncated) as caught:
        await run.read()
    assert caught.value.message == "cut; and it could not be rescued: server: down"
    assert str(caught.value) == caught.value.message
    assert isinstance(caught.value.__cause__, ServerFailed)
    assert run.text == "The quick "


@in_virtual_time
async def test_a_rescue_that_is_throttled_is_retried_like_any_other_call(clock: VirtualClock) -> None:
    run = await Run(clock, Speaker(2), Speaker(Throttled("too many"), None), retries=2).read()
    assert run.text == ANSWER
    assert run.tried == [("t0", "first", "truncated"), ("t1", "rescue", "throttled"), ("t1", "retry", "ok")]


@in_virtual_time
async def test_who_refuses_to_go_on_is_asked_from_the_start(clock: VirtualClock) -> None:
    second = Speaker(InvalidRequest("no prefill here"), None)
    run = await Run(clock, Speaker(3), second, Speaker(None), prefill="assistant").read(max_tokens=50)
    assert run.text == ANSWER
    assert run.tried == [("t0", "first", "truncated"), ("t1", "rescue", "invalid_request"), ("t1", "rescue", "ok")]
    assert run.context.record.attempts[2].why == "t1 refused to continue from a beginning"
    assert [len(body["messages"]) for body in second.bodies] == [2, 1]
    assert [body["max_tokens"] for body in second.bodies] == [46, 50]


@in_virtual_time
async def test_who_refused_to_go_on_is_asked_first_and_the_others_after_it(clock: VirtualClock) -> None:
    second, third = Speaker(ServerFailed("no")), Speaker(InvalidRequest("no prefill here"), None)
    run = await Run(clock, Speaker(3), second, third, prefill="assistant").read()
    assert run.text == ANSWER
    assert [target for target, _, _ in run.tried] == ["t0", "t1", "t2", "t2"]


@in_virtual_time
async def test_who_refuses_the_request_itself_has_refused_it(clock: VirtualClock) -> None:
    for prefill, calls in (("none", 1), ("assistant", 2)):
        second = Speaker(InvalidRequest("no"))
        run = Run(clock, Speaker(3), second, prefill=prefill)
        with pytest.raises(Truncated, match="could not be rescued: invalid_request: no"):
            await run.read()
        assert len(second.bodies) == calls


@in_virtual_time
async def test_a_refused_beginning_is_not_asked_again_beyond_the_attempts_of_the_request(clock: VirtualClock) -> None:
    run = Run(clock, Speaker(3), Speaker(InvalidRequest("no")), prefill="assistant")
    run.context.record.max_attempts = 2
    with pytest.raises(Truncated):
        await run.read()
    assert len(run.tried) == 2


@in_virtual_time
async def test_a_rest_that_ends_without_a_finish_gives_what_it_had(clock: VirtualClock) -> None:
    class Plain(Speaker):
        async def _chunks(self, request: Request, words: int | None) -> AsyncIterator[Chunk]:
            for word in self.words[:2]:
                yield said(word)

    run = await Run(clock, Speaker(4), Plain(None)).read()
    assert run.text == "The quick "
    assert any(chunk.restarted for chunk in run.chunks)
    run = await Run(clock, Speaker(2), Plain(None)).read()
    assert run.text == "The quick "
    assert not any(chunk.restarted for chunk in run.chunks)


@in_virtual_time
async def test_a_rescue_that_breaks_before_its_first_chunk_is_none(clock: VirtualClock) -> None:
    class Mute(Speaker):
        async def _chunks(self, request: Request, words: int | None) -> AsyncIterator[Chunk]:
            raise Truncated("mute")
            yield

    run = Run(clock, Speaker(4, ServerFailed("no")), Mute(None), retried=False)
    with pytest.raises(Truncated, match="cut; and it could not be rescued: server: no"):
        await run.read()
    run = Run(clock, Mute(None), retried=False)
    with pytest.raises(Truncated, match=r"^mute; and it could not be rescued: truncated: mute$"):
        await run.read()
    assert len(run.tried) == 2


@in_virtual_time
async def test_an_answer_that_is_finished_is_not_continued(clock: VirtualClock) -> None:
    class Unterminated(Speaker):
        async def _chunks(self, request: Request, words: int | None) -> AsyncIterator[Chunk]:
            for word in self.words:
                yield said(word)
            yield said(finish="stop")
            raise Truncated("no terminator")

    second = Speaker(None)
    run = await Run(clock, Unterminated(0), second, prefill="assistant").read()
    assert run.text == ANSWER
    assert len(second.bodies[0]["messages"]) == 1
    finishes = [choice["finish_reason"] for chunk in run.chunks for choice in chunk.body["choices"]]
    assert finishes.count("stop") == 1


@in_virtual_time
async def test_a_tool_call_is_not_continued_but_asked_for_anew(clock: VirtualClock) -> None:
    class Calling(Speaker):
        async def _chunks(self, request: Request, words: int | None) -> AsyncIterator[Chunk]:
            yield said(None, tool_calls=[{"index": 0, "function": {"name": "f", "arguments": "{"}}])
            raise Truncated("cut")

    second = Speaker(None)
    run = await Run(clock, Calling(0), second, prefill="assistant").read()
    assert len(second.bodies[0]["messages"]) == 1
    assert run.text == ANSWER
    assert any(chunk.restarted for chunk in run.chunks)


@in_virtual_time
async def test_a_rescued_stream_can_go_on_at_a_third_target(clock: VirtualClock) -> None:
    speakers = Speaker(2), Speaker(3), Speaker(None)
    run = await Run(clock, *speakers, prefill="assistant").read()
    assert run.text == ANSWER
    assert speakers[2].bodies[0]["messages"][-1]["content"] == "The quick brown fox jumps "
    assert [target for target, _, _ in run.tried] == ["t0", "t1", "t2"]


@in_virtual_time
async def test_a_call_that_does_not_stream_passes_by(clock: VirtualClock) -> None:
    run = Run(clock, Speaker(None))
    run.context.stream = False
    result = await run.stage(Request("chat", {"messages": [{"role": "user", "content": "?"}]}), run.context)
    assert result.body == {"whole": True}


@in_virtual_time
async def test_its_caller_gets_the_first_chunk_with_the_stream(clock: VirtualClock) -> None:
    run = Run(clock, Speaker(None))
    asked = Request("chat", {"messages": [{"role": "user", "content": "?"}]}, id="mine")
    result = await run.stage(asked, run.context)
    assert result.stream is not None
    assert result.stream.primed


@pytest.mark.parametrize("after", [0.5, 2.5, 4.5])
def test_who_leaves_closes_the_stream_that_is_under_way(after: float) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        first, second = Speaker(2), Speaker(None)
        run = Run(clock, first, second)
        task = asyncio.create_task(run.read())
        await asyncio.sleep(after)
        task.cancel()
        await asyncio.wait([task])
        assert first.closed == 1
        assert second.closed == len(second.bodies)
        assert run.tried[-1][2] == "cancelled"

    scenario()


@in_virtual_time
async def test_who_closes_a_rescued_stream_closes_the_call_behind_it(clock: VirtualClock) -> None:
    first, second = Speaker(1), Speaker(None)
    run = Run(clock, first, second)
    result = await run.stage(Request("chat", {"messages": [{"role": "user", "content": "?"}]}), run.context)
    stream = result.stream
    assert stream is not None
    for _ in range(4):
        await anext(stream)
    await stream.aclose()
    assert (first.closed, second.closed) == (1, 1)
    assert run.tried[-1] == ("t1", "rescue", "cancelled")


@in_virtual_time
async def test_the_layer_says_its_settings_and_is_not_there_when_off(clock: VirtualClock) -> None:
    def layer_of(**fields: Any) -> Layer | None:
        return rescue.layer(branch(clock, PolicySpec(stream=StreamSpec(**fields))))

    layer = layer_of(rescue="restart", max_rescues=3)
    assert layer is not None
    assert layer.cls is Rescue
    assert layer.settings == "streams: restart, ≤3 times"
    assert layer_of(rescue="off") is None
