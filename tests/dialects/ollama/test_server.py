from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import ollama
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import InferenceError, InvalidRequest, Overloaded, ServerFailed, Throttled
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.ollama.client import OllamaDialect
from engine.dialects.ollama.server import OllamaServerDialect
from engine.dialects.openai.server import usage_body
from engine.dialects.server import ClientCall
from tests.servers.dialect_server import DialectServer

ASK = [{"role": "user", "content": "why?"}]
PATHS = {"chat": "/api/chat", "completion": "/api/generate", "embedding": "/api/embed"}
HEAD = {"id": "chatcmpl-20240101000000", "created": 1704067200, "model": "m"}


def read(path: str, **wire: Any) -> ClientCall:
    return OllamaServerDialect().read(path, {}, {}, msgspec.json.encode(wire))


def chunk(delta: dict[str, Any], reason: str | None = None, usage: Usage | None = None) -> Chunk:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return Chunk({**HEAD, "object": "chat.completion.chunk", "choices": [choice]}, usage)


# -- read --------------------------------------------------------------------------------------------------------------


def test_what_says_nothing_of_streaming_is_streamed() -> None:
    assert read("/api/chat", model="m", messages=ASK).stream
    assert not read("/api/chat", model="m", messages=ASK, stream=False).stream
    assert not read("/api/embed", model="m", input="x").stream


def test_options_become_fields_and_the_servers_own_are_warned_of() -> None:
    options = {"temperature": 0.5, "num_predict": 9, "stop": ["a"], "num_ctx": 8192, "mirostat": 1}
    call = read("/api/chat", model="m", messages=ASK, options=options, keep_alive="5m")
    assert call.body == {
        "model": "m",
        "messages": ASK,
        "temperature": 0.5,
        "max_tokens": 9,
        "stop": ["a"],
        "options": {"mirostat": 1},
    }
    assert call.warnings == ["body.keep_alive has no effect here", "body.options.num_ctx has no effect here"]


def test_a_prompt_is_a_question_unless_it_is_raw() -> None:
    call = read("/api/generate", model="m", prompt="why?", system="be brief", images=["iVBORw0KGgo="])
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    assert call.task == "chat"
    assert call.body["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "why?"}, image]},
    ]
    raw = read("/api/generate", model="m", prompt="why?", raw=True, logprobs=True)
    assert (raw.task, raw.body) == ("completion", {"model": "m", "prompt": "why?", "logprobs": 0})


def test_tool_answers_find_their_calls_by_name_and_order() -> None:
    calls = [{"function": {"name": name, "arguments": {}}} for name in ("a", "b", "a")]
    answers = [{"role": "tool", "tool_name": name, "content": name} for name in ("b", "a")]
    call = read(
        "/api/chat",
        model="m",
        messages=[*ASK, {"role": "assistant", "tool_calls": calls}, *answers, {"role": "tool", "content": "last"}],
    )
    assert [each["tool_call_id"] for each in call.body["messages"][2:]] == ["call_1", "call_0", "call_2"]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (
            "UklGRiQAAABXQVZFZm10IA==",
            {"type": "input_audio", "input_audio": {"data": "UklGRiQAAABXQVZFZm10IA==", "format": "wav"}},
        ),
        (
            "UklGRiQAAABXRUJQVlA4IA==",
            {"type": "image_url", "image_url": {"url": "data:image/webp;base64,UklGRiQAAABXRUJQVlA4IA=="}},
        ),
        ("/9j/4AAQ", {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/4AAQ"}}),
    ],
)
def test_what_an_image_is_its_first_bytes_tell(data: str, kind: dict[str, Any]) -> None:
    call = read("/api/chat", model="m", messages=[{"role": "user", "content": "", "images": [data]}])
    assert call.body["messages"][0]["content"] == [kind]


@pytest.mark.parametrize(
    ("path", "wire", "message"),
    [
        ("/api/chat", {"messages": []}, "body.messages"),
        ("/api/chat", {"messages": [1]}, r"body.messages\[0\]"),
        ("/api/chat", {"messages": [{"role": "user", "content": "x", "images": ["AAAA"]}]}, r"images\[0\]"),
        ("/api/chat", {"messages": [{"role": "tool", "content": "x"}]}, "no call before it"),
        ("/api/chat", {"messages": ASK, "options": 1}, "body.options"),
        ("/api/chat", {"messages": ASK, "think": "hard"}, "body.think"),
        ("/api/chat", {"messages": ASK, "format": "xml"}, "body.format"),
        ("/api/chat", {"messages": ASK, "model": 1}, "body.model"),
        ("/api/generate", {"prompt": ""}, "body.prompt"),
        ("/api/generate", {"prompt": "x", "raw": True, "system": "y"}, "body.system"),
        ("/api/embed", {}, "body.input"),
    ],
)
def test_what_can_not_be_understood_is_refused(path: str, wire: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read(path, **wire)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"x":"\xff"}'])
def test_a_body_that_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest, match="the body is not"):
        OllamaServerDialect().read("/api/chat", {}, {}, content)


# -- both ways ---------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
arguments = st.dictionaries(names, st.one_of(texts, st.integers(-9, 9), st.booleans(), st.lists(texts, max_size=2)))
images = st.builds(
    lambda kind: {"type": "image_url", "image_url": {"url": f"data:{kind[0]};base64,{kind[1]}"}},
    st.sampled_from([("image/png", "iVBORw0KGgo="), ("image/jpeg", "/9j/4AAQ"), ("image/gif", "R0lGODlh")]),
)
contents = st.one_of(
    texts,
    st.builds(
        lambda text, some: [{"type": "text", "text": text}, *some], texts.filter(bool), st.lists(images, min_size=1)
    ),
)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for index in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["system", "user", "assistant", "tools"]))
        if kind != "tools":
            messages.append({"role": kind, "content": draw(contents if kind == "user" else texts)})
            continue
        calls = [
            {
                "id": f"call_{index}_{at}",
                "type": "function",
                "function": {"name": draw(names), "arguments": msgspec.json.encode(draw(arguments)).decode()},
            }
            for at in range(draw(st.integers(1, 2)))
        ]
        messages.append({"role": "assistant", "content": draw(texts) or None, "tool_calls": calls})
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": draw(texts)} for call in calls]
    return messages


schemas = st.just({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]})
fields = st.fixed_dictionaries(
    {"model": names},
    optional={
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "seed": st.integers(0, 2**31),
        "max_tokens": st.integers(1, 999),
        "stop": st.lists(texts.filter(bool), min_size=1, max_size=3),
        "frequency_penalty": st.floats(-2, 2),
        "presence_penalty": st.floats(-2, 2),
        "top_k": st.integers(1, 99),
        "min_p": st.floats(0, 1),
        "repetition_penalty": st.floats(0.5, 2),
        "reasoning_effort": st.sampled_from(["none", "low", "medium", "high", "xhigh"]),
        "logprobs": st.just(True),
        "response_format": st.one_of(
            st.just({"type": "json_object"}),
            st.builds(
                lambda schema: {"type": "json_schema", "json_schema": {"name": "response", "schema": schema}}, schemas
            ),
        ),
        "tools": st.lists(
            st.builds(
                lambda name, schema: {"type": "function", "function": {"name": name, "parameters": schema}},
                names,
                schemas,
            ),
            min_size=1,
            max_size=2,
        ),
    },
)


@pytest.mark.slow
@given(conversations(), fields)
def test_a_chat_comes_back_as_it_was_sent(messages: list[dict[str, Any]], more: dict[str, Any]) -> None:
    body = {**more, "messages": messages}
    wire = OllamaDialect().encode("chat", body, model=more["model"], stream=False)
    call = OllamaServerDialect().read(wire.path, {}, {}, wire.content)
    assert (call.task, call.body, call.stream, call.warnings) == ("chat", body, False, [])


@given(texts.filter(bool), st.sampled_from([{}, {"suffix": "end"}, {"logprobs": 2}, {"max_tokens": 3, "seed": 1}]))
def test_a_completion_comes_back_as_it_was_sent(prompt: str, more: dict[str, Any]) -> None:
    body = {"model": "m", "prompt": prompt, **more}
    wire = OllamaDialect().encode("completion", body, model="m", stream=False)
    call = OllamaServerDialect().read(wire.path, {}, {}, wire.content)
    assert (call.task, call.body) == ("completion", body)


@pytest.mark.slow
@given(
    texts,
    texts,
    st.lists(st.tuples(names, arguments), max_size=2),
    st.sampled_from(["stop", "length"]),
    st.integers(0, 99),
    st.integers(0, 99),
)
def test_a_reply_comes_back_as_it_was_given(
    text: str, thought: str, calls: list[tuple[str, dict[str, Any]]], reason: str, prompt: int, answer: int
) -> None:
    message: dict[str, Any] = {"role": "assistant", "content": text or None if calls else text}
    if thought:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = [
            {
                "id": f"id{index}",
                "type": "function",
                "function": {"name": name, "arguments": msgspec.json.encode(given).decode()},
            }
            for index, (name, given) in enumerate(calls)
        ]
    reason = "tool_calls" if calls and reason == "stop" else reason
    body = {
        **HEAD,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": usage_body(Usage(prompt, answer)),
    }
    wire = OllamaServerDialect().reply(read("/api/chat", model="m", messages=ASK), body)
    reply = OllamaDialect().decode("chat", 200, {}, wire)
    assert {**reply.body, "id": HEAD["id"]} == body


@given(st.lists(texts, max_size=5), st.booleans())
def test_a_stream_comes_back_as_it_was_given_wherever_it_is_cut(pieces: list[str], with_call: bool) -> None:
    function = {"name": "f", "arguments": '{"a":'}
    parts = [{"content": piece} for piece in pieces if piece]
    encoder = OllamaServerDialect().stream_encoder(read("/api/chat", model="m", messages=ASK))
    data = b"".join(encoder.chunk(chunk(part)) for part in parts)
    if with_call:
        data += encoder.chunk(
            chunk({"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": function}]})
        )
        data += encoder.chunk(chunk({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}))
    data += encoder.chunk(chunk({}, "tool_calls" if with_call else "stop", Usage(3, 4))) + encoder.end()
    decoder = OllamaDialect().stream_decoder("chat")
    found = [each for byte in data for each in decoder.feed(bytes([byte]))] + decoder.finish()
    deltas = [each.body["choices"][0]["delta"] for each in found if each.body["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == "".join(pieces)
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert [call["function"] for call in calls] == ([{"name": "f", "arguments": '{"a":1}'}] if with_call else [])
    assert found[-2].body["choices"][0]["finish_reason"] == ("tool_calls" if with_call else "stop")
    assert found[-1].usage == Usage(3, 4)


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_a_refusal_has_its_status_and_its_hint() -> None:
    status, headers, content = OllamaServerDialect().refusal(Throttled("slow down", retry_after_s=1.2))
    assert (status, headers, content) == (429, {"retry-after": "2"}, b'{"error":"slow down"}')
    assert isinstance(OllamaDialect().error(status, headers, content), Throttled)


def test_a_stream_that_broke_says_so_and_does_not_end() -> None:
    encoder = OllamaServerDialect().stream_encoder(read("/api/chat", model="m", messages=ASK))
    data = encoder.chunk(chunk({"content": "x"})) + encoder.failed(ServerFailed("the model is gone"))
    decoder = OllamaDialect().stream_decoder("chat")
    assert len(decoder.feed(data)) == 1
    with pytest.raises(ServerFailed, match="the model is gone"):
        decoder.finish()


# -- Ollama's own client -----------------------------------------------------------------------------------------------


def replying(message: dict[str, Any], reason: str = "stop") -> Any:
    async def answer(call: ClientCall) -> dict[str, Any] | Sequence[Chunk | InferenceError]:
        if call.stream:
            return [chunk({"role": "assistant"}), chunk(message), chunk({}, reason, Usage(7, 2))]
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
        return {**HEAD, "object": "chat.completion", "choices": [choice], "usage": usage_body(Usage(7, 2))}

    return answer


async def test_its_client_chats() -> None:
    async with DialectServer("ollama", replying({"content": "Rayleigh.", "reasoning_content": "hm"})) as server:
        client = ollama.AsyncClient(host=server.url)
        said = await client.chat(model="m", messages=ASK, think=True, options={"seed": 3})
        assert (said.message.content, said.message.thinking, said.done_reason) == ("Rayleigh.", "hm", "stop")
        assert (said.prompt_eval_count, said.eval_count) == (7, 2)
        assert server.calls[0].body == {"model": "m", "messages": ASK, "seed": 3, "reasoning_effort": "medium"}
        pieces = [piece async for piece in await client.chat(model="m", messages=ASK, stream=True)]
        assert "".join(piece.message.content or "" for piece in pieces) == "Rayleigh."
        assert (pieces[-1].done, pieces[-1].eval_count) == (True, 2)


async def test_its_client_calls_tools() -> None:
    def get_weather(city: str) -> str:
        """The weather.

        Args:
            city: where
        """
        return city

    call = {
        "index": 0,
        "id": "c1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city":"Oslo"}'},
    }
    async with DialectServer("ollama", replying({"tool_calls": [call]}, "tool_calls")) as server:
        client = ollama.AsyncClient(host=server.url)
        said = await client.chat(model="m", messages=ASK, tools=[get_weather])
        assert said.message.tool_calls is not None
        assert said.message.tool_calls[0].function.arguments == {"city": "Oslo"}
        assert server.calls[0].body["tools"][0]["function"]["name"] == "get_weather"
        pieces = [
            piece
            async for piece in await client.chat(
                model="m",
                messages=[*ASK, said.message, {"role": "tool", "tool_name": "get_weather", "content": "rain"}],
                stream=True,
            )
        ]
        assert [piece.message.tool_calls[0].function.name for piece in pieces if piece.message.tool_calls] == [
            "get_weather"
        ]
        assert server.calls[1].body["messages"][2]["role"] == "tool"


async def test_its_client_generates_embeds_and_lists() -> None:
    async def answer(call: ClientCall) -> dict[str, Any]:
        if call.task == "embedding":
            data = [{"index": 0, "embedding": [0.5, 0.25]}]
            return {"model": "m", "data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}}
        if call.task == "completion":
            return {**HEAD, "choices": [{"index": 0, "text": "on", "finish_reason": "length"}]}
        return {**HEAD, "choices": [{"index": 0, "message": {"content": "Because."}, "finish_reason": "stop"}]}

    async with DialectServer("ollama", answer, models=["m", "n"]) as server:
        client = ollama.AsyncClient(host=server.url)
        assert (await client.generate(model="m", prompt="why?")).response == "Because."
        raw = await client.generate(model="m", prompt="go", raw=True)
        assert (raw.response, raw.done_reason) == ("on", "length")
        assert (await client.embed(model="m", input="x")).embeddings == [[0.5, 0.25]]
        assert [entry.model for entry in (await client.list()).models] == ["m", "n"]


async def test_its_client_sees_refusals() -> None:
    async def answer(call: ClientCall) -> list[Chunk | InferenceError]:
        if call.stream:
            return [chunk({"content": "x"}), ServerFailed("the model is gone")]
        raise Overloaded("no room")

    async with DialectServer("ollama", answer) as server:
        client = ollama.AsyncClient(host=server.url)
        with pytest.raises(ollama.ResponseError, match="no room") as caught:
            await client.chat(model="m", messages=ASK)
        assert caught.value.status_code == 503
        with pytest.raises(ollama.ResponseError, match="the model is gone"):
            [piece async for piece in await client.chat(model="m", messages=ASK, stream=True)]
