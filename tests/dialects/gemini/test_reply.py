"""Replies of Gemini, written from its API reference: "Generating content" and "Embeddings"."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import AuthFailed, ContentFiltered, InferenceError, Malformed, ServerFailed, Truncated
from engine.core.usage import Usage
from engine.dialects.client import Reply
from engine.dialects.gemini.client import GeminiDialect


def candidate(*parts: dict[str, Any], reason: str | None = "STOP", **fields: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0, **fields}
    return said if reason is None else {**said, "finishReason": reason}


def response(*candidates: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "candidates": list(candidates) or [candidate({"text": "Paris."})],
        "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 2, "totalTokenCount": 9},
        "modelVersion": "gemini-2.5-flash",
        "responseId": "r1",
        **fields,
    }


def decoded(body: Any, task: str = "chat", headers: dict[str, str] | None = None) -> Reply:
    content = body if type(body) is bytes else msgspec.json.encode(body)
    return GeminiDialect(lambda: 12.5).decode(task, 200, headers or {}, content)


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return decoded(response(candidate(*parts))).body["choices"][0]["message"]  # type: ignore[no-any-return]


def failure(*candidates: dict[str, Any], **fields: Any) -> InferenceError:
    with pytest.raises(InferenceError) as caught:
        decoded(response(*candidates, **fields))
    return caught.value


def test_a_reply_is_canonical() -> None:
    reply = decoded(response())
    assert reply.body == {
        "id": "r1",
        "object": "chat.completion",
        "created": 12,
        "model": "gemini-2.5-flash",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Paris."}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }
    assert (reply.usage, reply.provider_request_id) == (Usage(7, 2), "r1")


def test_an_id_in_a_header_wins_over_the_responses_own() -> None:
    assert decoded(response(), headers={"x-request-id": "h"}).provider_request_id == "h"


def test_thoughts_are_kept_apart_from_the_answer() -> None:
    said = message({"text": "Hm", "thought": True}, {"text": ".", "thought": True}, {"text": "Pa"}, {"text": "ris"})
    assert said == {"role": "assistant", "content": "Paris", "reasoning_content": "Hm."}


def test_calls_are_tool_calls() -> None:
    first = {"functionCall": {"id": "a", "name": "f", "args": {"x": [1, "ü"]}}, "thoughtSignature": "c2ln"}
    second = {"functionCall": {"name": "g"}}
    choice = decoded(response(candidate(first, second))).body["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "a",
                "type": "function",
                "function": {"name": "f", "arguments": '{"x":[1,"ü"]}'},
                "extra_content": {"google": {"thought_signature": "c2ln"}},
            },
            {"id": "call_r1_1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }


def test_the_signature_of_a_text_is_kept() -> None:
    assert message({"text": "ok", "thoughtSignature": "c2ln"})["extra_content"] == {
        "google": {"thought_signature": "c2ln"}
    }


def test_pictures_and_sound_are_kept() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "AA=="}}
    sound = {"inlineData": {"mimeType": "audio/L16;codec=pcm;rate=24000", "data": "AAA="}}
    said = message(image, sound, sound)
    assert said["images"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    assert said["audio"] == {"data": "AAAAAA=="}


def test_each_candidate_is_a_choice() -> None:
    body = response(candidate({"text": "a"}), candidate({"text": "b"}, index=1, reason="MAX_TOKENS"))
    choices = decoded(body).body["choices"]
    assert [(each["index"], each["message"]["content"], each["finish_reason"]) for each in choices] == [
        (0, "a", "stop"),
        (1, "b", "length"),
    ]


@pytest.mark.parametrize("reason", ["STOP", "MAX_TOKENS"])
def test_an_answer_may_be_empty(reason: str) -> None:
    body = response({"finishReason": reason, "index": 0}, candidate(reason=reason, index=1))
    assert [each["message"]["content"] for each in decoded(body).body["choices"]] == ["", ""]


def test_log_probabilities_are_kept() -> None:
    top = [{"token": "Pa", "tokenId": 5, "logProbability": -0.1}, {"token": "Lo", "logProbability": -2.5}]
    result = {"chosenCandidates": top[:1], "topCandidates": [{"candidates": top}]}
    choice = decoded(response(candidate({"text": "Pa"}, logprobsResult=result))).body["choices"][0]
    assert choice["logprobs"]["content"] == [
        {
            "token": "Pa",
            "logprob": -0.1,
            "bytes": [80, 97],
            "top_logprobs": [
                {"token": "Pa", "logprob": -0.1, "bytes": [80, 97]},
                {"token": "Lo", "logprob": -2.5, "bytes": [76, 111]},
            ],
        }
    ]


def test_usage_counts_thoughts_cache_tools_and_sound() -> None:
    metadata = {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 60,
        "toolUsePromptTokenCount": 5,
        "candidatesTokenCount": 10,
        "thoughtsTokenCount": 40,
        "totalTokenCount": 155,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 70}, {"modality": "AUDIO", "tokenCount": 30}],
        "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 9}],
    }
    reply = decoded(response(usageMetadata=metadata))
    assert reply.usage == Usage(105, 50, 60, 40, audio_input_tokens=30, audio_output_tokens=9)
    assert reply.body["usage"] == {
        "prompt_tokens": 105,
        "completion_tokens": 50,
        "total_tokens": 155,
        "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 30},
        "completion_tokens_details": {"reasoning_tokens": 40, "audio_tokens": 9},
    }


@pytest.mark.parametrize("count", ["7", -1, None, 1.5, True])
def test_a_count_that_is_none_is_zero(count: Any) -> None:
    metadata = {"promptTokenCount": count, "candidatesTokenCount": 2}
    assert decoded(response(usageMetadata=metadata)).usage == Usage(0, 2)


@pytest.mark.parametrize("reason", ["SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "LANGUAGE"])
def test_a_filter_that_left_nothing_is_an_error(reason: str) -> None:
    rating = {"category": "HARM_CATEGORY_HARASSMENT", "probability": "HIGH", "blocked": True}
    error = failure({"finishReason": reason, "index": 0, "safetyRatings": [rating]})
    assert isinstance(error, ContentFiltered)
    assert (error.code, error.status, error.provider_request_id) == (reason, 200, "r1")
    assert "HARM_CATEGORY_HARASSMENT" in error.message


def test_a_filter_that_cut_the_answer_short_leaves_the_answer() -> None:
    choice = decoded(response(candidate({"text": "Some of it"}, reason="SAFETY"))).body["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Some of it", "content_filter")


@pytest.mark.parametrize("reason", ["SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY"])
def test_a_blocked_prompt_is_content_filtered(reason: str) -> None:
    # "Generating content", PromptFeedback: no candidates are returned then.
    body = {"promptFeedback": {"blockReason": reason}, "usageMetadata": {"promptTokenCount": 7}, "responseId": "r1"}
    with pytest.raises(ContentFiltered) as caught:
        decoded(body)
    assert (caught.value.code, caught.value.provider_request_id) == (reason, "r1")


def test_a_finish_reason_that_is_not_known_keeps_the_answer_and_fails_without_one() -> None:
    body = decoded(response(candidate({"text": "Paris."}, reason="SOMETHING_NEW"))).body
    assert body["choices"][0]["message"]["content"] == "Paris."
    assert body["choices"][0]["finish_reason"] == "something_new"
    assert isinstance(failure({"finishReason": "SOMETHING_NEW", "index": 0}), ServerFailed)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("MALFORMED_FUNCTION_CALL", Malformed),
        ("UNEXPECTED_TOOL_CALL", Malformed),
        ("OTHER", ServerFailed),
        ("FINISH_REASON_UNSPECIFIED", ServerFailed),
        ("PUP_LIMITED_DISABLED", AuthFailed),
        (None, Truncated),
    ],
)
def test_a_finish_reason_that_is_no_end_is_a_failure(reason: str | None, kind: type[InferenceError]) -> None:
    error = failure(candidate({"text": "half"}, reason=reason, finishMessage="because"))
    assert type(error) is kind
    assert reason is None or f"finishReason {reason}: because" in error.message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"candidates": []}',
        b'{"candidates": 7}',
        b'{"candidates": [7]}',
        b'{"candidates": [{"finishReason": "STOP", "content": 7}]}',
        b'{"candidates": [{"finishReason": "STOP", "content": {"parts": [7]}}]}',
        b'{"candidates": [{"finishReason": "STOP", "content": {"parts": [{"functionCall": {}}]}}]}',
        b'{"candidates": [{"finishReason": "STOP"',
        b"\xff\xfe",
        b"<html><title>Hello</title></html>",
        b"[" * 100_000,
    ],
)
def test_a_reply_that_is_no_answer_is_malformed(content: bytes) -> None:
    with pytest.raises(Malformed):
        decoded(content)


def test_embeddings_come_in_the_order_of_their_inputs() -> None:
    body = {"embeddings": [{"values": [0.5, 1]}, {"values": [2, 3]}], "usageMetadata": {"promptTokenCount": 4}}
    reply = decoded(body, "embedding")
    assert reply.body == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, 1]},
            {"object": "embedding", "index": 1, "embedding": [2, 3]},
        ],
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    assert reply.usage == Usage(4)


def test_one_embedding_is_a_list_of_one() -> None:
    reply = decoded({"embedding": {"values": [0.5]}}, "embedding")
    assert (reply.body["data"][0]["embedding"], reply.usage) == ([0.5], None)


@pytest.mark.parametrize("body", [{}, {"embeddings": []}, {"embeddings": [{}]}, {"embedding": {"values": []}}])
def test_a_missing_embedding_is_malformed(body: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        decoded(body, "embedding")
