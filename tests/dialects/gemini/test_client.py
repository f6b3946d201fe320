"""Google's own client, google-genai, calls our server over a socket; and our client calls it too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
from google import genai
from google.genai import errors, types

from engine.core.errors import AuthFailed, ContentFiltered, InferenceError, Overloaded, ServerFailed, Throttled
from engine.core.request import Attempt, Context, EngineRecord, Request
from engine.core.stream import Chunk
from engine.dialects.gemini.client import GeminiDialect
from engine.dialects.server import ClientCall
from engine.executors.remote import RemoteExecutor
from engine.executors.services import Services
from engine.schemas import TargetSpec
from engine.schemas.hardware import AutoHardwareSpec
from engine.schemas.model import ModelSpec
from engine.schemas.provider import CredentialSpec, RemoteProviderSpec, TransportSpec
from tests.servers.dialect_server import DialectServer
from tests.servers.replies import chunk, completion, usage_chunk

pytestmark = pytest.mark.slow

WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}},
}


class Script:
    """Answers each call with the next of `replies`; an error is raised."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)

    async def __call__(self, call: ClientCall) -> dict[str, Any] | Sequence[Chunk | InferenceError]:
        reply = self.replies.pop(0)
        if isinstance(reply, InferenceError):
            raise reply
        return reply  # type: ignore[no-any-return]


def answer(**message: Any) -> dict[str, Any]:
    body = completion()
    body["choices"][0]["message"] = {"role": "assistant", "content": None, **message}
    return body


def client(server: DialectServer) -> genai.Client:
    options = types.HttpOptions(base_url=server.url, retry_options=types.HttpRetryOptions(attempts=1))
    return genai.Client(api_key="client-key", http_options=options)


@pytest.fixture
async def served() -> AsyncIterator[Any]:
    started: list[DialectServer] = []

    async def start(*replies: Any) -> DialectServer:
        server = DialectServer("gemini", Script(*replies), models=["m", "n"])
        started.append(await server.__aenter__())
        return server

    yield start
    for server in started:
        await server.__aexit__()


async def test_a_chat_with_everything_is_understood_both_ways(served: Any) -> None:
    server = await served(completion("Paris.", usage={"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}))
    config = types.GenerateContentConfig(
        system_instruction="Be brief.",
        temperature=0.5,
        max_output_tokens=9,
        stop_sequences=["x"],
        seed=3,
        response_mime_type="application/json",
        response_json_schema={"type": "object"},
        thinking_config=types.ThinkingConfig(thinking_budget=1024),
    )
    picture = types.Part.from_bytes(data=b"\xff\xfe\xfd", mime_type="image/png")
    reply = await client(server).aio.models.generate_content(model="m", contents=["What?", picture], config=config)
    assert (reply.text, reply.usage_metadata.prompt_token_count) == ("Paris.", 7)  # type: ignore[union-attr]
    assert reply.candidates[0].finish_reason == types.FinishReason.STOP  # type: ignore[index]
    call = server.calls[0]
    assert (call.model, call.key, call.warnings) == ("m", "client-key", [])
    assert call.body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,//79"}},
                ],
            },
        ],
        "temperature": 0.5,
        "max_completion_tokens": 9,
        "stop": ["x"],
        "seed": 3,
        "response_format": {"type": "json_schema", "json_schema": {"name": "response", "schema": {"type": "object"}}},
        "reasoning_effort": "low",
    }


async def test_a_conversation_with_tools_goes_back_and_forth(served: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    signed = {**call, "extra_content": {"google": {"thought_signature": "c2ln"}}}
    server = await served(answer(tool_calls=[signed]), completion("Sunny."))
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[WEATHER])])  # type: ignore[list-item]
    chat = client(server).aio.chats.create(model="m", config=config)
    first = await chat.send_message("Weather?")
    asked = first.function_calls[0]  # type: ignore[index]
    assert (asked.id, asked.name, asked.args) == ("c1", "weather", {"city": "Paris"})
    result = types.Part(
        function_response=types.FunctionResponse(id=asked.id, name=asked.name, response={"output": "sunny"})
    )
    second = await chat.send_message(result)
    assert second.text == "Sunny."
    sent = server.calls[1].body
    assert sent["messages"][1]["tool_calls"][0] == {
        **signed,
        "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
    }
    assert sent["messages"][2] == {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
    assert sent["tools"][0]["function"]["parameters"] == {"type": "object", "properties": {"city": {"type": "string"}}}


async def test_a_stream_is_read_to_its_end(served: Any) -> None:
    thought = Chunk({**chunk(), "choices": [{"index": 0, "delta": {"reasoning_content": "Hm"}, "finish_reason": None}]})
    pieces = [thought, *(Chunk(body) for body in (chunk("Pa"), chunk("ris"), chunk(None, "stop"), usage_chunk(7, 2)))]
    server = await served(pieces)
    stream = await client(server).aio.models.generate_content_stream(model="m", contents="What?")
    events = [event async for event in stream]
    parts = [part for event in events for part in event.candidates[0].content.parts]  # type: ignore[index,union-attr]
    assert "".join(part.text for part in parts if not part.thought) == "Paris"
    assert "".join(part.text for part in parts if part.thought) == "Hm"
    assert events[-1].candidates[0].finish_reason == types.FinishReason.STOP  # type: ignore[index]
    assert events[-1].usage_metadata.candidates_token_count == 2  # type: ignore[union-attr]
    assert server.calls[0].stream


async def test_embeddings_come_one_for_each_text(served: Any) -> None:
    rows = [{"object": "embedding", "index": index, "embedding": [0.5, index]} for index in range(2)]
    server = await served({"object": "list", "data": rows, "usage": {"prompt_tokens": 4, "total_tokens": 4}})
    reply = await client(server).aio.models.embed_content(
        model="m", contents=["a", "b"], config=types.EmbedContentConfig(output_dimensionality=2)
    )
    assert [row.values for row in reply.embeddings] == [[0.5, 0.0], [0.5, 1.0]]  # type: ignore[union-attr]
    assert server.calls[0].body == {"model": "m", "input": ["a", "b"], "dimensions": 2}


async def test_tokens_are_counted(served: Any) -> None:
    server = await served({"object": "token-count", "model": "m", "input_tokens": 7})
    assert (await client(server).aio.models.count_tokens(model="m", contents="What?")).total_tokens == 7
    assert (server.calls[0].task, server.calls[0].body["messages"]) == (
        "token-count",
        [{"role": "user", "content": "What?"}],
    )


async def test_the_models_are_listed(served: Any) -> None:
    server = await served()
    assert [model.name async for model in await client(server).aio.models.list()] == ["models/m", "models/n"]


@pytest.mark.parametrize(
    ("failure", "kind", "code", "status"),
    [
        (Throttled("Slow down.", retry_after_s=2), errors.ClientError, 429, "RESOURCE_EXHAUSTED"),
        (AuthFailed("Who?"), errors.ClientError, 401, "UNAUTHENTICATED"),
        (Overloaded("Busy."), errors.ServerError, 503, "UNAVAILABLE"),
        (ServerFailed("Broken."), errors.ServerError, 502, "INTERNAL"),
    ],
)
async def test_a_refusal_is_an_error_of_the_client(
    served: Any, failure: InferenceError, kind: type[errors.APIError], code: int, status: str
) -> None:
    server = await served(failure)
    with pytest.raises(kind) as caught:
        await client(server).aio.models.generate_content(model="m", contents="What?")
    assert (caught.value.code, caught.value.status, caught.value.message) == (code, status, failure.message)


async def test_a_refused_content_is_a_block_for_the_client(served: Any) -> None:
    server = await served(ContentFiltered("No.", code="PROHIBITED_CONTENT"))
    reply = await client(server).aio.models.generate_content(model="m", contents="What?")
    assert reply.prompt_feedback.block_reason == types.BlockedReason.PROHIBITED_CONTENT  # type: ignore[union-attr]


async def test_a_stream_that_breaks_is_an_error_of_the_client(served: Any) -> None:
    server = await served([Chunk(chunk("Pa")), Overloaded("Busy.")])
    with pytest.raises(errors.APIError) as caught:
        async for _ in await client(server).aio.models.generate_content_stream(model="m", contents="What?"):
            pass
    assert (caught.value.code, caught.value.status) == (503, "UNAVAILABLE")


# -- what leaves, held against the client's types ----------------------------------------------------------------------


def test_a_request_is_one_that_googles_types_know() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    image = {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "high"}}
    sound = {"type": "input_audio", "input_audio": {"data": "AAA=", "format": "wav"}}
    body = {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "t"}, image, sound]},
            {"role": "assistant", "content": "a", "reasoning_content": "r", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "sunny"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        "extra_body": {"google": {"safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}]}},
        **{"reasoning_effort": "low", "n": 2, "seed": 1, "stop": ["x"], "logprobs": True, "top_logprobs": 2},
        **{"top_p": 0.5, "top_k": 4, "presence_penalty": 0.5, "frequency_penalty": 0.5, "max_tokens": 9},
        **{"service_tier": "flex", "modalities": ["audio"], "audio": {"voice": "Kore", "format": "pcm16"}},
    }
    wire = msgspec.json.decode(GeminiDialect().encode("chat", body, model="gemini-3-pro", stream=False).content)
    types.GenerateContentConfig.model_validate(wire.pop("generationConfig"))
    for content in (wire.pop("systemInstruction"), *wire.pop("contents")):
        types.Content.model_validate(content)
    types.Tool.model_validate(wire["tools"][0])
    types.ToolConfig.model_validate(wire["toolConfig"])
    types.SafetySetting.model_validate(wire["safetySettings"][0])
    assert types.ServiceTier(wire["serviceTier"]) == types.ServiceTier.FLEX
    assert set(wire) == {"tools", "toolConfig", "safetySettings", "serviceTier"}


# -- our own client ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def call_it(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    monkeypatch.setenv("GEMINI_TEST_KEY_1", "canary-0123456789")
    services = Services()

    def of(server: DialectServer) -> RemoteExecutor:
        provider = RemoteProviderSpec(
            kind="remote",
            name="gemini",
            dialect="gemini",
            base_url=f"{server.url}/v1beta",
            credential=CredentialSpec(env=("GEMINI_TEST_KEY",)),
            transport=TransportSpec(trust_env=False),
        )
        model = ModelSpec(name="gemini", ids={"gemini": "m"})
        return RemoteExecutor(
            TargetSpec(provider=provider, model=model, hardware=AutoHardwareSpec(kind="auto")), services
        )

    yield of
    await services.aclose()


def context(stream: bool = False) -> Context:
    made = Context(EngineRecord(attempts=[Attempt("gemini/m")]), 0.0, stream=stream)
    made.attempt = made.record.attempts[0]
    return made


async def test_our_client_is_answered(served: Any, call_it: Any) -> None:
    server = await served(completion("Paris."))
    body = {"messages": [{"role": "user", "content": "What?"}]}
    where = context()
    result = await call_it(server)(Request("chat", body, id="r"), where)
    assert result.body["choices"][0]["message"]["content"] == "Paris."
    assert (result.usage.input_tokens, where.attempt.provider_request_id) == (7, "chatcmpl-1")
    assert (server.calls[0].key, server.calls[0].body) == ("canary-0123456789", {"model": "m", **body})


async def test_our_client_reads_a_stream(served: Any, call_it: Any) -> None:
    server = await served([Chunk(body) for body in (chunk("Pa"), chunk("ris"), chunk(None, "stop"), usage_chunk(7, 2))])
    result = await call_it(server)(Request("chat", {"messages": [{"role": "user", "content": "?"}]}), context(True))
    chunks = [each async for each in result.stream]
    assert "".join(c["delta"].get("content", "") for each in chunks for c in each.body["choices"]) == "Paris"
    assert result.stream.usage.output_tokens == 2


async def test_our_client_packs_vectors_for_who_asks(served: Any, call_it: Any) -> None:
    rows = [{"object": "embedding", "index": 0, "embedding": [1.0, -0.5]}]
    server = await served({"object": "list", "data": rows})
    body = {"input": ["a"], "encoding_format": "base64"}
    result = await call_it(server)(Request("embedding", body), context())
    assert result.body["data"][0]["embedding"] == "AACAPwAAAL8="


async def test_our_client_checks_its_keys(served: Any, call_it: Any) -> None:
    server = await served()
    assert (await call_it(server).check()).endswith("has m (2 models)")


async def test_an_echoed_key_never_gets_out(served: Any, call_it: Any) -> None:
    server = await served(AuthFailed("API key canary-0123456789 is not valid"))
    with pytest.raises(AuthFailed) as caught:
        await call_it(server)(Request("chat", {"messages": [{"role": "user", "content": "?"}]}), context())
    assert "canary" not in str(caught.value)
    assert "***" in str(caught.value)
