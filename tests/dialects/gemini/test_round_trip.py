"""What both forms can say is the same after a way there and back: canonical → Gemini's wire → canonical."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import FAILURES, InferenceError, InvalidRequest
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.gemini.client import GeminiDialect
from engine.dialects.gemini.server import GeminiServerDialect
from engine.dialects.server import ClientCall

MODELS = ("gemini-2.5-flash", "gemini-3.8-flash")
CALL = ClientCall("chat", {}, False, "m", None)

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
data = st.binary(max_size=9).map(lambda raw: base64.b64encode(raw).decode())
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e6, 1e6) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(names, values, max_size=3)
signatures = data.map(lambda said: {"google": {"thought_signature": "c2ln" + said}})


def dumped(value: Any) -> str:
    return msgspec.json.encode(value).decode()


images = st.builds(lambda kind, raw: {"url": f"data:image/{kind};base64,{raw}"}, st.sampled_from(["png", "jpeg"]), data)
parts = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, texts),
    st.builds(lambda image: {"type": "image_url", "image_url": image}, images),
    st.just({"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}),
    st.builds(lambda raw: {"type": "input_audio", "input_audio": {"data": raw, "format": "wav"}}, data),
    st.builds(lambda raw: {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{raw}"}}, data),
)
user_contents = texts | st.lists(parts, min_size=2, max_size=3)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    messages = [{"role": "system", "content": text} for text in draw(st.lists(texts, max_size=2))]
    made = 0
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(user_contents)})
        answer: dict[str, Any] = {"role": "assistant", "content": draw(texts)}
        if draw(st.booleans()):
            answer["reasoning_content"] = draw(texts)
        if draw(st.booleans()):
            calls = []
            for _ in range(draw(st.integers(1, 2))):
                function = {"name": draw(names), "arguments": dumped(draw(objects))}
                calls.append({"id": f"c{made}", "type": "function", "function": function})
                made += 1
            if draw(st.booleans()):
                calls[0]["extra_content"] = draw(signatures)
            answer["tool_calls"] = calls
            answer["content"] = draw(st.none() | texts)
            messages.append(answer)
            for call in calls:
                content = draw(texts | objects.map(dumped))
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": content})
        elif draw(st.booleans()):
            messages.append({**answer, "extra_content": draw(signatures)})
        else:
            messages.append(answer)
    return [*messages, {"role": "user", "content": draw(user_contents)}]


functions = st.lists(
    st.builds(lambda name, schema: {"name": name, "description": "d", "parameters": schema}, names, objects),
    min_size=1,
    max_size=2,
)
tools = functions.map(lambda each: [{"type": "function", "function": function} for function in each])
choices = st.sampled_from(["auto", "none", "required", {"type": "function", "function": {"name": "f"}}])
formats = st.sampled_from(
    [
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "response", "schema": {"type": "object", "description": "d"}}},
    ]
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(1, 40),
        "n": st.integers(1, 4),
        "seed": st.integers(0, 2**31 - 1),
        "stop": st.lists(texts, min_size=1, max_size=3),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.floats(-2, 2),
        "logprobs": st.booleans(),
        "top_logprobs": st.integers(0, 20),
        "max_completion_tokens": st.integers(1, 9999),
        "reasoning_effort": st.sampled_from(["low", "medium", "high"]),
        "response_format": formats,
        "service_tier": st.sampled_from(["default", "flex", "priority"]),
        "modalities": st.sampled_from([["text", "image"], ["audio"]]),
        "audio": st.just({"voice": "Kore", "format": "pcm16"}),
    },
)


@pytest.mark.slow
@given(conversations(), fields, st.none() | st.tuples(tools, st.none() | choices), st.sampled_from(MODELS))
def test_a_request_is_the_same_after_both_ways(
    messages: list[dict[str, Any]], said: dict[str, Any], used: Any, model: str
) -> None:
    body = {"model": model, "messages": messages, **said}
    if used is not None:
        body["tools"] = used[0]
        if used[1] is not None:
            body["tool_choice"] = used[1]
    stream = len(messages) % 2 == 0
    wire = GeminiDialect().encode("chat", body, model=model, stream=stream)
    call = GeminiServerDialect().read("/v1beta" + wire.path, {"model": model}, {"x-goog-api-key": "k"}, wire.content)
    assert (call.task, call.stream, call.model, call.key, call.warnings) == ("chat", stream, model, "k", [])
    assert _normal(call.body) == _normal(body)


def _normal(body: dict[str, Any]) -> dict[str, Any]:
    """With what is JSON in a text parsed: its spaces and the spelling of its numbers are not part of what is said."""
    messages = []
    for message in body["messages"]:
        if message["role"] == "tool":
            message = {**message, "content": _parsed(message["content"])}
        messages.append(message)
    return {**body, "messages": messages}


def _parsed(text: Any) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


FIELDS = (
    *("messages", "tools", "tool_choice", "response_format", "reasoning_effort", "stop", "modalities", "audio"),
    *("extra_body", "service_tier", "max_tokens", "user", "parallel_tool_calls"),
)
FUNCTIONS = [{"type": "function", "function": {"name": "f"}}]
DECLARED = [{"functionDeclarations": [{"name": "f"}]}]
MESSAGES = ("role", "content", "tool_calls", "tool_call_id", "extra_content", "reasoning_content", "name")
hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | texts | st.sampled_from([*MESSAGES, "user", "assistant", "function"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*MESSAGES, "type", "function", "google", "image_url", "json_schema"]), inner)
    ),
    max_leaves=8,
)
WIRE = (
    *("role", "parts", "text", "functionCall", "functionResponse", "inlineData", "mimeType", "data", "name", "args"),
    *("response", "thinkingConfig", "responseSchema", "speechConfig", "functionDeclarations", "parameters", "type"),
    *("functionCallingConfig", "mode", "allowedFunctionNames", "properties", "responseModalities", "items"),
)
hostile_wire = st.recursive(
    st.none() | st.booleans() | st.integers() | texts | st.sampled_from(["user", "model", "image/png", "OBJECT"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WIRE), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.sampled_from(FIELDS), hostile, st.sampled_from(MODELS), st.booleans())
def test_a_field_of_any_shape_is_sent_or_refused(field: str, value: Any, model: str, drop: bool) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "tools": FUNCTIONS, field: value}
    with contextlib.suppress(InvalidRequest):
        assert GeminiDialect().encode("chat", body, model=model, stream=False, drop_unsupported=drop).content


@pytest.mark.slow
@given(st.sampled_from(["contents", "systemInstruction", "generationConfig", "tools", "toolConfig"]), hostile_wire)
def test_a_clients_field_of_any_shape_is_read_or_refused(field: str, value: Any) -> None:
    wire = msgspec.json.encode({"contents": [{"parts": [{"text": "hi"}]}], "tools": DECLARED, field: value})
    with contextlib.suppress(InvalidRequest):
        assert GeminiServerDialect().read("/v1beta/models/m:generateContent", {"model": "m"}, {}, wire).body


@given(st.lists(texts, min_size=1, max_size=4) | texts, st.none() | st.integers(1, 99))
def test_an_embedding_request_is_the_same_after_both_ways(given_: Any, dimensions: int | None) -> None:
    body = {"model": "m", "input": given_, **({} if dimensions is None else {"dimensions": dimensions})}
    wire = GeminiDialect().encode("embedding", body, model="m", stream=False)
    call = GeminiServerDialect().read("/v1beta" + wire.path, {"model": "m"}, {}, wire.content)
    assert (call.task, call.body) == ("embedding", body)


logprobs = st.builds(
    lambda token, low: {
        "token": token,
        "logprob": low,
        "bytes": list(token.encode()),
        "top_logprobs": [{"token": token, "logprob": low, "bytes": list(token.encode())}],
    },
    texts,
    st.floats(-50, 0),
)


@st.composite
def answers(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    message: dict[str, Any] = {"role": "assistant", "content": draw(texts)}
    if draw(st.booleans()):
        message["reasoning_content"] = draw(texts)
    if draw(st.booleans()):
        message["images"] = [{"type": "image_url", "image_url": draw(images)}]
    if draw(st.booleans()):
        message["content"] = draw(st.none() | texts)
        message["tool_calls"] = [
            {"id": f"c{index}", "type": "function", "function": {"name": name, "arguments": dumped(arguments)}}
            for index, (name, arguments) in enumerate(draw(st.lists(st.tuples(names, objects), min_size=1, max_size=2)))
        ]
        if draw(st.booleans()):
            message["tool_calls"][0]["extra_content"] = draw(signatures)
        return message, "tool_calls"
    return message, draw(st.sampled_from(["stop", "length", "content_filter"]))


@st.composite
def usages(draw: st.DrawFn) -> dict[str, Any]:
    prompt, answer, thoughts = draw(st.tuples(*[st.integers(0, 99)] * 3))
    usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": answer + thoughts}
    usage["total_tokens"] = prompt + answer + thoughts
    details = draw(st.fixed_dictionaries({}, optional={"cached_tokens": st.integers(0, 9), "audio_tokens": st.just(0)}))
    if details:
        usage["prompt_tokens_details"] = details
    if thoughts:
        usage["completion_tokens_details"] = {"reasoning_tokens": thoughts}
    return usage


@pytest.mark.slow
@given(st.lists(st.tuples(answers(), st.none() | st.lists(logprobs, max_size=2)), min_size=1, max_size=2), usages())
def test_a_reply_is_the_same_after_both_ways(told: list[Any], usage: dict[str, Any]) -> None:
    body: dict[str, Any] = {"id": "r", "object": "chat.completion", "created": 5, "model": "m", "choices": []}
    for index, ((message, reason), tokens) in enumerate(told):
        choice = {"index": index, "message": message, "finish_reason": reason}
        if tokens:
            choice["logprobs"] = {"content": tokens, "refusal": None}
        body["choices"].append(choice)
    body["usage"] = usage
    content = GeminiServerDialect().reply(CALL, body)
    reply = GeminiDialect(lambda: 5.0).decode("chat", 200, {}, content)
    assert reply.body == body
    assert reply.usage is not None
    assert reply.usage.input_tokens == usage["prompt_tokens"]


def test_embeddings_are_the_same_after_both_ways() -> None:
    body = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": [0.25, index]} for index in range(2)],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
    for given_, data_ in ((["a", "b"], body["data"]), ("a", body["data"][:1])):  # type: ignore[index]
        call = ClientCall("embedding", {"input": given_}, False, "m", None)
        said = {**body, "data": data_}
        content = GeminiServerDialect().reply(call, said)
        assert GeminiDialect().decode("embedding", 200, {}, content).body == said


def told(chunks: list[Chunk]) -> dict[str, Any]:
    """What a stream says in the end: its answer, put together."""
    answer: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": [], "finish": None, "usage": None}
    for chunk in chunks:
        answer["usage"] = chunk.body.get("usage") or answer["usage"]
        for choice in chunk.body["choices"]:
            delta = choice["delta"]
            answer["finish"] = choice["finish_reason"] or answer["finish"]
            for name in ("content", "reasoning_content"):
                answer[name] += delta.get(name) or ""
            for call in delta.get("tool_calls", ()):
                while len(answer["tool_calls"]) <= call["index"]:
                    answer["tool_calls"].append({"arguments": ""})
                known = answer["tool_calls"][call["index"]]
                function = call.get("function", {})
                known["arguments"] += function.get("arguments", "")
                known.update({key: call[key] for key in ("id", "extra_content") if key in call})
                known.update({"name": function["name"]} if "name" in function else {})
    return answer


def chunk(delta: dict[str, Any], reason: str | None = None) -> Chunk:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    head = {"id": "r", "object": "chat.completion.chunk", "created": 5, "model": "m"}
    return Chunk({**head, "choices": [choice]})


@st.composite
def streams(draw: st.DrawFn) -> list[Chunk]:
    chunks = [chunk({"role": "assistant", "content": ""})]
    chunks += [chunk({"reasoning_content": text}) for text in draw(st.lists(texts, max_size=2))]
    chunks += [chunk({"content": text}) for text in draw(st.lists(texts, max_size=3))]
    calls = draw(st.lists(st.tuples(names, objects), max_size=2))
    for index, (name, arguments) in enumerate(calls):
        written = dumped(arguments)
        cut = draw(st.integers(0, len(written)))
        start = {"name": name, "arguments": written[:cut]}
        chunks.append(
            chunk({"tool_calls": [{"index": index, "id": f"c{index}", "type": "function", "function": start}]})
        )
        chunks.append(chunk({"tool_calls": [{"index": index, "function": {"arguments": written[cut:]}}]}))
    chunks.append(chunk({}, "tool_calls" if calls else draw(st.sampled_from(["stop", "length"]))))
    usage = draw(usages())
    return [*chunks, Chunk({**chunks[0].body, "choices": [], "usage": usage}, Usage())]


@pytest.mark.slow
@given(streams(), st.data())
def test_a_stream_is_the_same_after_both_ways_wherever_it_is_cut(chunks: list[Chunk], draw: st.DataObject) -> None:
    encoder = GeminiServerDialect().stream_encoder(CALL)
    wire = b"".join([*map(encoder.chunk, chunks), encoder.end()])
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(wire)), max_size=20)))
    decoder = GeminiDialect(lambda: 5.0).stream_decoder("chat")
    got = [
        each
        for start, stop in zip([0, *cuts], [*cuts, len(wire)], strict=True)
        for each in decoder.feed(wire[start:stop])
    ]
    assert told(got + decoder.finish()) == told(chunks)


@pytest.mark.parametrize("kind", sorted(FAILURES))
def test_a_refusal_is_understood_by_our_own_client(kind: str) -> None:
    status, headers, content = GeminiServerDialect().refusal(FAILURES[kind]("It went wrong.", retry_after_s=2.5))
    found = GeminiDialect().error(status, headers, content)
    same = {
        "circuit_open": "overloaded",
        "queue_full": "overloaded",
        "deadline": "timeout",
        **dict.fromkeys(("truncated", "malformed", "connect", "internal", "cancelled"), "server"),
    }
    assert found.kind == same.get(kind, kind)
    assert "It went wrong." in found.message
    if found.kind in ("throttled", "overloaded", "quota_exhausted"):
        # The header says it in whole seconds, rounded up.
        assert found.retry_after_s == 3


@pytest.mark.parametrize("kind", ["server", "throttled", "overloaded", "content_filtered", "timeout"])
def test_a_stream_that_breaks_breaks_for_our_own_client(kind: str) -> None:
    encoder = GeminiServerDialect().stream_encoder(CALL)
    decoder = GeminiDialect().stream_decoder("chat")
    decoder.feed(encoder.chunk(chunk({"content": "Pa"})))
    decoder.feed(encoder.failed(FAILURES[kind]("It went wrong.")))
    with pytest.raises(InferenceError, match="It went wrong") as caught:
        decoder.finish()
    assert caught.value.kind == kind
    assert encoder.end() == b""
