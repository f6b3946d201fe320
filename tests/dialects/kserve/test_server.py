from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import InvalidRequest, Throttled
from engine.dialects.discovery import DiscoveryReply
from engine.dialects.kserve.client import KServeDialect
from engine.dialects.kserve.server import KServeServerDialect
from engine.dialects.kserve.tensors import Tensor, write
from engine.dialects.server import ClientCall

CLIENT, SERVER = KServeDialect(lambda: 0.0), KServeServerDialect()
TEXTS = Tensor("text", "BYTES", [2], [b"a", "ü".encode()])


def read(*tensors: Tensor, binary: bool = False, headers: dict[str, str] | None = None, **fields: Any) -> ClientCall:
    content, own = write(fields, "inputs", list(tensors), binary=binary)
    return SERVER.read("/v2/models/m/infer", {"model": "m"}, {**own, **(headers or {})}, content)


def reply(*vectors: Any) -> dict[str, Any]:
    return {"data": [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]}


@pytest.mark.parametrize("binary", [True, False])
def test_texts_are_read_from_json_and_from_bytes(binary: bool) -> None:
    call = read(TEXTS, binary=binary, headers={"authorization": "Bearer k"})
    assert (call.task, call.body, call.stream, call.model, call.key) == (
        "embedding",
        {"model": "m", "input": ["a", "ü"]},
        False,
        "m",
        "k",
    )


def test_a_text_a_row_may_stand_in_a_column() -> None:
    assert read(Tensor("text", "BYTES", [2, 1], TEXTS.data)).body["input"] == ["a", "ü"]


@given(st.lists(st.text(), min_size=1), st.sampled_from([{}, {"input_tensor": "x"}, {"output_tensor": "y"}]))
def test_what_a_client_writes_is_what_a_server_reads(texts: list[str], names: dict[str, str]) -> None:
    body = {"model": "m", "input": texts, **names}
    wire = CLIENT.encode("embedding", body, model="m", stream=False)
    assert SERVER.read(wire.path, {"model": "m"}, wire.headers, wire.content).body == body


@given(
    st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3), min_size=1)
)
def test_vectors_come_back_as_they_were(vectors: list[list[float]]) -> None:
    found = CLIENT.decode("embedding", 200, {}, SERVER.reply(read(TEXTS), reply(*vectors))).body
    assert [each["embedding"] for each in found["data"]] == vectors
    assert found["model"] == "m"


def test_packed_vectors_are_unpacked() -> None:
    packed = base64.b64encode(struct.pack("<2f", 0.5, -2.0)).decode()
    assert msgspec.json.decode(SERVER.reply(read(TEXTS), reply(packed)))["outputs"][0]["data"] == [0.5, -2.0]


def test_a_reply_repeats_the_id_and_the_output_that_was_named() -> None:
    call = read(TEXTS, id="42", outputs=[{"name": "POOLED", "parameters": {"binary_data": True}}])
    assert msgspec.json.decode(SERVER.reply(call, reply([1.0]))) == {
        "model_name": "m",
        "id": "42",
        "outputs": [{"name": "POOLED", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}],
    }


@pytest.mark.parametrize("tensors", [(), (Tensor("text", "BYTES", [0], []),)])
def test_a_request_without_any_input_is_refused(tensors: tuple[Tensor, ...]) -> None:
    with pytest.raises(InvalidRequest, match="inputs"):
        read(*tensors)


@pytest.mark.parametrize(
    "tensors",
    [
        (TEXTS, Tensor("b", "INT64", [1], [3])),
        (Tensor("text", "FP32", [1], [1.0]),),
        (Tensor("text", "BYTES", [1, 2], [b"a", b"b"]),),
    ],
)
def test_what_is_no_list_of_texts_is_task_tensors(tensors: tuple[Tensor, ...]) -> None:
    call = read(*tensors, parameters={"top": 3, "binary_data_output": True}, outputs=[{"name": "y"}])
    assert call.task == "tensors"
    assert list(call.body["inputs"]) == [tensor.name for tensor in tensors]
    assert (call.body["outputs"], call.body["parameters"]) == (["y"], {"top": 3})


def test_bytes_that_are_no_text_are_kept() -> None:
    call = read(Tensor("text", "BYTES", [1], [b"\xff"]), binary=True)
    assert call.body["inputs"]["text"] == {"shape": [1], "datatype": "BYTES", "data": [{"b64": "/w=="}]}


@pytest.mark.parametrize("outputs", [3, [{}], [3]])
def test_outputs_that_can_not_be_given_are_refused(outputs: Any) -> None:
    with pytest.raises(InvalidRequest, match="outputs"):
        read(TEXTS, outputs=outputs)


def test_tensors_come_back_as_they_were() -> None:
    wire = CLIENT.encode("tensors", {"inputs": {"x": [[1, 2]]}}, model="m", stream=False)
    call = SERVER.read(wire.path, {"model": "m"}, wire.headers, wire.content)
    outputs = {
        "y": {"shape": [1, 2], "datatype": "FP32", "data": [0.5, 1.5]},
        "z": {"shape": [2], "datatype": "BYTES", "data": ["a", "ü"]},
    }
    assert CLIENT.decode("tensors", 200, {}, SERVER.reply(call, {"outputs": outputs})).body["outputs"] == outputs


def test_tensors_that_json_can_not_hold_are_refused() -> None:
    call = read(Tensor("x", "FP32", [1], [1.0]))
    with pytest.raises(InvalidRequest, match="gRPC"):
        SERVER.reply(call, {"outputs": {"y": {"shape": [1], "datatype": "FP16", "data": [1.0]}}})


def test_our_client_reads_the_pages_that_describe_the_server() -> None:
    answers = []
    for question in CLIENT.questions("m"):
        parts = {"model": "m"} if "/models/" in question.path else {}
        known = ("GET", question.path.replace("models/m", "models/{model}")) in SERVER.pages
        status, content = SERVER.page(question.path, parts, b"", ["m"]) if known else (404, b"")
        answers.append(DiscoveryReply(status, content))
    server_info = CLIENT.server_info("m", answers)
    assert server_info.found.startswith("engine 1, the model is ready, inputs: text BYTES [-1]")


def test_a_model_that_is_not_there_has_no_page() -> None:
    assert SERVER.page("/v2/models/x", {"model": "x"}, b"", ["m"])[0] == 404


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"inputs": 3}', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_request_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest):
        SERVER.read("/v2/models/m/infer", {"model": "m"}, {}, content)


def test_a_refusal_is_understood_by_our_own_client() -> None:
    found = CLIENT.error(*SERVER.refusal(Throttled("slow down", retry_after_s=1.5)))
    assert (found.kind, found.retry_after_s) == ("throttled", 2)
    assert "slow down" in found.message


def test_the_models_are_listed_as_our_client_reads_them() -> None:
    assert CLIENT.models(SERVER.models(["a", "b"])) == ["a", "b"]


def test_nothing_is_streamed() -> None:
    with pytest.raises(InvalidRequest, match="can't be streamed"):
        SERVER.stream_encoder(read(TEXTS))
