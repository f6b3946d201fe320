from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import InferenceError, InvalidRequest, Malformed
from engine.dialects.kserve.client import KServeDialect
from engine.dialects.kserve.tensors import Tensor, write

# KServe, "Open Inference Protocol (V2)", "Inference Response JSON Object", with the outputs of MLServer 1.7.1.
JSON_REPLY = (
    b'{"model_name":"texts","id":"5ce32d55","parameters":{},"outputs":[{"name":"embedding","shape":[2,3],'
    b'"datatype":"FP32","parameters":{"content_type":"np"},"data":[1.0,0.0,0.5,3.0,6.0,0.25]}]}'
)
VECTORS = [[1.0, 0.0, 0.5], [3.0, 6.0, 0.25]]


@pytest.fixture
def dialect() -> KServeDialect:
    return KServeDialect(lambda: 0.0)


def sent(dialect: KServeDialect, body: dict[str, Any], **options: Any) -> Any:
    call = dialect.encode("embedding", body, model="m", stream=False, **options)
    return msgspec.json.decode(call.content)


def decoded(dialect: KServeDialect, *outputs: Tensor, binary: bool = True) -> list[Any]:
    content, headers = write({"model_name": "m"}, "outputs", list(outputs), binary=binary)
    return [each["embedding"] for each in dialect.decode("embedding", 200, headers, content).body["data"]]


# -- encode ------------------------------------------------------------------------------------------------------------


def test_texts_go_into_a_tensor_of_bytes(dialect: KServeDialect) -> None:
    call = dialect.encode("embedding", {"input": ["a", "ü"], "model": "x"}, model="bge", stream=False)
    assert (call.method, call.path, call.warnings) == ("POST", "/v2/models/bge/infer", [])
    body = msgspec.json.decode(call.content)
    assert body["inputs"] == [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a", "ü"]}]


def test_the_vectors_are_asked_for_as_bytes(dialect: KServeDialect) -> None:
    assert sent(dialect, {"input": "a"})["parameters"] == {"binary_data_output": True}


def test_the_tensors_can_be_named(dialect: KServeDialect) -> None:
    body = sent(dialect, {"input": "a", "input_tensor": "TEXT", "output_tensor": "POOLED"})
    assert body["inputs"][0]["name"] == "TEXT"
    assert body["outputs"] == [{"name": "POOLED", "parameters": {"binary_data": True}}]


def test_a_model_is_one_segment_of_the_path(dialect: KServeDialect) -> None:
    call = dialect.encode("embedding", {"input": "a"}, model="BAAI/bge m?", stream=False)
    assert call.path == "/v2/models/BAAI%2Fbge%20m%3F/infer"


@pytest.mark.parametrize("form", ["float", "base64"])
def test_the_form_of_the_vectors_is_not_the_wires_matter(dialect: KServeDialect, form: str) -> None:
    assert "encoding_format" not in sent(dialect, {"input": "a", "encoding_format": form})


@pytest.mark.parametrize("field", ["dimensions", "user", "truncate"])
def test_what_the_wire_can_not_say_is_refused_or_dropped_with_a_warning(dialect: KServeDialect, field: str) -> None:
    body = {"input": "a", field: 7}
    with pytest.raises(InvalidRequest, match=f"body.{field}.*drop_unsupported"):
        sent(dialect, body)
    call = dialect.encode("embedding", body, model="m", stream=False, drop_unsupported=True)
    assert field in call.warnings[0]
    assert field.encode() not in call.content


@pytest.mark.parametrize("given", [None, [], 3, [[1, 2]], [1], ["a", None], "\ud800", {"text": "a"}])
def test_an_input_that_is_no_text_is_refused(dialect: KServeDialect, given: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"body\.input"):
        sent(dialect, {"input": given})


def test_only_plain_embeddings_are_carried(dialect: KServeDialect) -> None:
    with pytest.raises(InvalidRequest, match="not on the KServe wire"):
        dialect.encode("chat", {}, model="m", stream=False)
    with pytest.raises(InvalidRequest, match="can't be streamed"):
        dialect.encode("embedding", {"input": "a"}, model="m", stream=True)


# -- decode ------------------------------------------------------------------------------------------------------------


def test_a_reply_in_json_is_read(dialect: KServeDialect) -> None:
    reply = dialect.decode("embedding", 200, {}, JSON_REPLY)
    assert [each["embedding"] for each in reply.body["data"]] == VECTORS
    assert [each["index"] for each in reply.body["data"]] == [0, 1]
    assert (reply.body["model"], reply.provider_request_id, reply.usage) == ("texts", "5ce32d55", None)


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
def test_a_reply_with_tensors_as_bytes_is_read(dialect: KServeDialect, datatype: str) -> None:
    flat = [number for vector in VECTORS for number in vector]
    assert decoded(dialect, Tensor("out", datatype, [2, 3], flat)) == VECTORS


def test_the_vectors_are_found_among_other_outputs(dialect: KServeDialect) -> None:
    tokens = Tensor("last_hidden_state", "FP32", [1, 2, 2], [0.0] * 4)
    mask = Tensor("mask", "INT64", [1, 2], [1, 1])
    assert decoded(dialect, tokens, mask, Tensor("out", "FP32", [1, 2], [1.0, 2.0])) == [[1.0, 2.0]]


def test_of_several_vectors_the_one_with_a_known_name_is_taken(dialect: KServeDialect) -> None:
    other = Tensor("logits", "FP32", [1, 2], [9.0, 9.0])
    assert decoded(dialect, other, Tensor("sentence_embedding", "FP32", [1, 2], [1.0, 2.0])) == [[1.0, 2.0]]


def test_vectors_that_can_not_be_told_apart_are_an_error_that_says_what_to_do(dialect: KServeDialect) -> None:
    a, b = Tensor("a", "FP32", [1, 1], [1.0]), Tensor("b", "FP32", [1, 1], [1.0])
    with pytest.raises(InvalidRequest, match=r"body\.output_tensor.*a FP32 \[1, 1\], b FP32"):
        decoded(dialect, a, b)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b'{"outputs": 3}', b'{"outputs": [3]}', b"\xff", b"[" * 100_000, JSON_REPLY[:-30]],
)
def test_a_reply_that_is_none_is_malformed(dialect: KServeDialect, content: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        dialect.decode("embedding", 200, {}, content)
    assert caught.value.status == 200


@pytest.mark.parametrize("shape", [[0, 3], [2, 0]])
def test_empty_vectors_are_malformed(dialect: KServeDialect, shape: list[int]) -> None:
    with pytest.raises(Malformed, match="empty"):
        decoded(dialect, Tensor("out", "FP32", shape, []))


@pytest.mark.parametrize(
    ("status", "content", "kind", "text"),
    [
        # MLServer 1.7.1: an unknown model, a model that refuses, a body of another form.
        (404, b'{"error":"Model none not found"}', "invalid_request", "Model none not found"),
        (400, b'{"error":"asked to fail"}', "invalid_request", "asked to fail"),
        (
            422,
            b'{"detail":[{"type":"list_type","msg":"Input should be a valid list"}]}',
            "invalid_request",
            "valid list",
        ),
        # OVMS, "KServe compatible RESTful API": a model that is not ready.
        (503, b'{"error": "Model with requested name is not ready"}', "overloaded", "not ready"),
        (200, b'{"error": "the model stopped"}', "server", "the model stopped"),
        (401, b'{"error": "no"}', "auth", "no"),
        (503, b"", "overloaded", "an empty body"),
    ],
)
def test_errors_are_typed_and_keep_what_was_said(
    dialect: KServeDialect, status: int, content: bytes, kind: str, text: str
) -> None:
    with pytest.raises(InferenceError) as caught:
        dialect.decode("embedding", status, {"x-request-id": "req_1"}, content)
    assert (caught.value.kind, caught.value.status) == (kind, status)
    assert text in caught.value.message
    assert caught.value.provider_request_id == "req_1"


def test_the_repositorys_index_is_the_list_of_models(dialect: KServeDialect) -> None:
    # Triton, "Model Repository Extension", "Index".
    assert dialect.models(b'[{"name":"a","version":"1","state":"READY","reason":""},{"name":"b"}]') == ["a", "b"]
    assert dialect.models(b"<html>") == dialect.models(b"{}") == []
