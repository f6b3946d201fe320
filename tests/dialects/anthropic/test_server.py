"""What clients of Anthropic's wire send, and what they get: by hand, and with Anthropic's own client over a socket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from engine.core.errors import (
    FAILURES,
    AuthFailed,
    ContentFiltered,
    InferenceError,
    InvalidRequest,
    Malformed,
    Overloaded,
    ServerFailed,
    Throttled,
)
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.anthropic.client import AnthropicDialect
from engine.dialects.anthropic.server import AnthropicServerDialect
from engine.dialects.server import ClientCall
from tests.servers.dialect_server import DialectServer
from tests.servers.replies import chunk, completion

HI = [{"role": "user", "content": "hi"}]


def read(headers: dict[str, str] | None = None, **body: Any) -> ClientCall:
    wire = {"model": "m", "max_tokens": 5, "messages": HI, **body}
    return AnthropicServerDialect().read("/v1/messages", {}, headers or {}, msgspec.json.encode(wire))


def refusal(**body: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read(**body)
    return caught.value.message


def reply(**message: Any) -> dict[str, Any]:
    body = completion()
    body["choices"][0]["message"] = {"role": "assistant", "content": None, **message}
    return msgspec.json.decode(AnthropicServerDialect().reply(read(), body))  # type: ignore[no-any-return]


def events(data: bytes) -> list[dict[str, Any]]:
    pairs = [each.split(b"\n") for each in data.decode().encode().split(b"\n\n") if each]
    told = [(name.removeprefix(b"event: "), msgspec.json.decode(said.removeprefix(b"data: "))) for name, said in pairs]
    assert all(name.decode() == said["type"] for name, said in told)
    return [said for _, said in told]


def streamed(*chunks: Chunk) -> list[dict[str, Any]]:
    encoder = AnthropicServerDialect().stream_encoder(read())
    return events(b"".join([*map(encoder.chunk, chunks), encoder.end()]))


def delta(reason: str | None = None, **said: Any) -> Chunk:
    choice = {"index": 0, "delta": said, "finish_reason": reason}
    return Chunk({**chunk(), "choices": [choice]})


# -- requests ----------------------------------------------------------------------------------------------------------


def test_a_message_call_is_a_chat() -> None:
    call = read()
    assert (call.task, call.model, call.stream, call.key, call.warnings) == ("chat", "m", False, None, [])
    assert call.body == {"model": "m", "messages": HI, "max_tokens": 5}


def test_a_stream_is_noted_beside_the_body() -> None:
    call = read(stream=True)
    assert (call.stream, "stream" in call.body) == (True, False)


@pytest.mark.parametrize("headers", [{"x-api-key": "k"}, {"authorization": "Bearer k"}, {"authorization": "bearer k"}])
def test_the_key_is_read_wherever_a_client_puts_it(headers: dict[str, str]) -> None:
    assert read(headers).key == "k"


@pytest.mark.parametrize("headers", [{}, {"authorization": "Basic k"}, {"authorization": "Bearer "}])
def test_what_is_no_key_is_none(headers: dict[str, str]) -> None:
    assert read(headers).key is None


def test_hints_for_claudes_own_servers_are_left_out_with_a_warning() -> None:
    marked = [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]
    tool = {"name": "f", "input_schema": {"type": "object"}, "eager_input_streaming": True}
    call = read(system=marked, speed="fast", tools=[tool])
    assert [warning.split(" ")[0] for warning in call.warnings] == [
        "cache_control",
        "speed",
        "tools.0.eager_input_streaming",
    ]
    assert "cache_control" not in str(call.body)


def test_a_result_that_failed_is_kept_with_a_warning() -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": "no such file", "is_error": True}
    call = read(messages=[{"role": "user", "content": [result]}])
    assert call.body["messages"] == [{"role": "tool", "tool_call_id": "t", "content": "no such file"}]
    assert call.warnings[0].startswith("messages.0.content.0.is_error")


def test_results_and_words_of_one_turn_are_messages_in_their_order() -> None:
    result = {"type": "tool_result", "tool_use_id": "t"}
    words = {"type": "text", "text": "and?"}
    assert read(messages=[{"role": "user", "content": [result, words]}]).body["messages"] == [
        {"role": "tool", "tool_call_id": "t", "content": ""},
        {"role": "user", "content": [words]},
    ]


def test_a_thought_that_nobody_signed_does_not_go_on() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    call = read(messages=[*HI, {"role": "assistant", "content": [thought, {"type": "text", "text": "7"}]}, *HI])
    assert call.body["messages"][1] == {"role": "assistant", "content": [{"type": "text", "text": "7"}]}
    assert call.warnings[0].startswith("messages.1.content.0 was left out")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"model": None}, "model:"),
        ({"max_tokens": None}, "max_tokens:"),
        ({"max_tokens": 0}, "max_tokens:"),
        ({"messages": []}, "messages:"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role:"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content:"),
        ({"messages": [{"role": "user", "content": [7]}]}, "messages.0.content.0:"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text:"),
        ({"messages": [{"role": "user", "content": [{"type": "search_result"}]}]}, "messages.0.content.0.type:"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]},
            "messages.0.content.0.source.type:",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "server_tool_use"}]}]},
            "messages.0.content.0.type:",
        ),
        ({"system": [{"type": "image"}]}, "system.0.type:"),
        ({"tools": [{"type": "web_search_20260209", "name": "web_search"}]}, "tools.0:"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type:"),
        ({"mcp_servers": [{}]}, "mcp_servers:"),
        ({"output_config": 7}, "the body is not"),
        ({"metadata": "x"}, "the body is not"),
    ],
)
def test_what_has_no_canonical_form_is_refused_with_the_clients_path(body: dict[str, Any], path: str) -> None:
    assert refusal(**body).startswith(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest, match="the body"):
        AnthropicServerDialect().read("/v1/messages", {}, {}, content)


# -- replies -----------------------------------------------------------------------------------------------------------


def test_a_chat_completion_is_a_message() -> None:
    assert reply(content="Paris.") == {
        "id": "chatcmpl-1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Paris."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 7,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 2,
        },
    }


def test_reasoning_of_another_provider_is_a_thought() -> None:
    assert reply(content="7", reasoning_content="Hm.")["content"][0] == {
        "type": "thinking",
        "thinking": "Hm.",
        "signature": "",
    }


@pytest.mark.parametrize("arguments", ["{", "[1]"])
def test_arguments_that_are_no_object_are_the_models_failure(arguments: str) -> None:
    with pytest.raises(Malformed, match="the model's call of f"):
        reply(tool_calls=[{"id": "t", "function": {"name": "f", "arguments": arguments}}])


@pytest.mark.parametrize(
    ("finish", "stop"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("tool_calls", "tool_use"), ("content_filter", "refusal")],
)
def test_a_finish_reason_is_a_stop_reason(finish: str, stop: str) -> None:
    body = AnthropicServerDialect().reply(read(), completion("x", finish))
    assert msgspec.json.decode(body)["stop_reason"] == stop


# -- streams -----------------------------------------------------------------------------------------------------------


def test_a_stream_has_the_documented_order() -> None:
    told = streamed(delta(role="assistant", content=""), delta(content="Pa"), delta(content="ris"), delta("stop"))
    assert [each["type"] for each in told] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert told[0]["message"]["model"] == "m"
    assert told[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}


def test_each_kind_of_content_is_a_block_of_its_own() -> None:
    call = {"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    told = streamed(delta(reasoning_content="Hm."), delta(content="7"), delta(tool_calls=[call]), delta("tool_calls"))
    starts = [each for each in told if each["type"] == "content_block_start"]
    assert [(each["index"], each["content_block"]["type"]) for each in starts] == [
        (0, "thinking"),
        (1, "text"),
        (2, "tool_use"),
    ]
    assert [each["index"] for each in told if each["type"] == "content_block_stop"] == [0, 1, 2]


def test_usage_beside_the_last_chunk_is_told() -> None:
    last = delta("stop")
    last.usage = Usage(30, 15, 5)
    assert streamed(delta(content="x"), last)[-2]["usage"] == {
        "input_tokens": 25,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 5,
        "output_tokens": 15,
    }


def test_an_answer_that_begins_anew_breaks_the_stream_for_this_wire_can_not_take_words_back() -> None:
    encoder = AnthropicServerDialect().stream_encoder(read())
    encoder.chunk(delta(content="Pa"))
    told = encoder.chunk(Chunk({"choices": []}, restarted=True))
    assert [each["error"]["type"] for each in events(told)] == ["overloaded_error"]
    assert (encoder.chunk(delta(content="x")), encoder.end()) == (b"", b"")


def test_an_answer_that_begins_anew_before_its_first_word_goes_on() -> None:
    told = streamed(Chunk({"choices": []}, restarted=True), delta(content="x"), delta("stop"))
    assert told[-1]["type"] == "message_stop"


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(FAILURES))
def test_an_error_is_told_in_the_wires_words_and_heard_as_the_same_kind(kind: str) -> None:
    heard_as = {"circuit_open": "overloaded", "queue_full": "overloaded", "deadline": "timeout"}
    server = {"connect", "internal", "malformed", "truncated"}
    error = FAILURES[kind]("it went wrong", retry_after_s=1.5, provider_request_id="req_1")
    status, headers, content = AnthropicServerDialect().refusal(error)
    assert (headers["retry-after"], headers["request-id"]) == ("2", "req_1")
    heard = AnthropicDialect().error(status, headers, content)
    if kind != "cancelled":
        assert heard.kind == ("server" if kind in server else heard_as.get(kind, kind))
    assert "it went wrong" in heard.message
    assert heard.provider_request_id == "req_1"


# -- Anthropic's own client --------------------------------------------------------------------------------------------

anthropic = pytest.importorskip("anthropic")


def client(server: DialectServer) -> Any:
    return anthropic.AsyncAnthropic(base_url=server.url, api_key="sk-ant-1", max_retries=0)


def ask(server: DialectServer, **fields: Any) -> Any:
    return client(server).messages.create(**{"model": "m", "max_tokens": 9, "messages": HI, **fields})


async def say_paris(call: ClientCall) -> dict[str, Any] | Sequence[Chunk | InferenceError]:
    if not call.stream:
        return completion("Paris.")
    last = delta("stop")
    last.usage = Usage(7, 2)
    return [delta(role="assistant", content=""), delta(content="Pa"), delta(content="ris."), last]


async def call_tools(call: ClientCall) -> dict[str, Any] | Sequence[Chunk | InferenceError]:
    calls = [{"id": f"toolu_{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in (1, 2)]
    if call.stream:
        thought = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
        pieces = [{"index": n, **each} for n, each in enumerate(calls)]
        pieces[0] = {**pieces[0], "function": {"name": "f", "arguments": '{"a":'}}
        rest = {"index": 0, "function": {"arguments": "1}"}}
        return [
            delta(reasoning_content="Hm."),
            delta(thinking_blocks=[thought]),
            delta(tool_calls=[pieces[0]]),
            delta(tool_calls=[rest]),
            delta(tool_calls=[pieces[1]]),
            delta("tool_calls"),
        ]
    body = completion(reason="tool_calls")
    body["choices"][0]["message"] = {"role": "assistant", "content": "Let me see.", "tool_calls": calls}
    return body


def failing(error: InferenceError) -> Any:
    async def fail(call: ClientCall) -> Sequence[Chunk | InferenceError]:
        if call.stream:
            return [delta(content="Pa"), error]
        raise error

    return fail


@pytest.mark.slow
async def test_anthropics_client_gets_an_answer() -> None:
    async with DialectServer("anthropic", say_paris) as server:
        message = await ask(server, system="Be brief.", stop_sequences=["END"], metadata={"user_id": "u"})
    assert (message.content[0].text, message.stop_reason, message.usage.output_tokens) == ("Paris.", "end_turn", 2)
    assert server.calls[0].key == "sk-ant-1"
    assert server.calls[0].body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, *HI],
        "max_tokens": 9,
        "stop": ["END"],
        "user": "u",
    }


@pytest.mark.slow
async def test_anthropics_client_gets_a_stream() -> None:
    async with (
        DialectServer("anthropic", say_paris) as server,
        client(server).messages.stream(model="m", max_tokens=9, messages=HI) as stream,
    ):
        said = [text async for text in stream.text_stream]
        message = await stream.get_final_message()
    assert said == ["Pa", "ris."]
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("end_turn", 7, 2)


@pytest.mark.slow
async def test_anthropics_client_calls_tools_and_sends_their_results() -> None:
    tools = [{"name": "f", "description": "does", "input_schema": {"type": "object", "properties": {}}}]
    async with DialectServer("anthropic", call_tools) as server:
        message = await ask(server, tools=tools, tool_choice={"type": "any"})
        results = [{"type": "tool_result", "tool_use_id": use.id, "content": "7"} for use in message.content[1:]]
        history = [*HI, {"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
        await ask(server, tools=tools, messages=history)
    assert [block.type for block in message.content] == ["text", "tool_use", "tool_use"]
    assert server.calls[0].body["tool_choice"] == "required"
    said = server.calls[1].body["messages"]
    assert [each["role"] for each in said] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in said[1]["tool_calls"]] == [each["tool_call_id"] for each in said[2:]]


@pytest.mark.slow
async def test_anthropics_client_puts_a_stream_of_thoughts_and_calls_together() -> None:
    async with (
        DialectServer("anthropic", call_tools) as server,
        client(server).messages.stream(model="m", max_tokens=9, messages=HI) as stream,
    ):
        message = await stream.get_final_message()
    thought, first, second = message.content
    assert (thought.thinking, thought.signature) == ("Hm.", "c2ln")
    assert [(use.id, use.input) for use in (first, second)] == [("toolu_1", {"a": 1}), ("toolu_2", {})]
    assert message.stop_reason == "tool_use"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "name"),
    [
        (Throttled("slow down", retry_after_s=3), "RateLimitError"),
        (Overloaded("full"), "OverloadedError"),
        (AuthFailed("no"), "AuthenticationError"),
        (InvalidRequest("bad"), "BadRequestError"),
        (ContentFiltered("filtered"), "BadRequestError"),
        (ServerFailed("broken"), "InternalServerError"),
    ],
)
async def test_anthropics_client_raises_its_own_errors(error: InferenceError, name: str) -> None:
    async with DialectServer("anthropic", failing(error)) as server:
        with pytest.raises(getattr(anthropic, name)) as caught:
            await ask(server)
    assert error.message in str(caught.value)
    if error.retry_after_s is not None:
        assert caught.value.response.headers["retry-after"] == "3"


@pytest.mark.slow
async def test_anthropics_client_raises_when_a_stream_breaks() -> None:
    async with DialectServer("anthropic", failing(Overloaded("full"))) as server:
        with pytest.raises(anthropic.APIStatusError, match="full"):
            async with client(server).messages.stream(model="m", max_tokens=9, messages=HI) as stream:
                await stream.get_final_message()


@pytest.mark.slow
async def test_anthropics_client_lists_the_models() -> None:
    async with DialectServer("anthropic", say_paris, models=["a", "b"]) as server:
        models = [model async for model in client(server).models.list()]
    assert [model.id for model in models] == ["a", "b"]
    assert {model.type for model in models} == {"model"}


@pytest.mark.slow
async def test_anthropics_client_counts_tokens() -> None:
    async def count(call: ClientCall) -> dict[str, Any] | Sequence[Chunk | InferenceError]:
        return {"object": "token-count", "model": "m", "input_tokens": 7}

    async with DialectServer("anthropic", count) as server:
        counted = await client(server).messages.count_tokens(model="m", messages=HI, system="Be brief.")
    assert counted.input_tokens == 7
    assert (server.calls[0].task, "max_tokens" in server.calls[0].body) == ("token-count", False)
