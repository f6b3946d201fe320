"""The three batch APIs as pure functions: replies as the providers' references have them, and replies that are not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.core.errors import InferenceError, Malformed
from engine.core.media_access import Media
from engine.dialects.anthropic.batch import AnthropicBatchDialect
from engine.dialects.anthropic.client import AnthropicDialect
from engine.dialects.batch import BatchDialect, Heard, JobRequest
from engine.dialects.client import WireCall
from engine.dialects.codecs.multipart import read_form
from engine.dialects.gemini.batch import INLINE_BYTES, GeminiBatchDialect
from engine.dialects.gemini.client import GeminiDialect
from engine.dialects.openai.batch import OpenAIBatchDialect
from engine.dialects.openai.client import OpenAIDialect

OPENAI = OpenAIBatchDialect(OpenAIDialect())
ANTHROPIC = AnthropicBatchDialect(AnthropicDialect())
GEMINI = GeminiBatchDialect(GeminiDialect())
ALL = {"openai": OPENAI, "anthropic": ANTHROPIC, "gemini": GEMINI}

BATCH = {  # OpenAI's API reference, "The Batch object"
    "id": "batch_abc123",
    "object": "batch",
    "endpoint": "/v1/completions",
    "errors": None,
    "input_file_id": "file-abc123",
    "completion_window": "24h",
    "status": "completed",
    "output_file_id": "file-cvaTdG",
    "error_file_id": "file-HOWS94",
    "created_at": 1711471533,
    "request_counts": {"total": 100, "completed": 95, "failed": 5},
    "metadata": {"engine_job": "run-1"},
}
MESSAGE_BATCH = {  # Anthropic's API reference, "Retrieve a Message Batch"
    "id": "msgbatch_013Zva2CMHLNnXjNJJKqJ2EF",
    "type": "message_batch",
    "processing_status": "ended",
    "request_counts": {"processing": 0, "succeeded": 95, "errored": 1, "canceled": 2, "expired": 2},
    "created_at": "2024-08-20T18:37:24.100435Z",
    "results_url": "https://api.anthropic.com/v1/messages/batches/msgbatch_013Zva2CMHLNnXjNJJKqJ2EF/results",
}
OPERATION = {  # the Gemini API's reference, "batches.get", and its guide "Batch API"
    "name": "batches/123",
    "metadata": {
        "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
        "displayName": "run-1",
        "state": "BATCH_STATE_SUCCEEDED",
        "createTime": "2025-07-01T10:00:00.5Z",
        "batchStats": {"requestCount": "100", "successfulRequestCount": "97", "failedRequestCount": "3"},
    },
    "done": True,
    "response": {"responsesFile": "files/batch-xyz"},
}


def heard(body: Any, status: int = 200) -> Heard:
    return Heard(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def wire(body: dict[str, Any], path: str = "/chat/completions") -> WireCall:
    return WireCall("POST", path, json.dumps(body).encode())


def test_openais_batch_is_read_as_the_reference_has_it() -> None:
    view = OPENAI.view(heard(BATCH))
    assert (view.id, view.state, view.said, view.tag) == ("batch_abc123", "ended", "completed", "run-1")
    assert (view.total, view.done, view.failed, view.created_s) == (100, 95, 5, 1711471533.0)
    assert view.files == ("file-cvaTdG", "file-HOWS94")


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("validating", "running"), ("in_progress", "running"), ("finalizing", "running"), ("cancelling", "running"),
        ("completed", "ended"), ("expired", "ended"), ("cancelled", "ended"), ("failed", "failed"),
        ("a word of tomorrow", "running"),
    ],
)  # fmt: skip
def test_each_status_of_openai_has_its_meaning(said: str, state: str) -> None:
    assert OPENAI.view(heard({**BATCH, "status": said})).state == state


def test_a_job_of_openai_goes_as_a_form_with_a_file_and_a_batch_with_the_tag() -> None:
    lines = [OPENAI.member(f"run-1-{n}", "chat", wire({"model": "m", "messages": []})) for n in (0, 1)]
    job = JobRequest("run-1", "chat", "m", "24h", lines)
    steps = OPENAI.upload(job)
    call = next(steps)
    assert (call.method, call.path) == ("POST", "/files")
    fields = dict(read_form(call.content, call.headers["content-type"]))
    assert fields["purpose"] == "batch"
    file = fields["file"]
    assert isinstance(file, Media)
    assert [json.loads(line) for line in file.data.splitlines()] == [
        {
            "custom_id": f"run-1-{n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "m", "messages": []},
        }
        for n in (0, 1)
    ]
    with pytest.raises(StopIteration) as end:
        steps.send(heard({"id": "file-1", "object": "file"}))
    assert end.value.value == "file-1"
    assert json.loads(OPENAI.create(job, "file-1").content) == {
        "input_file_id": "file-1",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"engine_job": "run-1"},
    }


def test_an_enqueued_token_limit_is_throttling_and_not_a_long_prompt() -> None:
    # openai/openai-python, issue 2084
    text = "Enqueued token limit reached for gpt-4o-mini in organization org-1. Limit: 2,000,000 enqueued tokens."
    errors = {"object": "list", "data": [{"code": "token_limit_exceeded", "line": None, "message": text}]}
    view = OPENAI.view(heard({**BATCH, "status": "failed", "errors": errors}))
    assert view.error is not None
    assert (view.error.kind, view.error.message) == ("throttled", text)


def test_lines_that_made_a_batch_fail_are_named() -> None:
    data = [{"code": "invalid_json_line", "line": 3, "message": "This line is not parseable as valid JSON."}]
    view = OPENAI.view(heard({**BATCH, "status": "failed", "errors": {"data": data}}))
    assert {line: error.kind for line, error in view.bad_lines.items()} == {3: "invalid_request"}


def test_lines_of_openais_results_are_replies_errors_or_never_run() -> None:
    # OpenAI's guide "Batch API"
    reply = {"status_code": 200, "request_id": "req_1", "body": {"object": "chat.completion"}}
    member = OPENAI.read(json.dumps({"id": "batch_req_1", "custom_id": "a", "response": reply}).encode(), 0)
    assert (member.custom_id, member.status, member.headers["x-request-id"]) == ("a", 200, "req_1")
    error = {"code": "batch_expired", "message": "This request could not be executed before the completion window"}
    member = OPENAI.read(json.dumps({"custom_id": "b", "response": None, "error": error}).encode(), 0)
    assert member.error is not None
    assert (member.error.kind, member.error.retryable, member.error.code) == ("timeout", True, "batch_expired")


def test_a_further_page_is_asked_for_with_the_last_id() -> None:
    views, cursor = OPENAI.listed(heard({"object": "list", "data": [BATCH], "has_more": True}))
    assert [view.id for view in views] == ["batch_abc123"]
    assert OPENAI.listing(cursor).path == "/batches?limit=100&after=batch_abc123"
    assert OPENAI.listed(heard({"object": "list", "data": [BATCH], "has_more": False}))[1] is None
    body = {"data": [MESSAGE_BATCH], "has_more": True, "last_id": "msgbatch_013Zva2CMHLNnXjNJJKqJ2EF"}
    _, cursor = ANTHROPIC.listed(heard(body))
    assert ANTHROPIC.listing(cursor).path.endswith("?limit=1000&after_id=msgbatch_013Zva2CMHLNnXjNJJKqJ2EF")
    _, cursor = GEMINI.listed(heard({"operations": [OPERATION], "nextPageToken": "p2"}))
    assert GEMINI.listing(cursor).path == "/batches?pageSize=100&pageToken=p2"


@pytest.mark.parametrize(("temperatures", "version"), [([None, None], None), ([None, 0], "2023-06-01")])
def test_a_batch_of_anthropic_has_the_version_that_all_its_requests_need(
    temperatures: list[float | None], version: str | None
) -> None:
    lines = []
    for number, temperature in enumerate(temperatures):
        body = {"messages": [{"role": "user", "content": "temperature"}], "temperature": temperature}
        call = ANTHROPIC.live.encode("chat", body, model="m", stream=False)
        lines.append(ANTHROPIC.member(f"t-{number}", "chat", call))
    create = ANTHROPIC.create(JobRequest("t", "chat", "m", "24h", lines), None)
    assert create.headers.get("anthropic-version") == version


def test_anthropics_batch_is_read_as_the_reference_has_it() -> None:
    view = ANTHROPIC.view(heard(MESSAGE_BATCH))
    assert (view.state, view.total, view.done, view.failed, view.tag) == ("ended", 100, 95, 5, None)
    assert view.created_s == pytest.approx(1724179044.100435)
    # The path of results_url, at the configured host: the key goes nowhere else.
    call = ANTHROPIC.results(view, view.files[0])
    assert (call.base, call.path) == ("api", f"/v1/messages/batches/{view.id}/results")


@pytest.mark.parametrize(
    ("kind", "status", "word"),
    [("invalid_request_error", 400, "invalid_request"), ("overloaded_error", 529, "overloaded"), ("x", 500, "server")],
)
def test_an_errored_result_of_anthropic_is_read_like_a_live_error(kind: str, status: int, word: str) -> None:
    error = {"type": "error", "error": {"type": kind, "message": "said"}, "request_id": "req_1"}
    member = ANTHROPIC.read(json.dumps({"custom_id": "a", "result": {"type": "errored", "error": error}}).encode(), 0)
    assert member.status == status
    failure = ANTHROPIC.live.error(member.status, member.headers, member.content)
    assert (failure.kind, failure.provider_request_id) == (word, "req_1")


def test_geminis_operation_is_read_as_the_reference_has_it() -> None:
    view = GEMINI.view(heard(OPERATION))
    assert (view.id, view.state, view.tag, view.total, view.done) == ("batches/123", "ended", "run-1", 100, 97)
    call = GEMINI.results(view, view.files[0])
    assert (call.base, call.path) == ("download", "/files/batch-xyz:download?alt=media")


def test_geminis_inline_results_are_found_where_either_page_has_them() -> None:
    entries = [{"metadata": {"key": "a"}, "response": {"candidates": []}}]
    for where in ("response", "output"):
        body: dict[str, Any] = {"name": "batches/1", "metadata": {"state": "JOB_STATE_SUCCEEDED"}, "done": True}
        inlined = {"inlinedResponses": {"inlinedResponses": entries}}
        if where == "response":
            body["response"] = inlined
        else:
            body["metadata"]["output"] = inlined
        (line,) = GEMINI.view(heard(body)).inline
        assert GEMINI.read(line, 0).custom_id == "a"


@pytest.mark.parametrize(
    ("code", "kind"), [(3, "invalid_request"), (8, "throttled"), (13, "server"), (1, "server"), (4, "timeout")]
)
def test_a_status_of_gemini_is_a_word_of_the_vocabulary(code: int, kind: str) -> None:
    line = json.dumps({"key": "a", "error": {"code": code, "message": "said"}}).encode()
    error = GEMINI.read(line, 0).error
    assert error is not None
    assert error.kind == kind


def test_a_small_job_of_gemini_goes_inline_and_a_large_one_as_a_file() -> None:
    line = GEMINI.member("run-1-0", "chat", wire({"contents": []}))
    small = JobRequest("run-1", "chat", "gemini-flash", "24h", [line])
    with pytest.raises(StopIteration):
        next(GEMINI.upload(small))
    call = GEMINI.create(small, None)
    assert call.path == "/models/gemini-flash:batchGenerateContent"
    requests = [{"request": {"contents": []}, "metadata": {"key": "run-1-0"}}]
    assert json.loads(call.content)["batch"] == {
        "displayName": "run-1",
        "inputConfig": {"requests": {"requests": requests}},
    }
    large = JobRequest("run-1", "chat", "gemini-flash", "24h", [b"x" * INLINE_BYTES, line])
    steps = GEMINI.upload(large)
    begin = next(steps)
    assert begin.headers["x-goog-upload-command"] == "start"
    where = "https://elsewhere.example/upload/v1beta/files?upload_id=1"
    send = steps.send(Heard(200, {"x-goog-upload-url": where}, b""))
    # The path that was named, at the configured host.
    assert (send.base, send.path) == ("origin", "/upload/v1beta/files?upload_id=1")
    with pytest.raises(StopIteration) as end:
        steps.send(heard({"file": {"name": "files/1"}}))
    assert json.loads(GEMINI.create(large, end.value.value).content)["batch"]["inputConfig"] == {"fileName": "files/1"}


HOSTILE = [
    b"", b"null", b"[]", b"{}", b"1e999", b"\xff\xfe", b"[" * 5000, b'{"id": 1}', b'{"data": 7}', b'{"name": {}}',
    b'{"id": "x", "status": "completed", "request_counts": [], "metadata": []}'[:40], b"<html>no</html>",
]  # fmt: skip


@pytest.mark.parametrize("api", ALL)
@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_a_reply_that_is_none_is_a_typed_error(api: str, content: bytes) -> None:
    dialect: BatchDialect = ALL[api]
    with pytest.raises(InferenceError):
        dialect.view(heard(content))
    with pytest.raises(Malformed):
        dialect.read(content, 0)
    try:
        views, _ = dialect.listed(heard(content))
    except InferenceError:
        views = []
    assert views == []


@pytest.mark.parametrize("api", ALL)
def test_a_refusal_is_the_providers_own_words(api: str) -> None:
    with pytest.raises(InferenceError, match="not today") as caught:
        ALL[api].view(heard({"error": {"message": "not today", "type": "x", "code": 429}}, 429))
    assert caught.value.kind in ("throttled", "quota_exhausted")
