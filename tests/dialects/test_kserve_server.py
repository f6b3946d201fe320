from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dialects import ClientCall
from engine.dialects.kserve import KServeDialect
from engine.dialects.kserve_server import KServeServerDialect
from engine.dialects.kserve_tensors import Tensor, write
from engine.errors import InvalidRequest, Throttled

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


@pytest.mark.parametrize(
    "tensors",
    [
        (),
        (TEXTS, TEXTS),
        (Tensor("text", "FP32", [1], [1.0]),),
        (Tensor("text", "BYTES", [1, 2], [b"a", b"b"]),),
        (Tensor("text", "BYTES", [0], []),),
    ],
)
def test_inputs_that_are_no_texts_are_refused(tensors: tuple[Tensor, ...]) -> None:
    with pytest.raises(InvalidRequest, match="inputs"):
        read(*tensors)


def test_a_text_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="UTF-8"):
        read(Tensor("text", "BYTES", [1], [b"\xff"]), binary=True)


@pytest.mark.parametrize("outputs", [3, [{"name": "a"}, {"name": "b"}], [{}], [3]])
def test_outputs_that_can_not_be_given_are_refused(outputs: Any) -> None:
    with pytest.raises(InvalidRequest, match="outputs"):
        read(TEXTS, outputs=outputs)


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
