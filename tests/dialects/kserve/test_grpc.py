from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import InvalidRequest, Malformed, Overloaded, QuotaExhausted, Throttled, TooLong
from engine.dialects.discovery import DiscoveryReply
from engine.dialects.kserve.grpc_client import SERVICE, KServeGrpcDialect
from engine.dialects.kserve.grpc_messages import (
    read_infer,
    read_metadata,
    write_flag,
    write_infer,
    write_name,
    write_server,
)
from engine.dialects.kserve.grpc_server import KServeGrpcServerDialect
from engine.dialects.kserve.tensors import Tensor

CLIENT, SERVER = KServeGrpcDialect(lambda: 0.0), KServeGrpcServerDialect()
NUMBERS = st.lists(st.integers(-100, 100), min_size=1, max_size=5)
# A ModelInferResponse as MLServer 1.7.1's compiled messages write it: model `texts`, one tensor, typed contents.
MLSERVER_REPLY = bytes.fromhex(
    "0a0574657874732a250a09656d62656464696e671204465033321a0201032a0e320c0000803f0000b8410000003f"
)


def decoded(content: bytes, task: str = "embedding") -> dict[str, Any]:
    return CLIENT.decode(task, 200, {}, content).body


def infer(*tensors: Tensor, **fields: Any) -> bytes:
    return write_infer("m", None, None, {}, list(tensors), reply=True, **fields)


def test_a_request_is_the_message_that_the_specification_names() -> None:
    # By the field numbers of open_inference_grpc.proto: 1 model_name, 5 inputs (1 name, 2 datatype, 3 shape packed),
    # 7 raw_input_contents.
    call = CLIENT.encode("embedding", {"input": ["a"]}, model="m", stream=False)
    assert (call.method, call.path) == ("POST", "/inference.GRPCInferenceService/ModelInfer")
    assert call.content == b"\x0a\x01m" + b"\x2a\x10\x0a\x04text\x12\x05BYTES\x1a\x01\x01" + b"\x3a\x05\x01\0\0\0a"


def test_version_parameters_and_outputs_are_sent() -> None:
    body = {
        "inputs": {"x": {"shape": [1], "datatype": "INT8", "data": [1]}},
        "outputs": ["y"],
        "model_version": 3,
        "parameters": {"flag": True, "count": -2, "word": "w"},
    }
    found = read_infer(CLIENT.encode("tensors", body, model="m", stream=False).content, reply=False)
    assert (found["version"], found["outputs"]) == ("3", ["y"])
    assert found["parameters"] == {"flag": True, "count": -2, "word": "w"}


def test_a_parameter_that_has_no_place_is_refused() -> None:
    body = {"inputs": {"x": [1]}, "parameters": {"scale": 0.5}}
    with pytest.raises(InvalidRequest, match="parameter 'scale'"):
        CLIENT.encode("tensors", body, model="m", stream=False)


def test_a_number_that_its_datatype_can_not_hold_is_refused() -> None:
    body = {"inputs": {"x": {"datatype": "UINT8", "data": [-1]}}}
    with pytest.raises(InvalidRequest, match="'x': an element is not a UINT8"):
        CLIENT.encode("tensors", body, model="m", stream=False)


def test_typed_contents_are_read() -> None:
    assert decoded(MLSERVER_REPLY)["data"][0]["embedding"] == [1.0, 23.0, 0.5]


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
def test_raw_contents_are_read(datatype: str) -> None:
    body = decoded(infer(Tensor("out", datatype, [2, 2], [1.0, 0.5, -2.0, 0.0])))
    assert [each["embedding"] for each in body["data"]] == [[1.0, 0.5], [-2.0, 0.0]]


@given(st.binary(max_size=60))
def test_bytes_that_are_no_message_are_malformed(content: bytes) -> None:
    try:
        decoded(content, "tensors")
    except (Malformed, InvalidRequest):
        return


def test_a_cut_reply_is_malformed() -> None:
    for end in range(1, len(MLSERVER_REPLY)):
        with pytest.raises((Malformed, InvalidRequest)):
            decoded(MLSERVER_REPLY[:end])


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request"), (401, "auth"), (429, "throttled"), (503, "overloaded"), (504, "timeout")],
)
def test_a_failed_call_is_a_word_of_the_vocabulary(status: int, kind: str) -> None:
    found = CLIENT.error(status, {"grpc-status": "X"}, b'{"error":"no luck (gRPC X)"}')
    assert (found.kind, found.status) == (kind, status)
    assert "no luck" in found.message


def test_the_metadata_of_the_model_fills_in_what_the_request_leaves_out() -> None:
    shown = SERVER.page(f"{SERVICE}/ModelMetadata", {}, write_name("m"), ["m"])[1]
    answers = [
        DiscoveryReply(200, shown),
        DiscoveryReply(200, write_flag(True)),
        DiscoveryReply(200, write_server("triton", "2.5")),
    ]
    server_info = CLIENT.server_info("m", answers)
    assert (
        server_info.found == "triton 2.5, the model is ready, inputs: text BYTES [-1], outputs: embedding FP32 [-1, -1]"
    )
    assert server_info.defaults == {
        "metadata": {
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": "embedding", "datatype": "FP32", "shape": [-1, -1]}],
        }
    }


def test_a_server_that_says_nothing_leaves_nothing_known() -> None:
    server_info = CLIENT.server_info("m", [DiscoveryReply(501, b"")] * 3)
    assert (server_info.found, server_info.defaults, server_info.missing) == ("", {}, False)


@given(
    st.dictionaries(st.text(min_size=1, max_size=4), NUMBERS, min_size=1, max_size=3),
    st.sampled_from(["INT8", "INT64", "FP32", "FP64"]),
)
def test_what_a_client_sends_is_what_a_server_reads(tensors: dict[str, list[int]], datatype: str) -> None:
    inputs = {name: {"shape": [len(data)], "datatype": datatype, "data": data} for name, data in tensors.items()}
    wire = CLIENT.encode("tensors", {"inputs": inputs}, model="m", stream=False)
    call = SERVER.read(wire.path, {}, {"authorization": "Bearer k"}, wire.content)
    assert (call.task, call.body["inputs"], call.model, call.key) == ("tensors", inputs, "m", "k")


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=2), min_size=1, max_size=3))
def test_vectors_come_back_as_they_were(vectors: list[list[float]]) -> None:
    wire = CLIENT.encode("embedding", {"input": ["x"] * len(vectors)}, model="m", stream=False)
    call = SERVER.read(wire.path, {}, {}, wire.content)
    data = [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    found = decoded(SERVER.reply(call, {"data": data}))
    assert [each["embedding"] for each in found["data"]] == vectors


def test_what_json_can_not_hold_comes_back_over_grpc() -> None:
    outputs = {"x": {"shape": [2], "datatype": "FP32", "data": [math.inf, 1.0]}}
    wire = CLIENT.encode("tensors", {"inputs": {"a": [1]}}, model="m", stream=False)
    call = SERVER.read(wire.path, {}, {}, wire.content)
    assert decoded(SERVER.reply(call, {"outputs": outputs}), "tensors")["outputs"] == outputs


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Throttled("x"), "RESOURCE_EXHAUSTED"),
        (QuotaExhausted("x"), "RESOURCE_EXHAUSTED"),
        (TooLong("x"), "INVALID_ARGUMENT"),
        (Overloaded("x"), "UNAVAILABLE"),
        (Malformed("x"), "INTERNAL"),
    ],
)
def test_a_refusal_names_its_code(error: Any, code: str) -> None:
    assert SERVER.refusal(error)[1]["grpc-status"] == code


def test_a_model_that_is_not_there_has_no_metadata() -> None:
    assert SERVER.page(f"{SERVICE}/ModelReady", {}, write_name("other"), ["m"])[0] == 404


def test_the_metadata_is_read_as_it_was_written() -> None:
    shown = SERVER.page(f"{SERVICE}/ModelMetadata", {}, write_name("m"), ["m"])[1]
    assert read_metadata(shown)["name"] == "m"


def test_the_models_are_listed_as_our_client_reads_them() -> None:
    assert CLIENT.models(SERVER.models(["a", "b"])) == ["a", "b"]
    assert CLIENT.models(b"\xff") == []
