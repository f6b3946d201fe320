"""Requests and replies. Fixtures are from Ollama's docs (docs/api.md in its repository); each names its section."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import InferenceError, InvalidRequest, Malformed, Truncated
from engine.core.usage import Usage
from engine.dialects.ollama.client import OllamaDialect

ASK = [{"role": "user", "content": "why is the sky blue?"}]
PNG = "iVBORw0KGgoAAAANSUhEUg=="
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Tokyo"}'}}


@pytest.fixture
def dialect() -> OllamaDialect:
    return OllamaDialect(lambda: 1000.0)


def sent(dialect: OllamaDialect, task: str = "chat", *, drop: bool = False, **body: Any) -> dict[str, Any]:
    if task == "chat":
        body.setdefault("messages", ASK)
    call = dialect.encode(task, body, model="m", stream=False, drop_unsupported=drop)
    return msgspec.json.decode(call.content)  # type: ignore[no-any-return]


def messages(dialect: OllamaDialect, *given: dict[str, Any]) -> list[dict[str, Any]]:
    return sent(dialect, messages=list(given))["messages"]  # type: ignore[no-any-return]


def decoded(dialect: OllamaDialect, body: Any, task: str = "chat") -> Any:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return dialect.decode(task, 200, {"x-request-id": "r1"}, content)


# -- encode ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "body", "path"),
    [
        ("chat", {"messages": ASK}, "/api/chat"),
        ("completion", {"prompt": "x"}, "/api/generate"),
        ("embedding", {"input": "x"}, "/api/embed"),
    ],
)
def test_each_task_has_its_path(dialect: OllamaDialect, task: str, body: dict[str, Any], path: str) -> None:
    call = dialect.encode(task, body, model="m", stream=False)
    assert (call.method, call.path) == ("POST", path)


def test_a_plain_chat_says_that_it_is_not_streamed(dialect: OllamaDialect) -> None:
    assert sent(dialect) == {"model": "m", "messages": ASK, "stream": False}


def test_sampling_goes_into_options(dialect: OllamaDialect) -> None:
    wire = sent(
        dialect, temperature=0.5, top_p=0.9, seed=7, stop="END", max_tokens=5, frequency_penalty=0.1, min_p=0.05,
        presence_penalty=0.2, top_k=40, repetition_penalty=1.1, options={"num_ctx": 8192}, keep_alive="10m",
    )  # fmt: skip
    assert wire["options"] == {
        "num_ctx": 8192, "temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["END"], "num_predict": 5,
        "frequency_penalty": 0.1, "min_p": 0.05, "presence_penalty": 0.2, "top_k": 40, "repeat_penalty": 1.1,
    }  # fmt: skip
    assert wire["keep_alive"] == "10m"


def test_the_newer_limit_of_tokens_wins(dialect: OllamaDialect) -> None:
    wire = sent(dialect, max_completion_tokens=9, max_tokens=5)
    assert wire["options"] == {"num_predict": 9}


@pytest.mark.parametrize(
    ("effort", "think"), [("none", False), ("minimal", "low"), ("low", "low"), ("high", "high"), ("xhigh", "max")]
)
def test_reasoning_effort_is_how_much_it_thinks(dialect: OllamaDialect, effort: str, think: object) -> None:
    assert sent(dialect, reasoning_effort=effort)["think"] == think


@pytest.mark.parametrize(
    ("form", "format"),
    [
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}, {"type": "object"}),
    ],
)
def test_the_answers_form(dialect: OllamaDialect, form: dict[str, Any], format: Any) -> None:
    assert sent(dialect, response_format=form)["format"] == format


def test_log_probabilities_are_asked_for(dialect: OllamaDialect) -> None:
    wire = sent(dialect, logprobs=True, top_logprobs=3)
    assert (wire["logprobs"], wire["top_logprobs"]) == (True, 3)


def test_tools_are_offered_and_none_is_chosen_by_offering_none(dialect: OllamaDialect) -> None:
    assert sent(dialect, tools=[TOOL], tool_choice="auto")["tools"] == [TOOL]
    assert "tools" not in sent(dialect, tools=[TOOL], tool_choice="none")


def test_a_tool_without_parameters_takes_none(dialect: OllamaDialect) -> None:
    wire = sent(dialect, tools=[{"type": "function", "function": {"name": "now"}}])
    assert wire["tools"][0]["function"]["parameters"] == {"type": "object", "properties": {}}


def test_a_call_of_a_tool_and_its_answer(dialect: OllamaDialect) -> None:
    written = messages(
        dialect,
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "call_1", "content": "11 degrees"},
    )
    assert written[1:] == [
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Tokyo"}}, "id": "call_1"}],
        },
        {"role": "tool", "content": "11 degrees", "tool_name": "get_weather", "tool_call_id": "call_1"},
    ]


def test_system_messages_keep_their_place(dialect: OllamaDialect) -> None:
    given = [{"role": role, "content": role} for role in ("system", "user", "assistant", "developer", "user")]
    assert [message["role"] for message in messages(dialect, *given)] == [
        "system", "user", "assistant", "system", "user",
    ]  # fmt: skip


def image(data: str = PNG) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def test_an_image_stands_beside_its_text(dialect: OllamaDialect) -> None:
    content = [{"type": "text", "text": "what is it?"}, image()]
    assert messages(dialect, {"role": "user", "content": content}) == [
        {"role": "user", "content": "what is it?", "images": [PNG]}
    ]


def test_text_and_images_in_turn_stay_in_their_order(dialect: OllamaDialect) -> None:
    content = [{"type": "text", "text": "first"}, image("QQ=="), {"type": "text", "text": "second"}, image("Qg==")]
    assert messages(dialect, {"role": "user", "content": content}) == [
        {"role": "user", "content": "first", "images": ["QQ=="]},
        {"role": "user", "content": "second", "images": ["Qg=="]},
    ]


def test_a_sound_goes_where_images_go(dialect: OllamaDialect) -> None:
    content = [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}]
    assert messages(dialect, {"role": "user", "content": content})[0]["images"] == ["UklGRg=="]


def test_a_completion_goes_on_from_its_prompt_without_the_chat_template(dialect: OllamaDialect) -> None:
    wire = sent(dialect, "completion", prompt=["Once"], max_tokens=3, logprobs=2)
    assert wire == {
        "model": "m", "prompt": "Once", "stream": False, "raw": True, "logprobs": True, "top_logprobs": 2,
        "options": {"num_predict": 3},
    }  # fmt: skip


def test_a_suffix_needs_the_template(dialect: OllamaDialect) -> None:
    wire = sent(dialect, "completion", prompt="def f(", suffix="return 1")
    assert (wire["suffix"], "raw" in wire) == ("return 1", False)


def test_an_input_that_is_too_long_is_not_cut_unless_the_body_says_so(dialect: OllamaDialect) -> None:
    assert sent(dialect, "embedding", input=["a"], dimensions=8) == {
        "model": "m", "input": ["a"], "truncate": False, "dimensions": 8,
    }  # fmt: skip
    assert sent(dialect, "embedding", input="a", truncate=True)["truncate"] is True


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"logit_bias": {"1": 2}}, "body.logit_bias"),
        ({"n": 2}, "body.n"),
        ({"user": "u"}, "body.user"),
        ({"metadata": {"a": "b"}}, "body.metadata"),
        ({"parallel_tool_calls": False}, "body.parallel_tool_calls"),
        ({"tools": [TOOL], "tool_choice": "required"}, "body.tool_choice"),
        ({"tools": [{**TOOL, "function": {**TOOL["function"], "strict": True}}]}, "body.tools[0].function.strict"),  # type: ignore[dict-item]
        ({"reasoning_effort": "ultra"}, "body.reasoning_effort"),
        ({"messages": [{**ASK[0], "name": "Ann"}]}, "body.messages[0].name"),
    ],
)
def test_what_would_be_lost_is_refused_or_dropped_with_a_warning(
    dialect: OllamaDialect, body: dict[str, Any], where: str
) -> None:
    body = {"messages": ASK, **body}
    with pytest.raises(InvalidRequest) as caught:
        dialect.encode("chat", body, model="m", stream=False)
    assert caught.value.message.startswith(where + ":")
    assert "provider.drop_unsupported=true" in caught.value.message
    (warning,) = dialect.encode("chat", body, model="m", stream=False, drop_unsupported=True).warnings
    assert warning.startswith(f"{where} was dropped:")


def test_values_that_ask_for_nothing_are_no_loss(dialect: OllamaDialect) -> None:
    assert sent(dialect, n=1, logit_bias={}, parallel_tool_calls=True, store=False, user=None, logprobs=False) == {
        "model": "m", "messages": ASK, "stream": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("task", "body", "message"),
    [
        ("chat", {"messages": []}, "body.messages: expected at least one"),
        ("chat", {"messages": [{"role": "king", "content": "x"}]}, r"body.messages\[0\].role: 'king'"),
        (
            "chat",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y"}}]}]},
            r"body.messages\[0\].content\[0\].image_url.url: Ollama fetches no address",
        ),
        (
            "chat",
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}]},
            r"body.messages\[0\].tool_calls\[0\].function.arguments: expected a JSON object",
        ),
        ("completion", {"prompt": ""}, "body.prompt"),
        ("completion", {"prompt": ["a", "b"]}, "body.prompt"),
        ("embedding", {"input": [1, 2]}, r"body.input\[0\]"),
        ("rerank", {}, "task: 'rerank'"),
    ],
)
def test_what_can_not_be_sent_at_all_is_refused(
    dialect: OllamaDialect, task: str, body: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        dialect.encode(task, body, model="m", stream=False, drop_unsupported=True)


def test_the_callers_body_is_not_changed(dialect: OllamaDialect) -> None:
    body = {"messages": [*ASK], "options": {"num_ctx": 1}, "temperature": 0.1, "tools": [TOOL]}
    before = msgspec.json.encode(body)
    dialect.encode("chat", body, model="m", stream=True)
    assert msgspec.json.encode(body) == before


# -- decode ------------------------------------------------------------------------------------------------------------

# "Chat request (No streaming)"
WHOLE: dict[str, Any] = {
    "model": "llama3.2",
    "created_at": "2023-12-12T14:13:43.416799Z",
    "message": {"role": "assistant", "content": "Hello! How are you today?"},
    "done": True,
    "total_duration": 5191566416,
    "load_duration": 2154458,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 383809000,
    "eval_count": 298,
    "eval_duration": 4799921000,
}


def test_a_chat_becomes_a_canonical_reply(dialect: OllamaDialect) -> None:
    reply = decoded(dialect, WHOLE)
    assert reply.body == {
        "id": "chatcmpl-20231212141343416799",
        "object": "chat.completion",
        "created": 1702390423,
        "model": "llama3.2",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello! How are you today?"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 26, "completion_tokens": 298, "total_tokens": 324},
    }
    assert reply.usage == Usage(26, 298)
    assert reply.provider_request_id == "r1"


def test_a_tool_call_has_an_id_and_its_arguments_as_text(dialect: OllamaDialect) -> None:
    # "Chat request (No streaming, with tools)"
    call = {"function": {"name": "get_weather", "arguments": {"city": "Tokyo"}}}
    message = {"role": "assistant", "content": "", "tool_calls": [call, {"id": "call_x", **call}]}
    choice = decoded(dialect, {**WHOLE, "message": message, "done_reason": "stop"}).body["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{**CALL, "id": "call_0"}, {**CALL, "id": "call_x"}],
    }


def test_thinking_is_the_reasoning(dialect: OllamaDialect) -> None:
    message = {"role": "assistant", "content": "42", "thinking": "let me see"}
    assert decoded(dialect, {**WHOLE, "message": message}).body["choices"][0]["message"]["reasoning_content"] == (
        "let me see"
    )


def test_an_answer_at_its_limit_says_length(dialect: OllamaDialect) -> None:
    assert decoded(dialect, {**WHOLE, "done_reason": "length"}).body["choices"][0]["finish_reason"] == "length"


def test_log_probabilities_come_in_each_tasks_form(dialect: OllamaDialect) -> None:
    token = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": [{"token": "Yo", "logprob": -2.0}]}
    chat = decoded(dialect, {**WHOLE, "logprobs": [token]}).body["choices"][0]["logprobs"]
    assert chat == {"content": [token], "refusal": None}
    body = {**WHOLE, "response": "Hi", "logprobs": [token, {"token": "!", "logprob": -0.5}]}
    assert decoded(dialect, body, "completion").body["choices"][0]["logprobs"] == {
        "tokens": ["Hi", "!"],
        "token_logprobs": [-0.1, -0.5],
        "top_logprobs": [{"Yo": -2.0}, {}],
        "text_offset": [0, 2],
    }


def test_a_completion_becomes_text(dialect: OllamaDialect) -> None:
    body = decoded(dialect, {**WHOLE, "response": "The sky"}, "completion").body
    assert (body["object"], body["choices"][0]) == (
        "text_completion",
        {"index": 0, "text": "The sky", "finish_reason": "stop"},
    )


def test_a_server_that_counts_nothing_says_nothing_of_usage(dialect: OllamaDialect) -> None:
    reply = decoded(dialect, {"message": {"content": "x"}, "done": True})
    assert (reply.usage, "usage" in reply.body, reply.body["created"]) == (None, False, 1000)


def test_vectors_are_numbered(dialect: OllamaDialect) -> None:
    # "Generate Embeddings": "Request (Multiple input)"
    body = {"model": "all-minilm", "embeddings": [[0.01, -0.02], [0.03, 0.04]], "prompt_eval_count": 8}
    reply = decoded(dialect, body, "embedding")
    assert reply.body == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.01, -0.02]},
            {"object": "embedding", "index": 1, "embedding": [0.03, 0.04]},
        ],
        "model": "all-minilm",
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    }
    assert reply.usage == Usage(8, 0)


@pytest.mark.parametrize(
    ("task", "body", "kind"),
    [
        ("chat", b"<html>", Malformed),
        ("chat", b"[]", Malformed),
        ("chat", {"done": True}, Malformed),
        ("chat", {**WHOLE, "done": False}, Truncated),
        ("chat", {**WHOLE, "done_reason": "load"}, Malformed),
        ("chat", {**WHOLE, "message": {"tool_calls": [{}]}}, Malformed),
        ("chat", {**WHOLE, "message": {"tool_calls": 1}}, Malformed),
        ("chat", {**WHOLE, "logprobs": [1]}, Malformed),
        ("completion", WHOLE, Malformed),
        ("embedding", {"embeddings": []}, Malformed),
        ("embedding", {"embeddings": [[]]}, Malformed),
    ],
)
def test_a_reply_that_is_no_answer_is_a_failure(
    dialect: OllamaDialect, task: str, body: Any, kind: type[InferenceError]
) -> None:
    with pytest.raises(kind) as caught:
        decoded(dialect, body, task)
    assert type(caught.value) is kind


def test_the_models_are_those_of_its_tags(dialect: OllamaDialect) -> None:
    # "List Local Models"
    content = b'{"models":[{"name":"deepseek-r1:latest","model":"deepseek-r1:latest","size":1},{"name":"llama3.2"}]}'
    assert dialect.probe().path == "/api/tags"
    assert dialect.models(content) == ["deepseek-r1:latest", "llama3.2"]
    assert dialect.models(b"<html>") == []
