"""OpenAI's own client, over real sockets, to our server direction."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from engine.core.errors import ContentFiltered, InferenceError, ServerFailed, Throttled
from engine.core.media_access import Media
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.server import ClientCall
from tests.servers.dialect_server import DialectServer

pytestmark = pytest.mark.slow

WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(range(256))
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "m",
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Paris.", "annotations": []}],
        }
    ],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 9,
    },
}

Answer = dict[str, Any] | Sequence[Chunk | InferenceError]


class Desk:
    """What the next call is answered with, and what it asked."""

    def __init__(self) -> None:
        self.answer: Answer | InferenceError = {}
        self.asked: list[ClientCall] = []

    async def __call__(self, call: ClientCall) -> Answer:
        self.asked.append(call)
        if isinstance(self.answer, InferenceError):
            raise self.answer
        return self.answer


@pytest.fixture
async def desk() -> Desk:
    return Desk()


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[AsyncOpenAI]:
    async with (
        DialectServer("openai", desk, models=["m"]) as server,
        AsyncOpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0) as made,
    ):
        yield made


async def test_a_response(client: AsyncOpenAI, desk: Desk) -> None:
    desk.answer = RESPONSE
    reply = await client.responses.create(model="m", input="Capital of France?", reasoning={"effort": "low"})
    assert reply.output_text == "Paris."
    assert reply.usage is not None
    assert reply.usage.output_tokens_details.reasoning_tokens == 1
    (call,) = desk.asked
    assert (call.task, call.stream, call.key) == ("response", False, "k")
    assert call.body == {"model": "m", "input": "Capital of France?", "reasoning": {"effort": "low"}}


def events() -> list[Chunk]:
    started = {**RESPONSE, "status": "in_progress", "output": [], "usage": None}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
    part = {"type": "output_text", "text": "", "annotations": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    said: list[dict[str, Any]] = [
        {"type": "response.created", "response": started},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", **place, "part": part},
        {"type": "response.output_text.delta", **place, "delta": "Pa", "logprobs": []},
        {"type": "response.output_text.delta", **place, "delta": "ris.", "logprobs": []},
        {"type": "response.output_text.done", **place, "text": "Paris.", "logprobs": []},
        {"type": "response.completed", "response": RESPONSE},
    ]
    return [Chunk({**event, "sequence_number": number}) for number, event in enumerate(said)]


async def test_a_streamed_response_is_put_together_by_the_client(client: AsyncOpenAI, desk: Desk) -> None:
    desk.answer = events()
    async with client.responses.stream(model="m", input="Capital of France?") as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert final.output_text == "Paris."
    assert desk.asked[0].stream


async def test_a_response_that_breaks_raises_in_the_client(client: AsyncOpenAI, desk: Desk) -> None:
    desk.answer = [*events()[:4], ServerFailed("the provider fell over")]
    stream = await client.responses.create(model="m", input="hi", stream=True)
    seen = []
    with pytest.raises(openai.APIError, match="fell over"):
        async for event in stream:
            seen.append(event.type)
    assert seen[-1] == "response.output_text.delta"


def piece(delta: dict[str, Any], reason: str | None = None) -> Chunk:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return Chunk({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


async def test_a_chat_with_parallel_tool_calls_is_put_together_by_the_client(client: AsyncOpenAI, desk: Desk) -> None:
    def part(index: int, arguments: str, **first: Any) -> dict[str, Any]:
        function = {"arguments": arguments, **({"name": first["name"]} if first else {})}
        head = {"id": first["id"], "type": "function"} if first else {}
        return {"tool_calls": [{"index": index, **head, "function": function}]}

    desk.answer = [
        piece({"role": "assistant"}),
        piece(part(0, "", id="a", name="add")),
        piece(part(0, '{"x": ')),
        piece(part(1, '{"y": 2}', id="b", name="sub")),
        piece(part(0, "1}")),
        piece({}, "tool_calls"),
    ]
    tools: Any = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("add", "sub")]
    messages: Any = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "x?"},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            ],
        }
    ]
    extra: Any = {"seed": 7, "logprobs": True, "top_logprobs": 2, "stop": ["END"], "reasoning_effort": "low"}
    async with client.chat.completions.stream(model="m", messages=messages, tools=tools, **extra) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls or []
    assert [(call.id, call.function.name, call.function.arguments) for call in calls] == [
        ("a", "add", '{"x": 1}'),
        ("b", "sub", '{"y": 2}'),
    ]
    body = desk.asked[0].body
    assert body["messages"] == messages
    assert body["tools"] == tools
    assert {name: body[name] for name in extra} == extra


async def test_a_moderation(client: AsyncOpenAI, desk: Desk) -> None:
    result = {"flagged": True, "categories": {"violence": True}, "category_scores": {"violence": 0.9}}
    desk.answer = {"id": "modr-1", "model": "m", "results": [result]}
    reply = await client.moderations.create(model="m", input=["a", "b"])
    assert reply.results[0].flagged
    assert desk.asked[0].body == {"model": "m", "input": ["a", "b"]}


async def test_a_picture(client: AsyncOpenAI, desk: Desk) -> None:
    desk.answer = {"created": 1, "data": [{"b64_json": base64.b64encode(PNG).decode()}], "model": "m"}
    reply = await client.images.generate(model="m", prompt="a cat", size="1024x1024")
    assert reply.data is not None
    assert base64.b64decode(reply.data[0].b64_json or "") == PNG
    assert desk.asked[0].body == {"model": "m", "prompt": "a cat", "size": "1024x1024"}


async def test_a_streamed_picture(client: AsyncOpenAI, desk: Desk) -> None:
    look = {"background": "auto", "created_at": 1, "output_format": "png", "quality": "low", "size": "1024x1024"}
    usage = {
        "input_tokens": 5,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": 5},
        "output_tokens": 9,
        "total_tokens": 14,
    }
    first = {"type": "image_generation.partial_image", "b64_json": "AA==", "partial_image_index": 0, **look}
    last = {"type": "image_generation.completed", "b64_json": "BB==", "usage": usage, **look}
    desk.answer = [Chunk(first), Chunk(last)]
    stream = await client.images.generate(model="m", prompt="a cat", stream=True, partial_images=1)
    assert [event.type async for event in stream] == [first["type"], last["type"]]
    assert desk.asked[0].stream


async def test_edits_of_one_and_of_several_pictures(client: AsyncOpenAI, desk: Desk) -> None:
    desk.answer = {"created": 1, "data": [{"b64_json": "AA=="}]}
    await client.images.edit(model="m", prompt="a hat", image=("cat.png", PNG), mask=("m.png", PNG), n=2)
    await client.images.edit(model="m", prompt="a hat", image=[("a.png", PNG), ("b.png", PNG)])
    one, several = (call.body for call in desk.asked)
    assert one == {
        "model": "m",
        "prompt": "a hat",
        "n": 2,
        "image": Media(PNG, "cat.png", "image/png"),
        "mask": Media(PNG, "m.png", "image/png"),
    }
    assert [picture.filename for picture in several["image"]] == ["a.png", "b.png"]


async def test_speech_comes_as_sound(client: AsyncOpenAI, desk: Desk) -> None:
    desk.answer = {"object": "audio.speech", "audio": {"data": base64.b64encode(WAV).decode(), "format": "wav"}}
    reply = await client.audio.speech.create(model="m", voice="alloy", input="Hello", response_format="wav")
    assert reply.content == WAV
    assert reply.response.headers["content-type"] == "audio/wav"
    assert desk.asked[0].body == {"model": "m", "voice": "alloy", "input": "Hello", "response_format": "wav"}


async def test_speech_as_events(client: AsyncOpenAI, desk: Desk) -> None:
    desk.answer = [Chunk({"type": "speech.audio.delta", "audio": "AA=="}), Chunk({"type": "speech.audio.done"})]
    async with client.audio.speech.with_streaming_response.create(
        model="m", voice="alloy", input="Hello", stream_format="sse"
    ) as reply:
        lines = [line async for line in reply.iter_lines() if line]
    assert lines == [
        'data: {"type":"speech.audio.delta","audio":"AA=="}',
        'data: {"type":"speech.audio.done"}',
    ]


async def test_a_transcription_with_every_kind_of_field(client: AsyncOpenAI, desk: Desk) -> None:
    desk.answer = {"text": "hello", "model": "m"}
    reply = await client.audio.transcriptions.create(
        model="m",
        file=("clip.wav", WAV, "audio/wav"),
        language="en",
        temperature=0.2,
        include=["logprobs"],
        timestamp_granularities=["word", "segment"],
        chunking_strategy={"type": "server_vad", "threshold": 0.5},
    )
    assert reply.text == "hello"
    assert desk.asked[0].body == {
        "model": "m",
        "file": Media(WAV, "clip.wav", "audio/wav"),
        "language": "en",
        "temperature": 0.2,
        "include": ["logprobs"],
        "timestamp_granularities": ["word", "segment"],
        "chunking_strategy": {"type": "server_vad", "threshold": 0.5},
    }


@pytest.mark.parametrize("form", ["text", "srt", "vtt"])
async def test_a_transcription_as_text(client: AsyncOpenAI, desk: Desk, form: Any) -> None:
    desk.answer = {"text": "1\n00:00 --> 00:01\nhello\n"}
    reply: Any = await client.audio.transcriptions.create(model="m", file=("c.wav", WAV), response_format=form)
    assert reply == "1\n00:00 --> 00:01\nhello\n"


async def test_a_streamed_transcription(client: AsyncOpenAI, desk: Desk) -> None:
    usage = {"type": "tokens", "input_tokens": 3, "output_tokens": 1, "total_tokens": 4}
    desk.answer = [
        Chunk({"type": "transcript.text.delta", "delta": "hel"}),
        Chunk({"type": "transcript.text.done", "text": "hello", "usage": usage}, Usage(3, 1)),
    ]
    stream = await client.audio.transcriptions.create(model="m", file=("c.wav", WAV), stream=True)
    seen = [event async for event in stream]
    assert [event.type for event in seen] == ["transcript.text.delta", "transcript.text.done"]
    assert desk.asked[0].stream


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_translation(client: AsyncOpenAI, desk: Desk) -> None:
    desk.answer = {"text": "hello"}
    reply = await client.audio.translations.create(model="m", file=("c.mp3", WAV), prompt="names: Zoë")
    assert reply.text == "hello"
    assert desk.asked[0].body["prompt"] == "names: Zoë"


async def test_refusals_are_the_clients_own_errors(client: AsyncOpenAI, desk: Desk) -> None:
    desk.answer = Throttled("slow down", retry_after_s=2)
    with pytest.raises(openai.RateLimitError):
        await client.audio.speech.create(model="m", voice="alloy", input="Hello")
    desk.answer = ContentFiltered("not that")
    with pytest.raises(openai.BadRequestError, match="not that"):
        await client.images.generate(model="m", prompt="x")
