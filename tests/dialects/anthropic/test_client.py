"""Canonical bodies as Anthropic's wire says them: its API reference, "Create a Message" and "Count tokens"."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import InvalidRequest
from engine.dialects.anthropic.client import AnthropicDialect
from engine.dialects.anthropic.request import DEFAULT_MAX_TOKENS
from engine.dialects.client import WireCall

HI = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
PNG = "data:image/png;base64,iVBORw0="


def encoded(body: dict[str, Any], *, stream: bool = False, drop: bool = False) -> WireCall:
    dialect = AnthropicDialect(lambda: 0.0)
    return dialect.encode("chat", {"messages": HI, **body}, model="m", stream=stream, drop_unsupported=drop)


def sent(**body: Any) -> dict[str, Any]:
    return msgspec.json.decode(encoded(body).content)  # type: ignore[no-any-return]


def refusal(**body: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        encoded(body)
    return caught.value.message


# -- the call ----------------------------------------------------------------------------------------------------------


def test_a_chat_is_a_message_call() -> None:
    call = encoded({"model": "other", "max_tokens": 5})
    assert (call.method, call.path, call.headers, call.warnings) == ("POST", "/v1/messages", {}, [])
    assert msgspec.json.decode(call.content) == {"model": "m", "max_tokens": 5, "messages": HI}


@pytest.mark.parametrize("task", ["completion", "embedding", "rerank"])
def test_another_task_is_refused(task: str) -> None:
    with pytest.raises(InvalidRequest, match="it has chat and token-count"):
        AnthropicDialect().encode(task, {"input": "x"}, model="m", stream=False)


def test_every_call_says_the_version_of_the_api() -> None:
    headers = AnthropicDialect().constant_headers(False)
    assert headers["anthropic-version"] == "2026-10-21"
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_a_call_that_sets_sampling_asks_for_the_version_that_has_it(name: str) -> None:
    call = encoded({name: 1})
    assert call.headers == {"anthropic-version": "2023-06-01"}
    assert msgspec.json.decode(call.content)[name] == 1


def test_the_key_is_sent_as_the_reference_says() -> None:
    assert AnthropicDialect().auth_headers("sk-ant-1") == {"x-api-key": "sk-ant-1"}


def test_a_stream_is_asked_for_and_stream_options_stay_here() -> None:
    body = msgspec.json.decode(encoded({"stream_options": {"include_usage": True}}, stream=True).content)
    assert (body["stream"], "stream_options" in body) == (True, False)
    assert "stream" not in sent(stream=True)


def test_the_callers_body_is_not_changed() -> None:
    body = {"messages": [*HI, {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "x"}]}]}
    before = msgspec.json.encode(body)
    encoded(body)
    assert msgspec.json.encode(body) == before


def test_what_json_can_not_hold_is_refused() -> None:
    assert "can't be written as JSON" in refusal(user=object())


def test_tokens_are_counted_by_a_call_of_their_own() -> None:
    call = AnthropicDialect().count_tokens({"seed": 1, "messages": HI, "temperature": 0.5, "tools": [TOOL]}, model="m")
    assert (call.path, set(msgspec.json.decode(call.content))) == (
        "/v1/messages/count_tokens",
        {"model", "messages", "tools"},
    )
    assert AnthropicDialect().token_count(200, {}, b'{"input_tokens":14}') == 14


def test_what_can_not_be_counted_is_refused_and_never_left_out_of_a_count_in_silence() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hear"}, sound]}]}
    with pytest.raises(InvalidRequest, match="input_audio"):
        AnthropicDialect().encode("token-count", body, model="m", stream=False)
    call = AnthropicDialect().encode("token-count", body, model="m", stream=False, drop_unsupported=True)
    assert "input_audio" in call.warnings[0]


# -- parameters --------------------------------------------------------------------------------------------------------


def test_a_limit_is_always_sent() -> None:
    assert sent()["max_tokens"] == DEFAULT_MAX_TOKENS
    assert sent(max_tokens=7)["max_tokens"] == 7
    assert sent(max_tokens=7, max_completion_tokens=9)["max_tokens"] == 9


@pytest.mark.parametrize(
    ("said", "wire"),
    [
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["a", "b"]}, {"stop_sequences": ["a", "b"]}),
        ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
        ({"user": "u1"}, {"metadata": {"user_id": "u1"}}),
        ({"safety_identifier": "u1"}, {"metadata": {"user_id": "u1"}}),
        ({"service_tier": "auto"}, {"service_tier": "auto"}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        (
            {"reasoning_effort": "high"},
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
        ),
        ({"response_format": {"type": "text"}}, {}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}},
            {
                "output_config": {
                    "format": {
                        "type": "json_schema",
                        "schema": {"type": "object", "properties": {}, "additionalProperties": False},
                    }
                }
            },
        ),
        ({"cache_control": {"type": "ephemeral"}}, {"cache_control": {"type": "ephemeral"}}),
        ({"n": 1, "logprobs": False, "presence_penalty": 0.0, "logit_bias": {}, "seed": None, "store": False}, {}),
    ],
)
def test_a_parameter_has_its_place(said: dict[str, Any], wire: dict[str, Any]) -> None:
    assert sent(**said) == {"model": "m", "max_tokens": DEFAULT_MAX_TOKENS, "messages": HI, **wire}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("seed", 7),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("frequency_penalty", 0.5),
        ("presence_penalty", -1),
        ("logit_bias", {"1": 2}),
        ("temperature", 1.5),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
        ("store", True),
        ("metadata", {"team": "a"}),
        ("service_tier", "flex"),
        ("reasoning_effort", "minimal"),
        ("response_format", {"type": "json_object"}),
        ("functions", [{"name": "f"}]),
        ("prediction", {"type": "content"}),
        ("priority", "high"),
        ("tools", [{"type": "web_search"}]),
    ],
)
def test_what_the_wire_can_not_say_is_refused_by_name_or_dropped_with_a_warning(name: str, value: Any) -> None:
    message = refusal(**{name: value})
    assert message.startswith(f"body.{name}")
    assert "provider.drop_unsupported=true" in message
    call = encoded({name: value}, drop=True)
    assert [warning.split(" ")[0].startswith(f"body.{name}") for warning in call.warnings] == [True]
    assert set(msgspec.json.decode(call.content)) == {"model", "max_tokens", "messages"}


# -- tools -------------------------------------------------------------------------------------------------------------


def test_tools_are_functions_with_a_schema() -> None:
    function = {"name": "f", "description": "does", "parameters": {"type": "object"}, "strict": True}
    assert sent(tools=[{"type": "function", "function": function}])["tools"] == [
        {"name": "f", "description": "does", "input_schema": {"type": "object"}, "strict": True}
    ]


def test_a_function_without_parameters_takes_none() -> None:
    tools = sent(tools=[{"type": "function", "function": {"name": "f"}}])["tools"]
    assert tools == [{"name": "f", "input_schema": {"type": "object", "properties": {}}}]


@pytest.mark.parametrize(
    ("choice", "parallel", "wire"),
    [
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (None, True, None),
        ({"type": "function", "function": {"name": "f"}}, None, {"type": "tool", "name": "f"}),
    ],
)
def test_a_choice_of_tools_has_its_form(choice: Any, parallel: bool | None, wire: Any) -> None:
    assert sent(tools=[TOOL], tool_choice=choice, parallel_tool_calls=parallel).get("tool_choice") == wire


def test_a_choice_that_the_wire_does_not_know_is_refused() -> None:
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}
    assert refusal(tools=[TOOL], tool_choice=allowed).startswith("body.tool_choice")


def test_calls_and_their_results_are_blocks() -> None:
    other = {**CALL, "id": "toolu_2"}
    messages = [
        *HI,
        {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL, other]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "7"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": [{"type": "text", "text": "8"}]},
        {"role": "user", "content": "and?"},
    ]
    assert sent(messages=messages)["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "toolu_2", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "7"},
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": [{"type": "text", "text": "8"}]},
            ],
        },
        {"role": "user", "content": "and?"},
    ]


@pytest.mark.parametrize("arguments", ["{", "[1]", "7"])
def test_a_call_whose_arguments_are_no_object_is_refused(arguments: str) -> None:
    call = {**CALL, "function": {"name": "f", "arguments": arguments}}
    message = refusal(messages=[*HI, {"role": "assistant", "content": None, "tool_calls": [call]}])
    assert message.startswith("body.messages.1.tool_calls.0.function.arguments")


# -- messages ----------------------------------------------------------------------------------------------------------


def test_a_system_prompt_has_its_own_field() -> None:
    body = sent(messages=[{"role": "system", "content": "Be brief."}, *HI])
    assert (body["system"], body["messages"]) == ("Be brief.", HI)


def test_several_system_prompts_at_the_start_stay_apart_and_in_order() -> None:
    body = sent(messages=[{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, *HI])
    assert body["system"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


def test_a_system_prompt_after_the_users_turn_keeps_its_place() -> None:
    system = {"role": "system", "content": "Now in French."}
    assert sent(messages=[*HI, system])["messages"] == [*HI, system]
    answered = [*HI, system, {"role": "assistant", "content": "salut"}, *HI]
    assert sent(messages=answered)["messages"] == answered


def test_system_prompts_in_a_row_become_one() -> None:
    messages = [*HI, {"role": "system", "content": "a"}, {"role": "system", "content": "b"}]
    assert sent(messages=messages)["messages"][1:] == [
        {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    ]


@pytest.mark.parametrize("before", [[*HI, {"role": "assistant", "content": "yes"}], HI])
def test_a_system_prompt_whose_place_the_wire_does_not_have_is_refused_or_moved(before: list[Any]) -> None:
    messages = [*before, {"role": "system", "content": "x"}, *HI]
    assert refusal(messages=messages).startswith(f"body.messages.{len(before)}: the Messages API takes a system")
    call = encoded({"messages": messages}, drop=True)
    assert "was moved to the start" in call.warnings[0]
    assert msgspec.json.decode(call.content)["system"] == "x"


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "auto"}},
            {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": PNG}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0="}},
        ),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"}},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
                "title": "a.pdf",
            },
        ),
        (
            {"type": "file", "file": {"file_data": "data:text/plain;base64,aGk="}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}},
        ),
        (
            {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}},
        ),
    ],
)
def test_a_content_part_is_a_block(part: dict[str, Any], block: dict[str, Any]) -> None:
    assert sent(messages=[{"role": "user", "content": [part]}])["messages"][0]["content"] == [block]


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, ""),
        ({"type": "image_url", "image_url": {"url": PNG, "detail": "high"}}, ".image_url.detail"),
        ({"type": "image_url", "image_url": {"url": "data:image/bmp;base64,AA=="}}, ".image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:image/png,raw"}}, ".image_url.url"),
        ({"type": "image_url"}, ".image_url.url"),
        ({"type": "file", "file": {"file_id": "file-1"}}, ".file"),
        ({"type": "file", "file": {"file_data": "data:audio/wav;base64,AA=="}}, ".file.file_data"),
        ({"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}}, ".file.file_data"),
    ],
)
def test_a_part_that_the_wire_can_not_say_is_refused_with_its_path(part: dict[str, Any], path: str) -> None:
    message = refusal(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}, part]}])
    assert message.startswith(f"body.messages.0.content.1{path}:")


def test_signed_thoughts_go_back_as_they_came() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    message = {"role": "assistant", "content": "7", "reasoning_content": "Hm.", "thinking_blocks": [thought]}
    assert sent(messages=[*HI, message, *HI])["messages"][1]["content"] == [thought, {"type": "text", "text": "7"}]


def test_unsigned_thoughts_are_refused() -> None:
    message = refusal(messages=[*HI, {"role": "assistant", "content": "7", "reasoning_content": "Hm."}, *HI])
    assert message.startswith("body.messages.1.reasoning_content: the Messages API takes only thoughts that it signed")


def test_a_reply_of_another_provider_can_be_history() -> None:
    reply = {"role": "assistant", "content": "7", "refusal": None, "annotations": [], "audio": None, "tool_calls": []}
    assert sent(messages=[*HI, reply, *HI])["messages"][1] == {"role": "assistant", "content": "7"}


@pytest.mark.parametrize(
    ("messages", "path"),
    [
        (None, "body.messages:"),
        ([], "body.messages:"),
        ("hi", "body.messages:"),
        ([{"role": "system", "content": "only"}], "body.messages:"),
        ([{"role": "function", "content": "x"}], "body.messages.0.role:"),
        (["hi"], "body.messages.0.role:"),
        ([{"role": "user", "content": None}], "body.messages.0.content:"),
        ([{"role": "user", "content": ["x"]}], "body.messages.0.content:"),
        ([{"role": "user", "content": "x", "name": "Ann"}], "body.messages.0.name:"),
        ([*HI, {"role": "tool", "content": "x"}], "body.messages.1.tool_call_id:"),
        ([{"role": "system", "content": [{"type": "image_url"}]}, *HI], "body.messages.0.content.0:"),
    ],
)
def test_messages_that_are_none_are_refused_with_their_path(messages: Any, path: str) -> None:
    assert refusal(messages=messages).startswith(path)


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [("temperature", 0.2, 1), ("top_p", 0.5, 0.97), ("top_k", 40, None)],
)
def test_sampling_that_claude_refuses_while_it_thinks_is_refused_by_name(name: str, value: Any, kept: Any) -> None:
    asked = {"reasoning_effort": "low", name: value}
    assert f"body.{name}: Claude takes no {name} of {value} while it thinks" in refusal(**asked)
    call = encoded({**asked}, drop=True)
    assert name not in msgspec.json.decode(call.content)
    assert call.warnings == [f"body.{name} was dropped: Claude takes no {name} of {value} while it thinks"]
    if kept is not None:
        assert sent(reasoning_effort="low", **{name: kept})[name] == kept
        assert sent(reasoning_effort="none", **{name: value})[name] == value


def test_a_tool_that_must_be_used_is_refused_while_claude_thinks() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    choice = {"type": "function", "function": {"name": "f"}}
    asked = {"reasoning_effort": "low", "tools": tools, "tool_choice": choice, "parallel_tool_calls": False}
    assert "body.tool_choice: Claude can't be made to use a tool while it thinks" in refusal(**asked)
    call = encoded({**asked}, drop=True)
    assert msgspec.json.decode(call.content)["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert sent(tools=tools, tool_choice=choice)["tool_choice"] == {"type": "tool", "name": "f"}
