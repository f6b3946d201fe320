"""Both directions of Anthropic's wire against each other, for what both forms can say, and against its SDK's types."""

from __future__ import annotations

import base64
import contextlib
from copy import deepcopy
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from engine.core.errors import InferenceError, InvalidRequest
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.anthropic.client import AnthropicDialect
from engine.dialects.anthropic.request import SAMPLING
from engine.dialects.anthropic.server import AnthropicServerDialect
from engine.dialects.server import ClientCall

pytestmark = pytest.mark.slow

CALL = ClientCall("chat", {}, False, "m", None)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
NAME = st.text("abcxyz_", min_size=1, max_size=8)
DATA = st.binary(min_size=1, max_size=9).map(lambda data: base64.b64encode(data).decode())
OBJECT = st.dictionaries(NAME, st.none() | st.integers(-9, 9) | TEXT | st.lists(st.booleans(), max_size=2), max_size=3)
JSON = OBJECT.map(lambda value: msgspec.json.encode(value).decode())
COUNT = st.integers(1, 10**6)


def given_keys(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


# -- requests ----------------------------------------------------------------------------------------------------------

TEXT_PART = TEXT.map(lambda text: {"type": "text", "text": text})
IMAGE = st.one_of(
    NAME.map(lambda name: f"https://example.org/{name}.png"),
    st.tuples(st.sampled_from(["jpeg", "png", "gif", "webp"]), DATA).map(
        lambda it: f"data:image/{it[0]};base64,{it[1]}"
    ),
).map(lambda url: {"type": "image_url", "image_url": {"url": url}})
FILE = st.one_of(
    DATA.map(lambda data: f"data:application/pdf;base64,{data}"),
    TEXT.map(lambda text: f"data:text/plain;base64,{base64.b64encode(text.encode()).decode()}"),
)
FILE_PART = given_keys({"file_data": FILE}, {"filename": NAME}).map(lambda file: {"type": "file", "file": file})
PARTS = st.lists(TEXT_PART | IMAGE | FILE_PART, min_size=1, max_size=3)
TOOL_CALL = st.builds(
    lambda id, name, arguments: {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}},
    NAME,
    NAME,
    JSON,
)
THOUGHT = st.one_of(
    st.builds(lambda text, sign: {"type": "thinking", "thinking": text, "signature": sign}, TEXT, DATA),
    DATA.map(lambda data: {"type": "redacted_thinking", "data": data}),
)
USER = st.builds(lambda content: {"role": "user", "content": content}, TEXT | PARTS)
ANSWER = st.one_of(
    st.builds(
        lambda content: {"role": "assistant", "content": content}, TEXT | st.lists(TEXT_PART, min_size=1, max_size=2)
    ),
    st.builds(
        lambda content, thoughts, calls: {
            "role": "assistant",
            "content": content,
            **({"thinking_blocks": thoughts} if thoughts else {}),
            "tool_calls": calls,
        },
        st.none() | TEXT,
        st.lists(THOUGHT, max_size=2),
        st.lists(TOOL_CALL, min_size=1, max_size=3),
    ),
)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(TEXT | st.lists(TEXT_PART, min_size=1, max_size=2))})
    for _ in range(draw(st.integers(0, 3))):
        messages.append(draw(USER))
        if draw(st.booleans()):
            messages.append({"role": "system", "content": draw(TEXT)})
        answer = draw(ANSWER)
        messages.append(answer)
        for call in answer.get("tool_calls", ()):
            content = draw(TEXT | st.lists(TEXT_PART | IMAGE, min_size=1, max_size=2))
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": content})
    return [*messages, draw(USER)]


FUNCTION = given_keys(
    {"name": NAME, "parameters": OBJECT.map(lambda x: {"type": "object", **x})}, {"description": TEXT}
)
TOOLS = st.lists(FUNCTION.map(lambda function: {"type": "function", "function": function}), min_size=1, max_size=3)
CHOICE = st.sampled_from(["auto", "required", "none"]) | NAME.map(
    lambda name: {"type": "function", "function": {"name": name}}
)
PROPERTY = st.sampled_from([{"type": "string"}, {"type": "integer", "description": "n"}, {"enum": ["x", 1]}]).map(dict)
SCHEMA = (
    st.dictionaries(NAME, PROPERTY, max_size=2)
    .map(lambda fields: {"type": "object", "properties": fields, "additionalProperties": False})
    .map(
        lambda schema: {
            "type": "json_schema",
            "json_schema": {"name": "output", "schema": schema, "strict": True},
        }
    )
)
THINKING = st.builds(lambda budget: {"type": "enabled", "budget_tokens": budget}, COUNT)


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    body = {"model": draw(NAME), "messages": draw(conversations()), "max_tokens": draw(COUNT)}
    body |= draw(
        given_keys(
            {},
            {
                "temperature": st.floats(0, 1),
                "top_p": st.floats(0, 1),
                "top_k": COUNT,
                "stop": st.lists(TEXT, min_size=1, max_size=2),
                "user": NAME,
                "service_tier": st.sampled_from(["auto", "default"]),
                "response_format": SCHEMA,
            },
        )
    )
    body |= draw(
        st.fixed_dictionaries({})
        | st.sampled_from(["none", "low", "medium", "high", "xhigh", "max"]).map(lambda it: {"reasoning_effort": it})
        | THINKING.map(lambda it: {"thinking": it})
    )
    thinks = "thinking" in body or body.get("reasoning_effort", "none") != "none"
    if thinks:  # then the API takes these values alone
        body |= {name: value for name, value in (("temperature", 1.0), ("top_p", 0.95)) if name in body}
        body.pop("top_k", None)
    if draw(st.booleans()):
        body["tools"] = draw(TOOLS)
        if draw(st.booleans()):
            body["tool_choice"] = draw(st.sampled_from(["auto", "none"]) if thinks else CHOICE)
            if body["tool_choice"] != "none" and draw(st.booleans()):
                body["parallel_tool_calls"] = False
    return body


@given(bodies(), st.booleans())
def test_a_request_comes_back_as_it_went(body: dict[str, Any], stream: bool) -> None:
    wire = AnthropicDialect().encode("chat", body, model=body["model"], stream=stream)
    call = AnthropicServerDialect().read(wire.path, {}, {}, wire.content)
    assert call.body == body
    assert (call.stream, call.model, call.warnings, wire.warnings) == (stream, body["model"], [], [])


@pytest.fixture(scope="module")
def params() -> TypeAdapter[Any]:
    anthropic = pytest.importorskip("anthropic")
    return TypeAdapter(anthropic.types.message_create_params.MessageCreateParamsNonStreaming)


@given(body=bodies())
def test_a_request_is_as_the_sdks_types_have_it(params: TypeAdapter[Any], body: dict[str, Any]) -> None:
    wire = msgspec.json.decode(AnthropicDialect().encode("chat", body, model="m", stream=False).content)
    exhaust(params.validate_python(wire))


def test_no_field_is_sent_that_the_sdk_does_not_know(params: TypeAdapter[Any]) -> None:
    body = {
        "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}],
        "stop": "x",
        "user": "u",
        "service_tier": "auto",
        "reasoning_effort": "none",
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": "auto",
        "cache_control": {"type": "ephemeral"},
        "inference_geo": "eu",
        **dict.fromkeys(SAMPLING, 1),
    }
    wire = msgspec.json.decode(AnthropicDialect().encode("chat", body, model="m", stream=False).content)
    # Gone from the types with version 2026-10-21, and sent with the version before it.
    assert wire.keys() - params.json_schema()["properties"].keys() == set(SAMPLING)


def exhaust(value: Any) -> None:
    """Pydantic checks the items of an Iterable only when they are asked for."""
    if isinstance(value, dict):
        for each in value.values():
            exhaust(each)
    elif not isinstance(value, str) and hasattr(value, "__iter__"):
        for each in value:
            exhaust(each)


JUNK = st.sampled_from([None, 7, -1.5, True, "", "x", [], [7], ["x"], {}, {"type": "x"}, {"type": []}])


@st.composite
def damaged(draw: st.DrawFn, whole: Any) -> Any:
    """`whole` with junk in one place."""
    whole = deepcopy(whole)  # its parts may be constants of this module
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            places.append((value, key))
            if isinstance(each, dict | list):
                walk(each)

    walk(whole)
    container, key = draw(st.sampled_from(places))
    container[key] = draw(JUNK)
    return whole


@given(bodies().flatmap(damaged), st.booleans())
def test_a_body_with_junk_is_refused_or_sent(body: Any, drop: bool) -> None:
    with contextlib.suppress(InvalidRequest):
        AnthropicDialect().encode("chat", body, model="m", stream=False, drop_unsupported=drop)


@given(bodies().map(lambda body: msgspec.json.decode(encoded(body))).flatmap(damaged))
def test_a_clients_body_with_junk_is_refused_or_read(wire: Any) -> None:
    with contextlib.suppress(InvalidRequest):
        AnthropicServerDialect().read("/v1/messages", {}, {}, msgspec.json.encode(wire))


def encoded(body: dict[str, Any]) -> bytes:
    return AnthropicDialect().encode("chat", body, model="m", stream=False).content


# -- replies -----------------------------------------------------------------------------------------------------------


@st.composite
def completions(draw: st.DrawFn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": draw(TEXT)}
    thoughts = draw(st.lists(THOUGHT, max_size=2))
    reasoning = "".join(thought.get("thinking", "") for thought in thoughts)
    if reasoning:
        message["reasoning_content"] = reasoning
    if thoughts:
        message["thinking_blocks"] = thoughts
    choice: dict[str, Any] = {
        "index": 0,
        "message": message,
        "finish_reason": draw(st.sampled_from(["stop", "length"])),
    }
    if choice["finish_reason"] == "stop" and draw(st.booleans()):
        choice["stop_reason"] = draw(TEXT)
    calls = draw(st.lists(TOOL_CALL, max_size=3))
    if calls:
        message["content"] = draw(st.none() | TEXT)
        message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    return {
        "id": draw(NAME),
        "object": "chat.completion",
        "created": 42,
        "model": draw(NAME),
        "choices": [choice],
        "usage": draw(usages()),
    }


@st.composite
def usages(draw: st.DrawFn) -> dict[str, Any]:
    cached, written, fresh, answer = (draw(st.integers(0, 9)) for _ in range(4))
    usage: dict[str, Any] = {"prompt_tokens": cached + written + fresh, "completion_tokens": answer}
    usage["total_tokens"] = usage["prompt_tokens"] + answer
    if cached or written:
        usage["prompt_tokens_details"] = {"cached_tokens": cached, "cache_write_tokens": written}
    reasoning = draw(st.integers(0, answer))
    if reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage


@given(completions())
def test_a_reply_comes_back_as_it_went(body: dict[str, Any]) -> None:
    content = AnthropicServerDialect().reply(CALL, body)
    assert AnthropicDialect(lambda: 42.0).decode("chat", 200, {}, content).body == body


@given(completions())
def test_a_reply_is_as_the_sdks_types_have_it(body: dict[str, Any]) -> None:
    anthropic = pytest.importorskip("anthropic")
    anthropic.types.Message.model_validate_json(AnthropicServerDialect().reply(CALL, body), strict=True)


# -- streams -----------------------------------------------------------------------------------------------------------


def told(body: dict[str, Any]) -> list[Chunk]:
    """The chunks of a completion as the client side gives them."""
    choice = body["choices"][0]
    message, usage = choice["message"], body["usage"]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for thought in message.get("thinking_blocks", ()):
        deltas += [{"reasoning_content": each} for each in thought.get("thinking", "")]
        deltas.append({"thinking_blocks": [thought]})
    deltas += [{"content": each} for each in message["content"] or ""]
    for index, call in enumerate(message.get("tool_calls", ())):
        deltas.append({"tool_calls": [{"index": index, **call, "function": {**call["function"], "arguments": ""}}]})
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": each}}]}
            for each in call["function"]["arguments"]
        ]
    head = {"id": body["id"], "object": "chat.completion.chunk", "created": 42, "model": body["model"]}
    chunks = [
        Chunk({**head, "choices": [{"index": 0, "delta": each, "finish_reason": None}]}) for each in [*deltas, {}]
    ]
    last = chunks[-1].body["choices"][0]
    last["finish_reason"] = choice["finish_reason"]
    if "stop_reason" in choice:
        last["stop_reason"] = choice["stop_reason"]
    details, answer = usage.get("prompt_tokens_details", {}), usage.get("completion_tokens_details", {})
    counts = (usage["prompt_tokens"], usage["completion_tokens"])
    tokens = Usage(*counts, details.get("cached_tokens", 0), answer.get("reasoning_tokens", 0))
    tokens.cache_write_tokens = details.get("cache_write_tokens", 0)
    return [*chunks, Chunk({**head, "choices": [], "usage": usage}, tokens)]


def heard(stream: bytes, cuts: list[int]) -> list[Chunk]:
    decoder = AnthropicDialect(lambda: 42.0).stream_decoder("chat")
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:stop] for start, stop in pairwise(places)]
    chunks = [chunk for piece in pieces for chunk in decoder.feed(piece)]
    for chunk in chunks:
        if chunk.usage is not None and chunk.usage.estimated:
            chunk.usage = None  # what the beginning tells, in case the stream is cut; the end tells all
    return [*chunks, *decoder.finish()]


@given(completions(), st.lists(st.integers(0, 3000), max_size=6))
def test_a_stream_comes_back_as_it_went_however_it_is_cut(body: dict[str, Any], cuts: list[int]) -> None:
    chunks = told(body)
    encoder = AnthropicServerDialect().stream_encoder(CALL)
    stream = b"".join([*map(encoder.chunk, chunks), encoder.end()])
    assert heard(stream, cuts) == chunks
    assert heard(stream, list(range(len(stream)))) == chunks


@given(completions().map(lambda body: msgspec.json.decode(AnthropicServerDialect().reply(CALL, body))).flatmap(damaged))
def test_a_reply_with_junk_is_a_typed_error_or_an_answer(wire: Any) -> None:
    with contextlib.suppress(InferenceError):
        AnthropicDialect().decode("chat", 200, {}, msgspec.json.encode(wire))


def events(body: dict[str, Any]) -> list[Any]:
    """The decoded events of a completion's stream."""
    encoder = AnthropicServerDialect().stream_encoder(CALL)
    stream = b"".join([*map(encoder.chunk, told(body)), encoder.end()])
    return [msgspec.json.decode(line[6:]) for line in stream.split(b"\n") if line.startswith(b"data: ")]


@given(completions().map(events).flatmap(damaged))
def test_a_stream_with_junk_is_a_typed_error_or_an_answer(told_events: list[Any]) -> None:
    stream = b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in told_events)
    with contextlib.suppress(InferenceError):
        heard(stream, [])


@given(completions(), st.integers(0, 5000), st.binary(max_size=4))
def test_a_damaged_reply_or_stream_is_a_typed_error_or_an_answer(
    body: dict[str, Any], place: int, damage: bytes
) -> None:
    dialect, server = AnthropicDialect(lambda: 42.0), AnthropicServerDialect()
    content = server.reply(CALL, body)
    place %= len(content)
    try:
        dialect.decode("chat", 200, {}, content[:place] + damage + content[place + len(damage) :])
    except InferenceError as error:
        assert error.kind in ("malformed", "content_filtered", "server")  # noqa: PT017
    encoder = server.stream_encoder(CALL)
    stream = b"".join([*map(encoder.chunk, told(body)), encoder.end()])
    try:
        heard(stream[:place] + damage + stream[place + len(damage) :], [])
    except InferenceError as error:
        assert error.kind in ("malformed", "truncated", "content_filtered", "server")  # noqa: PT017
