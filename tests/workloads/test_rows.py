"""engine/workloads/rows.py: every form of a row, and what is said about wrong ones."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.workloads.rows import Form, Record, Row, letter_of, row_of

QUESTION = [{"role": "user", "content": "hi"}]


def read(value: Any, form: Form | None = None, index: int = 0) -> Row:
    data = value if isinstance(value, bytes | str) else json.dumps(value).encode()
    return row_of(index, "in.jsonl", Record(index + 1, data), form or Form())


@pytest.mark.parametrize(
    ("value", "form", "task", "body"),
    [
        ({"prompt": "hi"}, Form(), "chat", {"messages": QUESTION}),
        ({"prompt": "hi", "temperature": 0}, Form(), "chat", {"messages": QUESTION, "temperature": 0}),
        ({"prompt": "hi", "task": "completion"}, Form(), "completion", {"prompt": "hi"}),
        ({"prompt": "hi"}, Form("completion", True), "completion", {"prompt": "hi"}),
        ({"prompt": "hi"}, Form("embedding"), "embedding", {"input": "hi"}),
        ({"messages": QUESTION, "model": "m"}, Form(), "chat", {"messages": QUESTION, "model": "m"}),
        ({"input": "hi"}, Form("chat"), "embedding", {"input": "hi"}),
        ({"input": ["a", "b"]}, Form("chat"), "embedding", {"input": ["a", "b"]}),
        ({"input": "hi"}, Form("chat", True), "chat", {"messages": QUESTION}),
        ("hi", Form(), "chat", {"messages": QUESTION}),
        ("hi", Form("embedding"), "embedding", {"input": "hi"}),
        ({"body": {"messages": QUESTION}}, Form(), "chat", {"messages": QUESTION}),
        ({"url": "/v1/embeddings", "method": "POST", "body": {"input": "x"}}, Form(), "embedding", {"input": "x"}),
        ({"url": "/completions?api-version=1", "body": {"prompt": "x"}}, Form(), "completion", {"prompt": "x"}),
        ({"prompt": "hi"}, Form(parameters={"max_tokens": 5}), "chat", {"max_tokens": 5, "messages": QUESTION}),
        ({"prompt": "hi", "max_tokens": 9}, Form(parameters={"max_tokens": 5}), "chat",
         {"max_tokens": 9, "messages": QUESTION}),
        ({"file": "a.wav"}, Form(), "transcription", {"file": "a.wav"}),
        ({"file": "a.wav", "prompt": "Zoë", "language": "de"}, Form(), "transcription",
         {"file": "a.wav", "prompt": "Zoë", "language": "de"}),
        ({"file": {"data": "AA=="}}, Form("audio-translation", True), "audio-translation", {"file": {"data": "AA=="}}),
        ({"prompt": "a.wav"}, Form("transcription", True), "transcription", {"file": "a.wav"}),
        ({"image": "a.png", "prompt": "a hat"}, Form(), "image-edit", {"image": "a.png", "prompt": "a hat"}),
        ({"image": ["a.png", "b.png"], "prompt": "x"}, Form(), "image-edit",
         {"image": ["a.png", "b.png"], "prompt": "x"}),
        ({"prompt": "a cat", "size": "auto"}, Form("image", True), "image", {"prompt": "a cat", "size": "auto"}),
        ({"input": "hi", "voice": "v"}, Form("speech", True), "speech", {"input": "hi", "voice": "v"}),
        ({"prompt": "hi"}, Form("response", True), "response", {"input": "hi"}),
        ({"input": [{"role": "user", "content": "hi"}], "task": "response"}, Form(), "response",
         {"input": [{"role": "user", "content": "hi"}]}),
        ({"inputs": "cat.png", "task": "image-classification"}, Form(), "image-classification", {"inputs": "cat.png"}),
        ({"inputs": {"image": "a.png", "question": "?"}}, Form("visual-question-answering", True),
         "visual-question-answering", {"inputs": {"image": "a.png", "question": "?"}}),
        ({"url": "/v1/audio/transcriptions", "body": {"url": "https://example.com/a.wav"}}, Form(), "transcription",
         {"url": "https://example.com/a.wav"}),
        ({"url": "/v1/responses", "body": {"prompt": {"id": "pmpt_1"}}}, Form(), "response",
         {"prompt": {"id": "pmpt_1"}}),
        ({"url": "/v1/images/edits", "body": {"image": "a.png", "prompt": "x"}}, Form(), "image-edit",
         {"image": "a.png", "prompt": "x"}),
    ],
)  # fmt: skip
def test_forms(value: Any, form: Form, task: str, body: dict[str, Any]) -> None:
    row = read(value, form)
    assert row.error is None
    assert row.request is not None
    assert (row.request.task, row.request.body) == (task, body)


def test_the_row_fields_do_not_go_into_the_body() -> None:
    row = read({"id": 7, "prompt": "hi", "priority": "high", "deadline_s": 2.5, "metadata": {"k": "v"}})
    assert row.request is not None
    assert (row.id, row.request.id, row.request.priority, row.request.deadline_s) == ("7", "7", "high", 2.5)
    assert row.request.metadata == {"k": "v"}
    assert row.request.body == {"messages": QUESTION}


def test_a_row_without_an_id_is_called_by_its_place() -> None:
    assert read({"prompt": "hi"}, index=4).id == "row-5"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b'{"prompt": "hi"', "not valid JSON: Input data was truncated; each line must be one JSON object"),
        (b"[1]", "expected a JSON object, got an array"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"prompt": "\xff"}', "not UTF-8 at byte 13; save the file as UTF-8"),
        ({}, "expected one of prompt, messages, input, file, inputs, or an OpenAI body; found nothing"),
        ({"promt": "x"}, "found promt"),
        ({"inputs": "x"}, "inputs: got no task; expected one in the row (task) or in workload.task"),
        ({"file": "a.wav", "task": "chat"}, "file: the task chat takes messages"),
        ({"image": "a.png", "prompt": "x", "task": "image"}, "image: the task image takes prompt"),
        ({"image": "a.png"}, "the task image-edit needs prompt"),
        ({"file": "a.wav", "input": "x"}, "found input and file"),
        ({"file": ""}, "the task transcription needs file"),
        ({"prompt": "x", "input": "y"}, "found prompt and input"),
        ({"prompt": 5}, "prompt: expected text, got a number"),
        ({"prompt": ""}, "the task chat needs messages, which is missing or empty"),
        ({"messages": "hi"}, "messages: expected an array of objects"),
        ({"messages": QUESTION, "task": "embedding"}, "messages: the task embedding takes input"),
        ({"prompt": "x", "task": "chatt"}, "task: 'chatt' is not a task; did you mean chat?"),
        ({"prompt": "x", "priority": "urgent"}, "priority: 'urgent' is not a priority"),
        ({"prompt": "x", "priority": ["high"]}, "priority: expected high, normal or low, got an array"),
        ({"prompt": "x", "deadline_s": "soon"}, "deadline_s: expected a number of seconds, got 'soon'"),
        ({"prompt": "x", "deadline_s": -1}, "deadline_s: expected seconds, more than 0, got -1"),
        ({"prompt": "x", "metadata": 3}, "metadata: expected an object, got a number"),
        ({"custom_id": ["a"], "prompt": "x"}, "custom_id: expected text, got an array"),
        ({"url": "/v1/audio", "body": {}}, "url: '/v1/audio' is not known; did you mean /v1/audio/speech"),
        ({"url": "/v1/chat/complet", "body": {}}, "is not known; did you mean /v1/chat/completions"),
        ({"url": "/nowhere", "body": {}}, "is not known; one of: /v1/audio/speech"),
        ({"url": "/v1/embeddings"}, "body: expected an object, got null"),
        ({"method": "GET", "body": {"input": "x"}}, "method: expected POST, got 'GET'"),
        ({"body": {"messages": QUESTION}, "bodi": 1}, "bodi: not a field of a batch line"),
        ({"task": "chat", "url": "/v1/embeddings", "body": {"input": "x"}}, "task: chat does not fit the url"),
        ({"raw_base64": "%"}, "raw_base64: "),
    ],
)  # fmt: skip
def test_wrong_rows_say_where_what_and_what_to_do(value: Any, message: str) -> None:
    row = read(value, index=2)
    assert row.request is None
    assert row.error is not None
    assert row.error.message.startswith("in.jsonl:3: ")
    assert message in row.error.message


@pytest.mark.parametrize("line", [b'{"prompt": "hi"', b"nonsense", b"[1]", b'{"prompt": "\xff\xfe"}', b'"\\ud800"'])
def test_the_letter_of_a_broken_line_is_valid_json_and_reads_as_the_same_line(line: bytes) -> None:
    first = read(line)
    letter = first.letter()
    json.loads(letter)
    again = read(letter, index=5)
    assert again.id == first.id
    assert again.error is not None
    assert first.error is not None
    assert again.error.message.split(": ", 1)[1] == first.error.message.split(": ", 1)[1]
    assert again.letter() == letter


def test_a_repaired_letter_is_answered() -> None:
    row = read({"custom_id": "c3", "raw": '{"prompt": "hi"}'})
    assert row.request is not None
    assert (row.request.id, row.request.body) == ("c3", {"messages": QUESTION})


def test_the_letter_of_an_object_is_the_object_byte_for_byte() -> None:
    line = b'{ "prompt" : "hi",  "x": 123456789012345678901234567890, "e": "\\u00e9" }'
    assert read(line + b"\r").letter() == line


@given(st.binary(max_size=60).filter(lambda line: b"\n" not in line))
def test_any_bytes_give_one_row_and_a_letter_that_is_valid_json(line: bytes) -> None:
    row = read(line)
    assert (row.request is None) != (row.error is None)
    json.loads(row.letter())
    assert b"\n" not in row.letter()


ROW_BYTES = st.one_of(
    st.binary(max_size=60).filter(lambda line: b"\n" not in line),
    st.sampled_from([b' {"prompt": "hi"} ', b'{"custom_id": "a", "raw": "[1]"}', b'{"input": ["a"]}\t', b"{}"]),
)


@given(st.one_of(ROW_BYTES, st.text(max_size=20), st.fixed_dictionaries({"prompt": st.text(max_size=9)})))
def test_the_quick_letter_is_the_rows_own_unless_the_row_is_broken(data: Any) -> None:
    record = Record(1, data)
    row = row_of(0, "in.jsonl", record, Form())
    assert letter_of(record, Form()) == row.letter() or row.request is None


NEARLY = {
    "lone surrogates": b'{"custom_id": "mine", "prompt": "a \\ud83d"}',
    "NaN": b'{"custom_id": "mine", "prompt": "a", "temperature": NaN}',
    "a byte order mark": b'\xef\xbb\xbf{"custom_id": "mine", "prompt": "a"}',
    "raw control characters": b'{"custom_id": "mine", "prompt": "a\x07"}',
}


@pytest.mark.parametrize("kind", NEARLY)
def test_a_row_that_is_nearly_json_is_a_request_with_a_warning(kind: str) -> None:
    row = row_of(0, "f", Record(1, NEARLY[kind]), Form())
    assert row.request is not None
    assert (row.id, len(row.warnings)) == ("mine", 1)
    msgspec.json.encode(row.request.body)
    assert row.letter() == NEARLY[kind]


BROKEN = [
    b'{"custom_id": "mine", "prompt": "a"',
    b'{"custom_id": "mine", "prompt": "a"} {"custom_id": "other", "prompt": "b"}',
    b'{"custom_id": "mine", "prompt": "\xff"}',
    b'{"prompt": tru, "custom_id" : "mine"}',
    b'{"custom_id": "mine", "prompt": "a", "x": ' + b"[" * 1000 + b"]" * 1000 + b"}",
    b'{"custom_id": "mine", "prompt": "a", "x": ' + b"[" * 9000 + b"]" * 9000 + b"}",
    b'[{"custom_id": "mine"}, ]',
]


@pytest.mark.parametrize("line", BROKEN, ids=range(len(BROKEN)))
def test_a_row_that_is_not_json_keeps_its_id(line: bytes) -> None:
    row = row_of(0, "f", Record(1, line), Form())
    assert row.error is not None
    assert row.id == "mine"
    assert row_of(0, "f", Record(1, row.letter()), Form()).id == "mine"


@given(st.text(min_size=1, max_size=20), st.integers(0, 60))
def test_an_id_is_found_wherever_the_line_breaks(id: str, cut: int) -> None:
    id = id.encode("utf-8", "replace").decode()
    line = msgspec.json.encode({"custom_id": id, "prompt": "x" * 60})
    row = row_of(0, "f", Record(1, line[: len(line) - 2 - cut]), Form())
    assert row.error is not None
    assert row.id == id
