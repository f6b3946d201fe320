"""What clients of Gemini's wire send, and what they get, by hand. Google's own client: test_gemini_client.py."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import ContentFiltered, InvalidRequest, Malformed, Overloaded, Throttled
from engine.core.registry import SERVER_DIALECTS
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.gemini.server import GeminiServerDialect
from engine.dialects.server import ClientCall
from tests.servers.replies import chunk as text_chunk
from tests.servers.replies import completion

HI = [{"role": "user", "parts": [{"text": "hi"}]}]
CHAT = "/v1beta/models/m:generateContent"
CALL = ClientCall("chat", {}, False, "m", None)


def read(path: str = CHAT, headers: dict[str, str] | None = None, **body: Any) -> ClientCall:
    wire = body if "Embed" in path or "embed" in path else {"contents": HI, **body}
    return GeminiServerDialect().read(path, {"model": "m"}, headers or {}, msgspec.json.encode(wire))


def refused(path: str = CHAT, **body: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read(path, **body)
    return caught.value.message


def replied(body: dict[str, Any]) -> dict[str, Any]:
    return msgspec.json.decode(GeminiServerDialect().reply(CALL, body))  # type: ignore[no-any-return]


def delta(reason: str | None = None, **said: Any) -> Chunk:
    return Chunk({**text_chunk(), "choices": [{"index": 0, "delta": said, "finish_reason": reason}]})


def events(data: bytes) -> list[dict[str, Any]]:
    return [msgspec.json.decode(each.removeprefix(b"data: ")) for each in data.split(b"\r\n\r\n") if each]


def streamed(*chunks: Chunk) -> list[dict[str, Any]]:
    encoder = GeminiServerDialect().stream_encoder(CALL)
    return events(b"".join([*map(encoder.chunk, chunks), encoder.end()]))


# -- requests ----------------------------------------------------------------------------------------------------------


def test_it_is_registered() -> None:
    assert SERVER_DIALECTS.get("gemini") is GeminiServerDialect


def test_a_call_is_a_chat_with_the_model_of_its_path() -> None:
    call = read()
    assert (call.task, call.model, call.stream, call.key, call.warnings) == ("chat", "m", False, None, [])
    assert call.body == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_a_stream_is_told_by_the_path() -> None:
    assert read("/v1beta/models/m:streamGenerateContent?alt=sse").stream
    assert refused("/v1beta/models/m:streamGenerateContent").startswith("alt:")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (CHAT, {"x-goog-api-key": "k"}),
        (CHAT, {"authorization": "Bearer k"}),
        (f"{CHAT}?key=k", {}),
        (f"{CHAT}?key=other", {"x-goog-api-key": "k"}),
    ],
)
def test_the_key_is_read_wherever_a_client_puts_it(path: str, headers: dict[str, str]) -> None:
    assert read(path, headers).key == "k"


def test_both_spellings_of_a_field_are_read() -> None:
    parts = [{"inline_data": {"mime_type": "image/png", "data": "AA=="}}, {"text": "what?"}]
    call = read(
        contents=[{"parts": parts}],
        system_instruction={"parts": {"text": "Be brief."}},
        generation_config={"max_output_tokens": 5, "top_p": 0.5},
    )
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    assert call.body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [image, {"type": "text", "text": "what?"}]},
    ]
    assert (call.body["max_completion_tokens"], call.body["top_p"]) == (5, 0.5)


def test_results_without_ids_are_matched_by_name_and_order() -> None:
    # Guide "Function calling": ids are optional, results stand in the order of the calls.
    calls = [{"functionCall": {"name": name, "args": {}}} for name in ("f", "g", "f")]
    results = [{"functionResponse": {"name": name, "response": {"output": str(n)}}} for n, name in enumerate("gff")]
    messages = read(contents=[*HI, {"role": "model", "parts": calls}, {"role": "user", "parts": results}]).body[
        "messages"
    ]
    ids = [call["id"] for call in messages[1]["tool_calls"]]
    assert len(set(ids)) == 3
    assert [(each["tool_call_id"], each["content"]) for each in messages[2:]] == [
        (ids[1], "0"),
        (ids[0], "1"),
        (ids[2], "2"),
    ]


def test_results_and_words_of_one_turn_are_messages_in_their_order() -> None:
    call = {"functionCall": {"id": "c", "name": "f"}}
    turn = [{"functionResponse": {"id": "c", "name": "f", "response": {"a": 1}}}, {"text": "and?"}]
    said = read(contents=[*HI, {"role": "model", "parts": [call]}, {"role": "user", "parts": turn}]).body["messages"]
    assert said[2:] == [
        {"role": "tool", "tool_call_id": "c", "content": '{"a":1}'},
        {"role": "user", "content": "and?"},
    ]


def test_an_openapi_schema_becomes_a_json_schema() -> None:
    schema = {
        "type": "OBJECT",
        "title": "Weather",
        "properties": {
            "sky": {"type": "STRING", "enum": ["blue", "grey"], "nullable": True},
            "hours": {"type": "ARRAY", "items": {"type": "INTEGER"}, "minItems": "2"},
            "wind": {"anyOf": [{"type": "NUMBER"}, {"type": "STRING"}]},
        },
        "required": ["sky"],
        "propertyOrdering": ["sky", "hours"],
    }
    config = {"responseMimeType": "application/json", "responseSchema": schema}
    assert read(generationConfig=config).body["response_format"] == {
        "type": "json_schema",
        "json_schema": {
            "name": "Weather",
            "schema": {
                "type": "object",
                "title": "Weather",
                "properties": {
                    "sky": {"type": ["string", "null"], "enum": ["blue", "grey", None]},
                    "hours": {"type": "array", "items": {"type": "integer"}, "minItems": 2},
                    "wind": {"anyOf": [{"type": "number"}, {"type": "string"}]},
                },
                "required": ["sky"],
            },
        },
    }


@pytest.mark.parametrize(
    ("thinking", "effort", "warned"),
    [
        ({"thinkingBudget": 0}, "none", 0),
        ({"thinkingBudget": -1}, None, 0),
        ({"thinkingBudget": 1024}, "low", 0),
        ({"thinkingBudget": 2000}, "medium", 1),
        ({"thinkingBudget": 99999}, "high", 1),
        ({"thinkingLevel": "high", "includeThoughts": True}, "high", 0),
        ({"includeThoughts": True}, None, 0),
    ],
)
def test_thinking_is_an_effort(thinking: dict[str, Any], effort: str | None, warned: int) -> None:
    call = read(generationConfig={"thinkingConfig": thinking})
    assert call.body.get("reasoning_effort") == effort
    assert len(call.warnings) == warned


def test_strict_calling_is_strict_functions() -> None:
    tools = [{"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJECT"}}]}]
    call = read(tools=tools, toolConfig={"functionCallingConfig": {"mode": "VALIDATED"}})
    assert call.body["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
    ]


def test_hints_for_googles_own_servers_are_left_out_with_a_warning() -> None:
    call = read(safetySettings=[], labels={"a": "b"}, generationConfig={"mediaResolution": "MEDIA_RESOLUTION_LOW"})
    assert sorted(warning.split(" ")[0] for warning in call.warnings) == [
        "generationConfig.mediaResolution",
        "labels",
        "safetySettings",
    ]
    assert set(call.body) == {"model", "messages"}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"contents": []}, "contents:"),
        ({"contents": [7]}, "contents.0:"),
        ({"contents": [{"role": "user"}]}, "contents.0.parts:"),
        ({"contents": [{"role": "robot", "parts": [{"text": "x"}]}]}, "contents.0.role:"),
        ({"contents": [{"parts": [{"text": 7}]}]}, "contents.0.parts.0.text:"),
        ({"contents": [{"parts": [{}]}]}, "contents.0.parts.0:"),
        ({"contents": [{"parts": [{"executableCode": {}}]}]}, "contents.0.parts.0.executableCode:"),
        ({"contents": [{"parts": [{"inlineData": {"data": "AA"}}]}]}, "contents.0.parts.0.inlineData.mimeType:"),
        ({"contents": [{"parts": [{"functionResponse": {"name": "f"}}]}]}, "contents.0.parts.0.functionResponse:"),
        ({"systemInstruction": {"parts": [{"inlineData": {}}]}}, "systemInstruction.parts.0.text:"),
        ({"cachedContent": "cachedContents/1"}, "cachedContent:"),
        ({"colour": "red"}, "colour:"),
        ({"generationConfig": {"colour": "red"}}, "generationConfig.colour:"),
        ({"generationConfig": 7}, "generationConfig:"),
        ({"generationConfig": {"responseSchema": {"type": "OBJECT"}}}, "generationConfig.responseMimeType:"),
        ({"generationConfig": {"responseMimeType": "text/x.enum"}}, "generationConfig.responseMimeType:"),
        ({"tools": [{"googleSearch": {}}]}, "tools.0.googleSearch:"),
        ({"tools": [{"functionDeclarations": [{}]}]}, "tools.0.functionDeclarations.0.name:"),
        (
            {"tools": [{"functionDeclarations": [{"name": "f", "parameters": {"not": {}}}]}]},
            "tools.0.functionDeclarations.0.parameters.not:",
        ),
    ],
)
def test_what_this_server_can_not_do_is_refused(body: dict[str, Any], path: str) -> None:
    assert refused(**body).startswith(path)


@pytest.mark.parametrize("content", [b"", b"7", b"[]", b"\xff", b'{"contents": {"parts"', b"[" * 100_000])
def test_a_body_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest):
        GeminiServerDialect().read(CHAT, {"model": "m"}, {}, content)


def test_an_embedding_call_is_read() -> None:
    content = {"parts": [{"text": "a"}]}
    one = read("/v1beta/models/m:embedContent", content=content, taskType="CLUSTERING")
    assert (one.task, one.body) == ("embedding", {"model": "m", "input": "a"})
    assert one.warnings[0].startswith("the body.taskType was left out")
    requests = [{"model": "models/m", "content": content, "outputDimensionality": 8}] * 2
    many = read("/v1/models/m:batchEmbedContents", requests=requests)
    assert many.body == {"model": "m", "input": ["a", "a"], "dimensions": 8}


@pytest.mark.parametrize(
    ("requests", "path"),
    [
        ([], "requests:"),
        ([{"content": {"parts": []}}], "requests.0.content.parts:"),
        ([{"content": {"parts": [{"inlineData": {}}]}}], "requests.0.content.parts:"),
        (
            [
                {"content": {"parts": [{"text": "a"}]}},
                {"content": {"parts": [{"text": "a"}]}, "outputDimensionality": 8},
            ],
            "requests: outputDimensionality",
        ),
    ],
)
def test_what_can_not_be_embedded_together_is_refused(requests: Any, path: str) -> None:
    assert refused("/v1beta/models/m:batchEmbedContents", requests=requests).startswith(path)


# -- replies -----------------------------------------------------------------------------------------------------------


def test_a_reply_is_a_response() -> None:
    assert replied(completion()) == {
        "candidates": [
            {"content": {"parts": [{"text": "Paris."}], "role": "model"}, "finishReason": "STOP", "index": 0}
        ],
        "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 2, "totalTokenCount": 9},
        "modelVersion": "m",
        "responseId": "chatcmpl-1",
    }


def test_arguments_that_are_no_object_are_the_models_failure() -> None:
    body = completion()
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
    body["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
    with pytest.raises(Malformed, match="call of f"):
        replied(body)


def test_a_refused_content_is_a_blocked_prompt() -> None:
    status, _, content = GeminiServerDialect().refusal(ContentFiltered("No.", code="SAFETY"))
    assert status == 200
    assert msgspec.json.decode(content)["promptFeedback"] == {"blockReason": "SAFETY", "blockReasonMessage": "No."}


def test_a_refusal_tells_how_long_to_wait_in_both_places() -> None:
    status, headers, content = GeminiServerDialect().refusal(Throttled("Slow down.", retry_after_s=1.25))
    error = msgspec.json.decode(content)["error"]
    assert (status, headers["retry-after"]) == (429, "2")
    assert (error["code"], error["status"], error["message"]) == (429, "RESOURCE_EXHAUSTED", "Slow down.")
    assert error["details"][-1] == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.25s"}


def test_the_models_are_listed() -> None:
    assert msgspec.json.decode(GeminiServerDialect().models(["a"])) == {
        "models": [{"name": "models/a", "displayName": "a"}]
    }


# -- streams -----------------------------------------------------------------------------------------------------------


def test_the_last_event_tells_the_end_and_the_usage() -> None:
    said = streamed(delta(role="assistant", content="Pa"), delta(content="ris"), delta("length"), delta())
    assert [event["candidates"][0].get("finishReason") for event in said] == [None, None, "MAX_TOKENS"]
    assert [event["candidates"][0]["content"]["parts"][0]["text"] for event in said] == ["Pa", "ris", ""]
    with_usage = streamed(delta(content="Pa"), Chunk(delta("stop").body, Usage(3, 4, 1, 2)))
    assert with_usage[-1]["usageMetadata"] == {
        "promptTokenCount": 3,
        "candidatesTokenCount": 2,
        "totalTokenCount": 7,
        "cachedContentTokenCount": 1,
        "thoughtsTokenCount": 2,
    }


def test_the_pieces_of_a_call_are_put_together() -> None:
    first = {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":'}}
    rest = {"index": 0, "function": {"arguments": "1}"}}
    second = {"index": 1, "id": "b", "function": {"name": "g", "arguments": ""}}
    said = streamed(
        delta(tool_calls=[first]), delta(tool_calls=[rest]), delta(tool_calls=[second]), delta("tool_calls")
    )
    calls = [
        part["functionCall"]
        for event in said
        for part in event["candidates"][0]["content"]["parts"][:1]
        if "functionCall" in part
    ]
    assert calls == [{"id": "a", "name": "f", "args": {"x": 1}}, {"id": "b", "name": "g", "args": {}}]
    assert said[-1]["candidates"][0]["finishReason"] == "STOP"


def test_a_call_that_was_cut_off_breaks_the_stream() -> None:
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":'}}
    assert "arguments that are not JSON" in streamed(delta(tool_calls=[call]))[-1]["error"]["message"]


def test_an_answer_that_began_anew_breaks_the_stream() -> None:
    encoder = GeminiServerDialect().stream_encoder(CALL)
    encoder.chunk(delta(content="Pa"))
    told = events(encoder.chunk(Chunk({"choices": []}, restarted=True)))
    assert told[0]["error"]["status"] == "UNAVAILABLE"
    assert encoder.chunk(delta(content="ris")) + encoder.end() == b""


def test_a_stream_of_nothing_still_ends() -> None:
    assert streamed()[0]["candidates"][0]["finishReason"] == "STOP"


def test_a_broken_stream_ends_with_its_error() -> None:
    encoder = GeminiServerDialect().stream_encoder(CALL)
    assert events(encoder.failed(Overloaded("Busy.")))[0]["error"]["code"] == 503
