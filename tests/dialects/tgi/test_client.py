"""Requests and replies of Text Generation Inference. Fixtures are from its OpenAPI document (docs/openapi.json)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import (
    InferenceError,
    InvalidRequest,
    Malformed,
    Overloaded,
    ServerFailed,
    TooLong,
    Truncated,
)
from engine.core.usage import Usage
from engine.dialects.tgi.client import TgiDialect

ASK = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
FORM = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}


@pytest.fixture
def dialect() -> TgiDialect:
    return TgiDialect(lambda: 1000.0)


def parameters(dialect: TgiDialect, *, stream: bool = False, **body: Any) -> dict[str, Any]:
    call = dialect.encode("completion", {"prompt": "x", **body}, model="m", stream=stream)
    return msgspec.json.decode(call.content)["parameters"]  # type: ignore[no-any-return]


def chat(dialect: TgiDialect, **body: Any) -> dict[str, Any]:
    call = dialect.encode("chat", {"messages": ASK, **body}, model="m", stream=False)
    return msgspec.json.decode(call.content)  # type: ignore[no-any-return]


def decoded(dialect: TgiDialect, body: Any, task: str = "completion", **headers: str) -> Any:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return dialect.decode(task, 200, {name.replace("_", "-"): value for name, value in headers.items()}, content)


@pytest.mark.parametrize(
    ("task", "stream", "path"),
    [
        ("completion", False, "/generate"),
        ("completion", True, "/generate_stream"),
        ("chat", False, "/v1/chat/completions"),
        ("chat", True, "/v1/chat/completions"),
    ],
)
def test_each_task_has_its_path(dialect: TgiDialect, task: str, stream: bool, path: str) -> None:
    call = dialect.encode(
        task,
        {"prompt": "x", "messages": ASK} if task == "chat" else {"prompt": "x"},
        model="m",
        stream=stream,
        drop_unsupported=True,
    )
    assert (call.method, call.path) == ("POST", path)


def test_sampling_goes_into_parameters(dialect: TgiDialect) -> None:
    assert parameters(
        dialect,
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        seed=7,
        stop="END",
        frequency_penalty=0.1,
        repetition_penalty=1.1,
        typical_p=0.9,
        logprobs=2,
        echo=True,
        response_format=FORM,
    ) == {
        "details": True,
        "do_sample": True,
        "max_new_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 4,
        "seed": 7,
        "stop": ["END"],
        "frequency_penalty": 0.1,
        "repetition_penalty": 1.1,
        "typical_p": 0.9,
        "top_n_tokens": 2,
        "return_full_text": True,
        "grammar": {"type": "json", "value": SCHEMA},
    }


def test_values_that_the_server_refuses_are_said_in_its_way(dialect: TgiDialect) -> None:
    assert parameters(dialect, temperature=0, top_p=1.0, best_of=1, echo=False) == {"details": True, "do_sample": False}


@pytest.mark.parametrize(
    ("stream", "body", "where"),
    [
        (False, {"presence_penalty": 0.5}, "body.presence_penalty"),
        (False, {"suffix": "x"}, "body.suffix"),
        (False, {"n": 2}, "body.n"),
        (False, {"user": "u"}, "body.user"),
        (True, {"echo": True}, "body.echo"),
        (True, {"best_of": 2}, "body.best_of"),
    ],
)
def test_what_would_be_lost_is_refused_or_dropped_with_a_warning(
    dialect: TgiDialect, stream: bool, body: dict[str, Any], where: str
) -> None:
    body = {"prompt": "x", **body}
    with pytest.raises(InvalidRequest, match=where):
        dialect.encode("completion", body, model="m", stream=stream)
    call = dialect.encode("completion", body, model="m", stream=stream, drop_unsupported=True)
    assert call.warnings[0].startswith(f"{where} was dropped")


def test_a_chat_goes_as_openai_has_it_but_for_what_the_server_says_otherwise(dialect: TgiDialect) -> None:
    assert chat(dialect, max_completion_tokens=5, stop="END", response_format=FORM, seed=1) == {
        "messages": ASK,
        "max_tokens": 5,
        "stop": ["END"],
        "seed": 1,
        "model": "m",
        "response_format": {"type": "json_schema", "value": {"name": "n", "schema": SCHEMA}},
    }


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"n": 2}, "body.n"),
        ({"logit_bias": {"1": 1}}, "body.logit_bias"),
        ({"parallel_tool_calls": False}, "body.parallel_tool_calls"),
        ({"reasoning_effort": "low"}, "body.reasoning_effort"),
        ({"tools": [{"type": "function"}], "response_format": FORM}, "body.response_format"),
    ],
)
def test_what_the_chat_would_pass_over_is_refused(dialect: TgiDialect, body: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidRequest, match=where):
        chat(dialect, **body)


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def sent_messages(dialect: TgiDialect, *messages: dict[str, Any]) -> Any:
    return chat(dialect, messages=list(messages))["messages"]


@pytest.mark.parametrize("content", [None, ""])
def test_an_answer_with_tool_calls_has_no_content_that_would_hide_them(
    dialect: TgiDialect, content: str | None
) -> None:
    (sent,) = sent_messages(dialect, {"role": "assistant", "content": content, "refusal": None, "tool_calls": [CALL]})
    function = {"name": "f", "arguments": {"a": 1}}
    assert sent == {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": function}]}


def test_messages_have_what_the_server_demands_and_no_role_that_templates_do_not_know(dialect: TgiDialect) -> None:
    empty = {"role": "assistant", "content": None}
    sent = sent_messages(dialect, {"role": "developer", "content": "brief"}, empty)
    assert sent == [{"role": "system", "content": "brief"}, {"role": "assistant", "content": ""}]


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ({"role": "assistant", "content": "so", "tool_calls": [CALL]}, r"messages\[0\]\.content: "),
        ({"role": "assistant", "content": "so", "reasoning_content": "hm"}, r"messages\[0\]\.reasoning_content"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, r"messages\[0\]\.content\[0\]: "),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a/b", "detail": "low"}}]},
            r"messages\[0\]\.content\[0\]\.image_url\.detail",
        ),
    ],
)
def test_what_the_server_would_lose_of_a_message_is_refused(
    dialect: TgiDialect, message: dict[str, Any], where: str
) -> None:
    with pytest.raises(InvalidRequest, match=where):
        chat(dialect, messages=[message])
    call = dialect.encode("chat", {"messages": [message]}, model="m", stream=False, drop_unsupported=True)
    assert len(call.warnings) == 1


def test_a_chats_values_that_the_server_refuses_or_misreads_are_left_out(dialect: TgiDialect) -> None:
    assert chat(dialect, top_p=1, presence_penalty=0).keys() == {"messages", "model"}


def test_a_tool_without_parameters_takes_none(dialect: TgiDialect) -> None:
    (tool,) = chat(dialect, tools=[{"type": "function", "function": {"name": "now"}}])["tools"]
    assert tool["function"] == {"name": "now", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize("prompt", ["", ["a", "b"], [1, 2], None])
def test_a_prompt_is_one_text(dialect: TgiDialect, prompt: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"body\.prompt"):
        parameters(dialect, prompt=prompt)


# -- decode ------------------------------------------------------------------------------------------------------------

WHOLE: dict[str, Any] = {
    "generated_text": " test",
    "details": {
        "finish_reason": "length",
        "generated_tokens": 1,
        "seed": 42,
        "prefill": [],
        "tokens": [{"id": 0, "text": " test", "logprob": -0.34, "special": False}],
    },
}


def test_a_completion_becomes_a_canonical_reply(dialect: TgiDialect) -> None:
    reply = decoded(dialect, WHOLE, x_prompt_tokens="7", x_request_id="r1")
    assert reply.body == {
        "id": "cmpl-1000000000",
        "object": "text_completion",
        "created": 1000,
        "model": "",
        "choices": [{"index": 0, "text": " test", "finish_reason": "length"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8},
    }
    assert (reply.usage, reply.provider_request_id) == (Usage(7, 1), "r1")


def test_half_a_count_is_no_usage(dialect: TgiDialect) -> None:
    reply = decoded(dialect, WHOLE)
    assert (reply.usage, "usage" in reply.body) == (None, False)


@pytest.mark.parametrize("reason", ["eos_token", "stop_sequence"])
def test_an_answer_that_ended_says_stop(dialect: TgiDialect, reason: str) -> None:
    body = {**WHOLE, "details": {**WHOLE["details"], "finish_reason": reason}}
    assert decoded(dialect, body).body["choices"][0]["finish_reason"] == "stop"


def test_log_probabilities_leave_out_special_tokens(dialect: TgiDialect) -> None:
    end = {"id": 2, "text": "</s>", "logprob": -0.1, "special": True}
    tokens = [*WHOLE["details"]["tokens"], end]
    details = {**WHOLE["details"], "tokens": tokens, "top_tokens": [[{"text": " Test", "logprob": -2.0}], [end]]}
    assert decoded(dialect, {**WHOLE, "details": details}).body["choices"][0]["logprobs"] == {
        "tokens": [" test"],
        "token_logprobs": [-0.34],
        "top_logprobs": [{" Test": -2.0}],
        "text_offset": [0],
    }


def test_a_list_of_one_is_that_one(dialect: TgiDialect) -> None:
    assert decoded(dialect, [{"generated_text": "x"}]).body["choices"][0] == {
        "index": 0,
        "text": "x",
        "finish_reason": "stop",
    }


def test_a_chats_finish_reason_and_arguments_are_as_openai_has_them(dialect: TgiDialect) -> None:
    call = {"id": "0", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    choices = [
        {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop_sequence"},
        {"index": 1, "message": {"role": "assistant", "tool_calls": [call]}, "finish_reason": "eos_token"},
    ]
    found = decoded(dialect, {"choices": choices}, "chat").body["choices"]
    assert [choice["finish_reason"] for choice in found] == ["stop", "tool_calls"]
    assert found[1]["message"]["tool_calls"][0]["function"]["arguments"] == '{"a":1}'


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        [],
        {},
        {"generated_text": None},
        {"generated_text": "x", "details": 1},
        {"generated_text": "x", "details": {"top_tokens": [1], "tokens": [1]}},
    ],
)
def test_a_reply_that_is_no_answer_is_malformed(dialect: TgiDialect, body: Any) -> None:
    with pytest.raises(Malformed):
        decoded(dialect, body)


@pytest.mark.parametrize(
    ("status", "message", "word", "kind"),
    [
        (424, "Request failed during generation: CUDA out of memory", "generation", ServerFailed),
        (429, "Model is overloaded", "overloaded", Overloaded),
        (422, "Input validation error: `temperature` must be strictly positive", "validation", InvalidRequest),
        (422, "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000", "validation", TooLong),
        (
            422,
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 2000 `inputs` tokens "
            "and 100 `max_new_tokens`",
            "validation",
            TooLong,
        ),
        (500, "Incomplete generation", "incomplete_generation", Truncated),
        (422, "Template error: x", "template_error", InvalidRequest),
        (503, "unhealthy", "healthcheck", ServerFailed),
        (200, "Request failed during generation", "generation", ServerFailed),
    ],
)
def test_each_error_has_its_word(
    dialect: TgiDialect, status: int, message: str, word: str, kind: type[InferenceError]
) -> None:
    with pytest.raises(InferenceError) as caught:
        dialect.decode("completion", status, {}, msgspec.json.encode({"error": message, "error_type": word}))
    assert (type(caught.value), caught.value.code, caught.value.status) == (kind, word, status)
    assert message in caught.value.message


def test_the_model_is_that_of_its_info(dialect: TgiDialect) -> None:
    assert dialect.probe().path == "/info"
    assert dialect.models(b'{"model_id":"bigscience/blomm-560m","max_total_tokens":2048}') == ["bigscience/blomm-560m"]
    assert dialect.models(b"<html>") == []
