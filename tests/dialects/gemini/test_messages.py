"""The conversation as it leaves for Gemini, held against its API reference, "Generating content" (Content, Part), and
its guides where a section names one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import InvalidRequest
from engine.dialects.client import WireCall
from engine.dialects.gemini.client import GeminiDialect

MODEL = "gemini-2.5-flash"
THIRD = "gemini-3.8-flash"
HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Now.", "parameters": {"type": "object", "properties": {}}},
}


def call(model: str = MODEL, *, drop: bool = False, **body: Any) -> WireCall:
    body = {"messages": HI, **body}
    return GeminiDialect(lambda: 0.0).encode("chat", body, model=model, stream=False, drop_unsupported=drop)


def sent(model: str = MODEL, **body: Any) -> dict[str, Any]:
    return msgspec.json.decode(call(model, **body).content)  # type: ignore[no-any-return]


def contents(*messages: dict[str, Any], model: str = MODEL) -> list[dict[str, Any]]:
    return sent(model, messages=list(messages))["contents"]  # type: ignore[no-any-return]


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def part(kind: str, said: Any, model: str = MODEL) -> dict[str, Any]:
    return contents(user({"type": kind, kind: said}), model=model)[0]["parts"][0]  # type: ignore[no-any-return]


# -- messages ----------------------------------------------------------------------------------------------------------


def test_system_messages_at_the_front_have_a_place_of_their_own() -> None:
    body = sent(messages=[{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, *HI])
    assert body["systemInstruction"] == {"parts": [{"text": "a"}, {"text": "b"}]}
    assert body["contents"] == [{"role": "user", "parts": [{"text": "hi"}]}]


def test_a_later_system_message_is_moved_to_the_front_only_with_a_warning() -> None:
    wire = call(drop=True, messages=[*HI, {"role": "system", "content": "x"}, *HI])
    assert msgspec.json.decode(wire.content)["systemInstruction"] == {"parts": [{"text": "x"}]}
    assert wire.warnings == ["body.messages.1: the system message was moved to the front, for its place can't be kept"]


def test_turns_keep_their_order_and_their_words() -> None:
    assert contents(*HI, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "bye"}) == [
        {"role": "user", "parts": [{"text": "hi"}]},
        {"role": "model", "parts": [{"text": "yes?"}]},
        {"role": "user", "parts": [{"text": "bye"}]},
    ]


@pytest.mark.parametrize(
    ("kind", "said", "wire"),
    [
        ("image_url", {"url": "data:image/png;base64,AA=="}, {"inlineData": {"mimeType": "image/png", "data": "AA=="}}),
        (
            "image_url",
            {"url": "https://x.test/a.JPG?b=c"},
            {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://x.test/a.JPG?b=c"}},
        ),
        ("image_url", {"url": "https://x.test/files/1"}, {"fileData": {"fileUri": "https://x.test/files/1"}}),
        ("image_url", "https://x.test/1", {"fileData": {"fileUri": "https://x.test/1"}}),
        ("input_audio", {"data": "AA==", "format": "wav"}, {"inlineData": {"mimeType": "audio/wav", "data": "AA=="}}),
        ("input_audio", {"data": "AA==", "format": "mp3"}, {"inlineData": {"mimeType": "audio/mp3", "data": "AA=="}}),
        ("video_url", {"url": "data:video/mp4;base64,AA=="}, {"inlineData": {"mimeType": "video/mp4", "data": "AA=="}}),
        (
            "file",
            {"file_data": "data:application/pdf;base64,AA=="},
            {"inlineData": {"mimeType": "application/pdf", "data": "AA=="}},
        ),
        ("file", {"file_id": "https://x.test/files/1"}, {"fileData": {"fileUri": "https://x.test/files/1"}}),
    ],
)
def test_media_have_their_parts(kind: str, said: Any, wire: dict[str, Any]) -> None:
    assert part(kind, said) == wire


def test_a_files_name_is_dropped_with_a_warning() -> None:
    file = {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}
    assert call(messages=[user({"type": "file", "file": file})]).warnings == [
        "body.messages.0.content.0.file.filename was dropped: Gemini takes no names of files"
    ]


def test_a_pictures_detail_is_its_resolution_from_gemini_3_on() -> None:
    image = {"url": "https://x.test/a.png", "detail": "low"}
    assert part("image_url", image, THIRD)["mediaResolution"] == {"level": "MEDIA_RESOLUTION_LOW"}
    with pytest.raises(InvalidRequest, match=r"content\.0\.image_url\.detail"):
        part("image_url", image)


@pytest.mark.parametrize("url", ["data:image/png,abc", "data:;base64,AA==", "data:image/png;base64", "file-1", ""])
def test_an_address_that_leads_nowhere_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"image_url\.url: expected"):
        part("image_url", {"url": url})


# -- tools: guide "Function calling" -----------------------------------------------------------------------------------


def test_tools_are_function_declarations() -> None:
    bare = {"type": "function", "function": {"name": "now"}}
    assert sent(tools=[WEATHER, bare])["tools"] == [
        {
            "functionDeclarations": [
                {
                    "name": "weather",
                    "description": "Now.",
                    "parametersJsonSchema": {"type": "object", "properties": {}},
                },
                {"name": "now"},
            ]
        }
    ]


@pytest.mark.parametrize(
    ("choice", "calling"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (
            {"type": "function", "function": {"name": "weather"}},
            {"mode": "ANY", "allowedFunctionNames": ["weather"]},
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"function": {"name": "weather"}}]}},
            {"mode": "VALIDATED", "allowedFunctionNames": ["weather"]},
        ),
    ],
)
def test_a_choice_of_tools_has_its_mode(choice: Any, calling: dict[str, Any]) -> None:
    assert sent(tools=[WEATHER], tool_choice=choice)["toolConfig"] == {"functionCallingConfig": calling}


def test_strict_functions_are_validated() -> None:
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}  # type: ignore[dict-item]
    assert sent(tools=[strict])["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}
    assert "toolConfig" not in sent(tools=[WEATHER])


def test_calls_and_their_results_are_matched_by_id_and_name() -> None:
    second = {**CALL, "id": "c2"}
    assistant = {"role": "assistant", "content": "Wait.", "tool_calls": [CALL, second]}
    results = [{"role": "tool", "tool_call_id": name, "content": "sunny"} for name in ("c1", "c2")]
    assert contents(*HI, assistant, *results)[1:] == [
        {
            "role": "model",
            "parts": [
                {"text": "Wait."},
                {"functionCall": {"name": "weather", "args": {"city": "Paris"}, "id": "c1"}},
                {"functionCall": {"name": "weather", "args": {"city": "Paris"}, "id": "c2"}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": name, "name": "weather", "response": {"output": "sunny"}}}
                for name in ("c1", "c2")
            ],
        },
    ]


@pytest.mark.parametrize(
    ("content", "response"),
    [
        ("sunny", {"output": "sunny"}),
        ('{"sky":"blue"}', {"sky": "blue"}),
        ('{"output":"x"}', {"output": '{"output":"x"}'}),
        ('{"output":1}', {"output": 1}),
        ("{broken", {"output": "{broken"}),
        ("[1]", {"output": "[1]"}),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], {"output": "ab"}),
    ],
)
def test_a_result_is_an_object(content: Any, response: dict[str, Any]) -> None:
    assistant = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    made = contents(*HI, assistant, {"role": "tool", "tool_call_id": "c1", "content": content})
    assert made[2]["parts"][0]["functionResponse"]["response"] == response


def test_a_result_may_hold_a_picture() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    assistant = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    made = contents(*HI, assistant, {"role": "tool", "tool_call_id": "c1", "content": [image]})
    said = made[2]["parts"][0]["functionResponse"]
    assert said["parts"] == [{"inlineData": {"mimeType": "image/png", "data": "AA=="}}]


@pytest.mark.parametrize("arguments", ["[]", "{", "7", '"x"'])
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    broken = {**CALL, "function": {"name": "weather", "arguments": arguments}}
    with pytest.raises(InvalidRequest, match=r"body\.messages\.1\.tool_calls\.0\.function\.arguments"):
        contents(*HI, {"role": "assistant", "content": None, "tool_calls": [broken]})


# -- thought signatures: guide "Thought signatures" --------------------------------------------------------------------


def test_a_signature_goes_back_to_where_it_stood() -> None:
    signed = {**CALL, "extra_content": {"google": {"thought_signature": "c2ln"}}}
    answer = {"role": "assistant", "content": "ok", "extra_content": {"google": {"thought_signature": "dGV4dA=="}}}
    made = contents(*HI, {"role": "assistant", "content": None, "tool_calls": [signed, CALL]}, answer, model=THIRD)
    assert [each.get("thoughtSignature") for each in made[1]["parts"]] == ["c2ln", None]
    assert made[2]["parts"] == [{"text": "ok", "thoughtSignature": "dGV4dA=="}]


def test_a_call_of_another_model_is_marked_as_one_for_gemini_3_alone() -> None:
    assistant = {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]}
    parts = contents(*HI, assistant, model=THIRD)[1]["parts"]
    assert [each.get("thoughtSignature") for each in parts] == ["skip_thought_signature_validator", None]
    assert "thoughtSignature" not in contents(*HI, assistant)[1]["parts"][0]
