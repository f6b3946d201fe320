"""What leaves for Gemini, held against its API reference (v1beta): "Generating content", "Embeddings", "Counting
tokens", "Models"; and its guides where a test names one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import InvalidRequest, ServerFailed
from engine.core.registry import DIALECTS
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


def call(model: str = MODEL, *, drop: bool = False, stream: bool = False, **body: Any) -> WireCall:
    body = {"messages": HI, **body}
    return GeminiDialect(lambda: 0.0).encode("chat", body, model=model, stream=stream, drop_unsupported=drop)


def sent(model: str = MODEL, **body: Any) -> dict[str, Any]:
    return msgspec.json.decode(call(model, **body).content)  # type: ignore[no-any-return]


def config(model: str = MODEL, **body: Any) -> dict[str, Any]:
    return sent(model, **body).get("generationConfig", {})  # type: ignore[no-any-return]


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def refused(model: str = MODEL, **body: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        call(model, **body)
    return caught.value.message


# -- addresses and keys ------------------------------------------------------------------------------------------------


def test_it_is_registered() -> None:
    assert DIALECTS.get("gemini") is GeminiDialect


def test_a_call_names_its_model_in_the_path() -> None:
    assert (call().method, call().path) == ("POST", "/models/gemini-2.5-flash:generateContent")


def test_a_stream_has_a_method_of_its_own_and_asks_for_events() -> None:
    assert call(stream=True).path == "/models/gemini-2.5-flash:streamGenerateContent?alt=sse"


@pytest.mark.parametrize("model", ["models/gemini-2.5-flash", "tunedModels/my-model_1"])
def test_a_full_name_of_a_model_is_kept(model: str) -> None:
    assert call(model).path == f"/{model}:generateContent"


@pytest.mark.parametrize("model", ["a?key=b", "../files", "a b", "", "a//b", "a:b", "ä", "models/..", "x/./y"])
def test_a_model_can_not_change_the_address(model: str) -> None:
    assert refused(model).startswith("body.model:")


def test_the_key_stands_in_a_header_of_google() -> None:
    assert GeminiDialect().auth_headers("k") == {"x-goog-api-key": "k"}


def test_the_models_are_listed() -> None:
    probe = GeminiDialect().probe()
    assert (probe.method, probe.path) == ("GET", "/models?pageSize=1000")
    listed = {"models": [{"name": "models/a"}, {"name": "tunedModels/b"}, {}, 7]}
    assert GeminiDialect().models(msgspec.json.encode(listed)) == ["a", "tunedModels/b"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"models": 7}'])
def test_a_list_that_can_not_be_read_is_empty(content: bytes) -> None:
    assert GeminiDialect().models(content) == []


# -- fields ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "wire", "said"),
    [
        ("temperature", 0.5, "temperature", 0.5),
        ("top_p", 0.9, "topP", 0.9),
        ("top_k", 40, "topK", 40),
        ("n", 2, "candidateCount", 2),
        ("seed", 7, "seed", 7),
        ("presence_penalty", 0.1, "presencePenalty", 0.1),
        ("frequency_penalty", -0.1, "frequencyPenalty", -0.1),
        ("logprobs", True, "responseLogprobs", True),
        ("top_logprobs", 3, "logprobs", 3),
        ("max_tokens", 5, "maxOutputTokens", 5),
        ("max_completion_tokens", 6, "maxOutputTokens", 6),
        ("stop", "x", "stopSequences", ["x"]),
        ("stop", ["x", "y"], "stopSequences", ["x", "y"]),
        ("response_format", {"type": "text"}, "responseMimeType", "text/plain"),
        ("response_format", {"type": "json_object"}, "responseMimeType", "application/json"),
        ("modalities", ["text", "image"], "responseModalities", ["TEXT", "IMAGE"]),
    ],
)
def test_a_field_has_its_place(field: str, value: Any, wire: str, said: Any) -> None:
    assert config(**{field: value}) == {wire: said}


@pytest.mark.parametrize(
    "body",
    [
        {"temperature": None},
        {"parallel_tool_calls": True},
        {"tool_choice": "auto"},
        {"modalities": ["text"]},
        {"logit_bias": {}},
        {"stream_options": {"include_usage": True}},
        {"service_tier": "auto"},
        {"store": False},
    ],
)
def test_what_asks_for_nothing_special_is_left_out(body: dict[str, Any]) -> None:
    assert sent(**body) == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    assert call(**body).warnings == []


def test_a_schema_goes_on_as_it_is() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "string"}}}
    form = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    assert config(response_format=form) == {"responseMimeType": "application/json", "responseJsonSchema": schema}


def test_a_schemas_description_goes_into_the_schema() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "description": "d", "schema": {"type": "object"}}}
    assert config(response_format=form)["responseJsonSchema"] == {"type": "object", "description": "d"}


@pytest.mark.parametrize(
    ("effort", "budget"), [("none", 0), ("minimal", 1024), ("low", 1024), ("medium", 8192), ("high", 24576)]
)
def test_an_effort_is_a_budget_for_gemini_2(effort: str, budget: int) -> None:
    # Guide "OpenAI compatibility", the table of reasoning_effort.
    assert config(reasoning_effort=effort)["thinkingConfig"]["thinkingBudget"] == budget


@pytest.mark.parametrize("effort", ["minimal", "low", "medium", "high"])
@pytest.mark.parametrize("model", [THIRD, "gemini-flash-latest", "models/gemini-3-pro-preview"])
def test_an_effort_is_a_level_from_gemini_3_on(effort: str, model: str) -> None:
    thinking = config(model, reasoning_effort=effort)["thinkingConfig"]
    assert thinking == {"thinkingLevel": effort.upper(), "includeThoughts": True}


def test_thoughts_that_can_not_be_turned_off_are_said_so() -> None:
    assert "body.reasoning_effort: this Gemini model always thinks" in refused(THIRD, reasoning_effort="none")
    assert "thinkingConfig" not in config(THIRD, drop=True, reasoning_effort="none")


def test_what_only_gemini_has_stands_in_extra_body() -> None:
    # Guide "OpenAI compatibility", "extra_body".
    google = {
        "thinking_config": {"thinking_budget": 800, "include_thoughts": True},
        "cached_content": "cachedContents/1",
        "safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    }
    body = sent(extra_body={"google": google})
    assert body["generationConfig"]["thinkingConfig"] == {"thinkingBudget": 800, "includeThoughts": True}
    assert body["cachedContent"] == "cachedContents/1"
    assert body["safetySettings"] == google["safety_settings"]


def test_an_answer_in_sound_has_a_voice() -> None:
    # Guide "Speech generation".
    assert config(modalities=["audio"], audio={"voice": "Kore", "format": "pcm16"}) == {
        "responseModalities": ["AUDIO"],
        "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}},
    }


@pytest.mark.parametrize("tier", [("default", "standard"), ("flex", "flex"), ("priority", "priority")])
def test_a_tier_has_its_word(tier: tuple[str, str]) -> None:
    assert sent(service_tier=tier[0])["serviceTier"] == tier[1]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"logit_bias": {"1": 2}}, "body.logit_bias"),
        ({"user": "u"}, "body.user"),
        ({"metadata": {"a": "b"}}, "body.metadata"),
        ({"priority": "high"}, "body.priority"),
        ({"guided_json": {}}, "body.guided_json"),
        ({"parallel_tool_calls": False}, "body.parallel_tool_calls"),
        ({"tool_choice": "required"}, "body.tool_choice"),
        ({"service_tier": "scale"}, "body.service_tier"),
        ({"reasoning_effort": "huge"}, "body.reasoning_effort"),
        ({"response_format": {"type": "grammar"}}, "body.response_format"),
        ({"modalities": ["smell"]}, "body.modalities"),
        ({"audio": {"voice": "Kore", "format": "mp3"}}, "body.audio.format"),
        ({"extra_body": {"openai": {}}}, "body.extra_body"),
        ({"extra_body": {"google": {"x": 1}}}, "body.extra_body.google.x"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "body.tools.0"),
        ({"tools": [{"type": "function", "function": {"name": "x", "y": 1}}]}, "body.tools.0.function.y"),
        ({"messages": [{"role": "user", "content": "hi", "name": "Ann"}]}, "body.messages.0.name"),
        ({"messages": [*HI, {"role": "system", "content": "x"}]}, "body.messages.1"),
    ],
)
def test_what_can_not_be_said_is_refused_or_dropped_with_a_warning(body: dict[str, Any], path: str) -> None:
    message = refused(**body)
    assert message.startswith(f"{path}:")
    assert "provider.drop_unsupported=true" in message
    assert call(drop=True, **body).warnings[0].startswith(path)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"messages": []}, "body.messages:"),
        ({"messages": "hi"}, "body.messages:"),
        ({"messages": [{"role": "system", "content": "x"}]}, "body.messages: Gemini needs a message of the user"),
        ({"messages": [{"role": "function", "content": "x"}]}, "body.messages.0.role:"),
        ({"messages": [7]}, "body.messages.0.role:"),
        ({"messages": [{"role": "user", "content": 7}]}, "body.messages.0.content:"),
        ({"messages": [user({"type": "text"})]}, "body.messages.0.content.0.text:"),
        ({"messages": [user({"type": "input_image"})]}, "body.messages.0.content.0.type:"),
        ({"messages": [user({"type": "image_url", "image_url": {}})]}, "body.messages.0.content.0.image_url.url:"),
        (
            {"messages": [user({"type": "file", "file": {"file_id": "file-1"}})]},
            "body.messages.0.content.0.file.file_id",
        ),
        ({"messages": [*HI, {"role": "tool", "tool_call_id": "c", "content": "x"}]}, "body.messages.1.tool_call_id:"),
        ({"response_format": {"type": "json_schema"}}, "body.response_format.json_schema.schema:"),
        ({"audio": {}}, "body.audio.voice:"),
        ({"tools": {}}, "body.tools:"),
    ],
)
def test_what_makes_no_sense_is_refused_in_any_case(body: dict[str, Any], path: str) -> None:
    assert refused(drop=True, **body).startswith(path)


def test_sampling_that_a_model_ignores_is_told() -> None:
    # "What's new in Gemini 3.6 Flash and 3.5 Flash-Lite": the fields are taken and have no effect.
    assert call(THIRD, temperature=0.2).warnings == [
        "body.temperature has no effect: gemini-3.8-flash samples in a way of its own"
    ]
    assert call("gemini-3.5-flash", temperature=0.2).warnings == []


@pytest.mark.parametrize("task", ["completion", "rerank", "speech"])
def test_other_tasks_are_refused(task: str) -> None:
    with pytest.raises(InvalidRequest, match="it has chat, embedding and token-count"):
        GeminiDialect().encode(task, {}, model=MODEL, stream=False)


@pytest.mark.parametrize("value", [object(), "\ud800"])
def test_what_json_can_not_hold_is_refused(value: Any) -> None:
    assert refused(seed=value).startswith("body: can't be written as JSON")


def test_the_callers_body_is_not_changed() -> None:
    assistant = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    body = {"messages": [*HI, assistant], "reasoning_effort": "low", "tools": [WEATHER]}
    before = msgspec.json.encode(body)
    call(THIRD, **body)
    assert msgspec.json.encode(body) == before


# -- embeddings and counting -------------------------------------------------------------------------------------------


def embed(**body: Any) -> WireCall:
    return GeminiDialect().encode("embedding", body, model="gemini-embedding-001", stream=False)


def test_one_text_is_embedded_by_itself() -> None:
    wire = embed(input="a", dimensions=8)
    assert wire.path == "/models/gemini-embedding-001:embedContent"
    assert msgspec.json.decode(wire.content) == {"content": {"parts": [{"text": "a"}]}, "outputDimensionality": 8}


def test_several_texts_are_embedded_in_one_call() -> None:
    wire = embed(input=["a", "b"], extra_body={"google": {"task_type": "CLUSTERING"}}, encoding_format="float")
    assert wire.path == "/models/gemini-embedding-001:batchEmbedContents"
    assert msgspec.json.decode(wire.content)["requests"][1] == {
        "model": "models/gemini-embedding-001",
        "content": {"parts": [{"text": "b"}]},
        "taskType": "CLUSTERING",
    }


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"input": [[1, 2]]}, "body.input.0:"),
        ({"input": []}, "body.input:"),
        ({}, "body.input:"),
        ({"input": "a", "encoding_format": "hex"}, "body.encoding_format:"),
        ({"input": "a", "user": "u"}, "body.user:"),
        ({"input": "a", "extra_body": {"google": {"x": 1}}}, "body.extra_body.google.x:"),
    ],
)
def test_what_can_not_be_embedded_is_refused(body: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        embed(**body)
    assert caught.value.message.startswith(path)


def test_an_embedding_is_not_streamed() -> None:
    with pytest.raises(InvalidRequest, match="can't be streamed"):
        GeminiDialect().encode("embedding", {"input": "a"}, model="m", stream=True)


def test_tokens_are_counted_of_the_whole_request() -> None:
    dialect = GeminiDialect()
    wire = dialect.count_tokens({"messages": [{"role": "system", "content": "s"}, *HI], "user": "u"}, model=MODEL)
    assert wire.path == "/models/gemini-2.5-flash:countTokens"
    assert msgspec.json.decode(wire.content)["generateContentRequest"] == {
        "model": "models/gemini-2.5-flash",
        "systemInstruction": {"parts": [{"text": "s"}]},
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
    }
    with pytest.raises(InvalidRequest, match=r"body\.messages\.1: Gemini takes system messages only before"):
        dialect.count_tokens({"messages": [*HI, {"role": "system", "content": "s"}]}, model=MODEL)
    assert dialect.token_count(200, {}, b'{"totalTokens": 31, "cachedContentTokenCount": 3}') == 31
    with pytest.raises(ServerFailed):
        dialect.token_count(500, {}, b'{"error": {"code": 500, "message": "x", "status": "INTERNAL"}}')
