"""OpenAI's operations through the remote executor, over real sockets: our client direction against our server's."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Request
from engine.config.compose import compose
from engine.core.errors import ContentFiltered, InferenceError, InvalidRequest, ServerFailed, Truncated
from engine.core.media_access import INLINE_ONLY, Media
from engine.core.stream import Chunk
from engine.dialects.server import ClientCall
from engine.schemas import RunSpec
from tests.servers.dialect_server import DialectServer
from tests.servers.scripted import Exchange, ScriptedServer

pytestmark = pytest.mark.slow

WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(range(256))
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
URL = "data:image/png;base64," + base64.b64encode(PNG).decode()

Answer = dict[str, Any] | Sequence[Chunk | InferenceError]


class Provider:
    """One provider on a socket, and an engine that asks it."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        self.answer: Answer = {}
        self.asked: list[ClientCall] = []
        self.folder = folder
        self._stack = stack

    async def _answer(self, call: ClientCall) -> Answer:
        self.asked.append(call)
        return self.answer

    async def engine(self, *overrides: str) -> Engine:
        server = await self._stack.enter_async_context(DialectServer("openai", self._answer))
        return await self.reach(f"{server.url}/v1", *overrides)

    async def reach(self, url: str, *overrides: str) -> Engine:
        spec = composed(*overrides)
        provider = spec.provider.model_copy(update={"base_url": url})
        media = spec.media.model_copy(update={"root": str(self.folder)})
        return await self._stack.enter_async_context(
            Engine(spec.model_copy(update={"provider": provider, "media": media}))
        )


@cache
def composed(*overrides: str) -> RunSpec:
    return compose(["provider=llama_cpp", "model=remote", "model.name=m", *overrides]).spec


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Provider]:
    (tmp_path / "clip.wav").write_bytes(WAV)
    (tmp_path / "cat.png").write_bytes(PNG)
    async with AsyncExitStack() as stack:
        yield Provider(stack, tmp_path)


async def test_a_transcription_of_a_file(provider: Provider) -> None:
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 3, "total_tokens": 17}
    provider.answer = {"text": "hello", "usage": usage}
    engine = await provider.engine()
    result = await engine.submit(Request("transcription", {"file": "clip.wav", "language": "en"}, priority="high"))
    assert result.body is not None
    assert result.body["text"] == "hello"
    assert result.usage is not None
    assert (result.usage.input_tokens, result.usage.output_tokens) == (14, 3)
    assert provider.asked[0].body == {"file": Media(WAV, "clip.wav", "audio/wav"), "language": "en", "model": "m"}


async def test_nothing_that_is_the_engines_reaches_the_provider(provider: Provider) -> None:
    provider.answer = {"text": "hello"}
    engine = await provider.engine()
    request = Request("transcription", {"file": "clip.wav"}, priority="low", deadline_s=30, metadata={"mine": 1})
    await engine.submit(request)
    assert provider.asked[0].body.keys() == {"file", "model"}


async def test_a_transcript_as_subtitles_comes_as_they_are(provider: Provider) -> None:
    provider.answer = {"text": "1\n00:00:00,000 --> 00:00:01,000\nhello\n"}
    engine = await provider.engine()
    result = await engine.submit(Request("transcription", {"file": "clip.wav", "response_format": "srt"}))
    assert result.body == {"text": "1\n00:00:00,000 --> 00:00:01,000\nhello\n", "model": "m"}


async def test_speech_comes_as_base64_with_its_format(provider: Provider) -> None:
    provider.answer = {"audio": {"data": base64.b64encode(WAV).decode()}}
    engine = await provider.engine()
    result = await engine.submit(Request("speech", {"input": "hi", "voice": "v", "response_format": "wav"}))
    assert result.body is not None
    assert result.body["audio"] == {
        "data": base64.b64encode(WAV).decode(), "format": "wav", "content_type": "audio/wav",
    }  # fmt: skip


async def test_speech_can_be_transcribed_as_it_came(provider: Provider) -> None:
    provider.answer = {"audio": {"data": base64.b64encode(WAV).decode()}}
    engine = await provider.engine()
    spoken = await engine.submit(Request("speech", {"input": "hi", "voice": "v", "response_format": "wav"}))
    assert spoken.body is not None
    provider.answer = {"text": "hi"}
    await engine.submit(Request("transcription", {"file": spoken.body["audio"]}))
    assert provider.asked[1].body["file"] == Media(WAV, "file.wav", "audio/wav")


async def test_streamed_speech_comes_as_events_whichever_way_it_is_sent(provider: Provider) -> None:
    provider.answer = [Chunk({"type": "speech.audio.delta", "audio": "AAAA"}), Chunk({"type": "speech.audio.done"})]
    engine = await provider.engine()
    body = {"input": "hi", "voice": "v", "response_format": "pcm"}
    events = [chunk async for chunk in engine.stream(Request("speech", {**body, "stream_format": "sse"}))]
    provider.answer = {"audio": {"data": base64.b64encode(WAV).decode()}}
    sound = [chunk async for chunk in engine.stream(Request("speech", body))]
    assert [chunk.body["type"] for chunk in events] == ["speech.audio.delta", "speech.audio.done"]
    assert sound[-1].body == {"type": "speech.audio.done"}
    assert b"".join(base64.b64decode(chunk.body["audio"]) for chunk in sound[:-1]) == WAV


async def test_an_edit_of_a_picture(provider: Provider) -> None:
    provider.answer = {"created": 1, "data": [{"url": "https://example.com/1.png"}]}
    engine = await provider.engine()
    result = await engine.submit(Request("image-edit", {"image": [URL, {"path": "cat.png"}], "prompt": "a hat"}))
    assert result.body is not None
    assert result.body["data"] == [{"url": "https://example.com/1.png"}]
    assert [picture.data for picture in provider.asked[0].body["image"]] == [PNG, PNG]


async def test_a_picture_in_a_message_goes_as_a_data_url(provider: Provider) -> None:
    provider.answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "a cat"}}]}
    engine = await provider.engine()
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "cat.png", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"path": "clip.wav"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
    ]
    body = {"messages": [{"role": "user", "content": parts}]}
    await engine.submit(Request("chat", body))
    assert provider.asked[0].body["messages"][0]["content"] == [
        parts[0],
        {"type": "image_url", "image_url": {"url": URL, "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(WAV).decode(), "format": "wav"}},
        parts[3],
    ]
    assert body["messages"][0]["content"] is parts, "the caller's body is their own"


async def test_no_file_is_read_for_a_caller_who_may_not(provider: Provider) -> None:
    engine = await provider.engine()
    parts = [{"type": "image_url", "image_url": {"url": "cat.png"}}]
    request = Request("chat", {"messages": [{"role": "user", "content": parts}]}, media=INLINE_ONLY)
    result = await engine.submit(request)
    assert isinstance(result.error, InvalidRequest)
    assert "body.messages[0].content[0].image_url: no files are read for this caller" in result.error.message
    assert provider.asked == []


async def test_a_streamed_response_has_its_usage_and_its_first_token_is_of_the_answer(provider: Provider) -> None:
    usage = {
        "input_tokens": 7, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 1},
    }  # fmt: skip
    done = {"id": "resp_1", "status": "completed", "output": [], "usage": usage}
    provider.answer = [
        Chunk({"type": "response.created", "response": {}}),
        Chunk({"type": "response.output_text.delta", "delta": "Paris"}),
        Chunk({"type": "response.completed", "response": done}),
    ]
    engine = await provider.engine()
    chunks = [chunk async for chunk in engine.stream(Request("response", {"input": "Capital of France?"}))]
    assert [chunk.body["type"] for chunk in chunks] == [
        "response.created", "response.output_text.delta", "response.completed",
    ]  # fmt: skip
    used = chunks[-1].usage
    assert used is not None
    assert (used.input_tokens, used.output_tokens, used.cached_tokens, used.reasoning_tokens) == (7, 2, 4, 1)


async def test_a_response_that_fails_before_it_says_anything_is_tried_again(provider: Provider) -> None:
    created = Chunk({"type": "response.created", "response": {}})
    good = [
        created,
        Chunk({"type": "response.output_text.delta", "delta": "Paris"}),
        Chunk({"type": "response.completed", "response": {"status": "completed", "output": []}}),
    ]
    provider.answer = [created, ServerFailed("fell over")]

    async def answer(call: ClientCall) -> Answer:
        provider.asked.append(call)
        return provider.answer if len(provider.asked) == 1 else good

    provider._answer = answer  # type: ignore[method-assign]
    engine = await provider.engine("policy.retry.initial_delay_s=0.001")
    chunks = [chunk async for chunk in engine.stream(Request("response", {"input": "x"}))]
    assert len(provider.asked) == 2
    assert [chunk.body["type"] for chunk in chunks].count("response.created") == 1


async def test_a_response_that_breaks_in_the_middle_begins_anew_and_says_so(provider: Provider) -> None:
    created = Chunk({"type": "response.created", "response": {}})
    delta = Chunk({"type": "response.output_text.delta", "delta": "Paris"})
    done = Chunk({"type": "response.completed", "response": {"status": "completed", "output": []}})

    async def answer(call: ClientCall) -> Answer:
        provider.asked.append(call)
        return [created, delta, ServerFailed("fell over")] if len(provider.asked) == 1 else [created, delta, done]

    provider._answer = answer  # type: ignore[method-assign]
    engine = await provider.engine("policy/stream=continue", "policy.retry.initial_delay_s=0.001")
    chunks = [chunk async for chunk in engine.stream(Request("response", {"input": "x"}))]
    kinds = [chunk.body["type"] for chunk in chunks]
    assert kinds == [
        "response.created", "response.output_text.delta", "engine.restarted",
        "response.created", "response.output_text.delta", "response.completed",
    ]  # fmt: skip
    assert [chunk.restarted for chunk in chunks] == [False, False, True, False, False, False]


async def test_a_response_without_its_end_is_truncated(provider: Provider) -> None:
    provider.answer = [Chunk({"type": "response.output_text.delta", "delta": "Par"})]
    engine = await provider.engine("policy=off")
    with pytest.raises(Truncated, match=r"without response\.completed or response\.incomplete"):
        async for _ in engine.stream(Request("response", {"input": "x"})):
            pass


async def test_a_withheld_response_is_content_filtered(provider: Provider) -> None:
    held = {"incomplete_details": {"reason": "content_filter"}, "status": "incomplete", "output": []}
    provider.answer = {"id": "r", "object": "response", **held}
    engine = await provider.engine()
    result = await engine.submit(Request("response", {"input": "x"}))
    assert isinstance(result.error, ContentFiltered)


async def test_a_model_that_takes_no_notice_of_a_streams_wish_gives_its_transcript_at_once(provider: Provider) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, {"text": "hello"})

    async with ScriptedServer(script) as server:
        engine = await provider.reach(server.url)
        chunks = [chunk async for chunk in engine.stream(Request("transcription", {"file": "clip.wav"}))]
    assert [chunk.body for chunk in chunks] == [{"type": "transcript.text.done", "text": "hello"}]


async def test_endpoint_handlers_take_the_words_and_the_files(provider: Provider) -> None:
    engine = await provider.engine()
    provider.answer = {"text": "hello"}
    heard = await engine.endpoint_handler("m", "transcription")("clip.wav", language="en")
    provider.answer = {"created": 1, "data": [{"b64_json": "AA=="}]}
    drawn = await engine.endpoint_handler("m", "/v1/images/generations")("a cat")
    assert (heard.ok, drawn.ok) == (True, True)
    assert [call.body for call in provider.asked] == [
        {"file": Media(WAV, "clip.wav", "audio/wav"), "language": "en", "model": "m"},
        {"prompt": "a cat", "model": "m"},
    ]
