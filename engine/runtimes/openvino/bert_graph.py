"""Builds the graph of a BERT encoder from its safetensors, with OpenVINO's own operations: no torch, no converter.

Architecture: Devlin et al., "BERT" (2018), as transformers' BertModel names and orders it.
Pooling and normalisation are part of the graph, so that only the sentence vectors leave it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import Type
from openvino import opset13 as op

from engine.core.errors import SetupError
from engine.runtimes.embedding.model import SentenceModel

Node = Any
MODEL_TYPES = ("bert",)
_GELU = {"gelu": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


def build(folder: Path, model: SentenceModel) -> ov.Model:
    """Builds the graph: input_ids and attention_mask, int32 (batch, length), to sentence vectors, float32 (batch,
    hidden).

    Raises SetupError for an unknown architecture.
    """
    from safetensors.numpy import load_file

    kind = model.config.get("model_type")
    if kind not in MODEL_TYPES:
        raise SetupError(
            f"model: OpenVINO encodes {', '.join(MODEL_TYPES)} from safetensors, and this is {kind}. Next: hardware=cpu"
        )
    if model.config.get("position_embedding_type", "absolute") != "absolute":
        raise SetupError("model: OpenVINO encodes only absolute positions from safetensors. Next: hardware=cpu")
    weights: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights.update(load_file(str(file)))
    return _Bert(weights, model).graph()


class _Bert:
    """The weights and the sizes during the build."""

    def __init__(self, weights: dict[str, Any], model: SentenceModel) -> None:
        prefix = "bert." if "bert.embeddings.word_embeddings.weight" in weights else ""
        self.weights = {name.removeprefix(prefix): value for name, value in weights.items()}
        config = model.config
        self.model = model
        self.hidden: int = config["hidden_size"]
        self.heads: int = config["num_attention_heads"]
        self.layers: int = config["num_hidden_layers"]
        self.eps: float = config.get("layer_norm_eps", 1e-12)
        activation = config.get("hidden_act", "gelu")
        if activation not in (*_GELU, "relu"):
            raise SetupError(f"model: activation {activation!r} is not known here. Next: hardware=cpu")
        self.activation: str = activation

    def graph(self) -> ov.Model:
        ids = op.parameter([-1, -1], Type.i32, name="input_ids")
        mask = op.parameter([-1, -1], Type.i32, name="attention_mask")
        seen = op.convert(mask, "f32")
        hidden = self._embed(ids)
        # 0 for a token that counts, a large negative number for padding.
        bias = op.multiply(
            op.subtract(_const(np.float32(1)), op.unsqueeze(seen, _axes(1, 2))), _const(np.float32(-1e9))
        )
        for index in range(self.layers):
            hidden = self._layer(hidden, bias, f"encoder.layer.{index}.")
        vectors = self._pool(hidden, op.unsqueeze(seen, _axes(2)))
        if self.model.normalize:
            vectors = op.normalize_l2(vectors, _axes(1), 1e-12, "max")
        return ov.Model([vectors], [ids, mask], "sentence_encoder")

    def _embed(self, ids: Node) -> Node:
        words, positions, types = (
            self._weight(f"embeddings.{name}_embeddings.weight") for name in ("word", "position", "token_type")
        )
        zero = _const(np.int64(0))
        length = op.unsqueeze(op.gather(op.shape_of(ids, "i64"), _const(np.int64(1)), zero), zero)
        # Every token has type 0, so its vector is folded into the positions.
        placed = op.slice(_const(positions + types[0]), _axes(0), length, _axes(1), _axes(0))
        return self._norm(op.add(op.gather(_const(words), ids, zero), placed), "embeddings.LayerNorm")

    def _layer(self, hidden: Node, bias: Node, name: str) -> Node:
        query, key, value = (
            self._split(self._linear(hidden, f"{name}attention.self.{part}")) for part in ("query", "key", "value")
        )
        looked = op.transpose(op.scaled_dot_product_attention(query, key, value, bias), _axes(0, 2, 1, 3))
        looked = self._linear(op.reshape(looked, _axes(0, 0, self.hidden), True), f"{name}attention.output.dense")
        hidden = self._norm(op.add(looked, hidden), f"{name}attention.output.LayerNorm")
        wide = self._activate(self._linear(hidden, f"{name}intermediate.dense"))
        return self._norm(op.add(self._linear(wide, f"{name}output.dense"), hidden), f"{name}output.LayerNorm")

    def _pool(self, hidden: Node, seen: Node) -> Node:
        if self.model.pooling == "cls":
            return op.gather(hidden, _const(np.int64(0)), _const(np.int64(1)))
        if self.model.pooling == "max":
            hidden = op.subtract(hidden, op.multiply(op.subtract(_const(np.float32(1)), seen), _const(np.float32(1e9))))
            return op.reduce_max(hidden, _axes(1))
        return op.divide(op.reduce_sum(op.multiply(hidden, seen), _axes(1)), op.reduce_sum(seen, _axes(1)))

    def _split(self, states: Node) -> Node:
        shaped = op.reshape(states, _axes(0, 0, self.heads, self.hidden // self.heads), True)
        return op.transpose(shaped, _axes(0, 2, 1, 3))

    def _linear(self, states: Node, name: str) -> Node:
        product = op.matmul(states, _const(self._weight(f"{name}.weight")), False, True, name=name)
        return op.add(product, _const(self._weight(f"{name}.bias")))

    def _norm(self, states: Node, name: str) -> Node:
        scaled = op.mvn(states, _axes(-1), True, self.eps, "INSIDE_SQRT")
        return op.add(op.multiply(scaled, _const(self._weight(f"{name}.weight"))), _const(self._weight(f"{name}.bias")))

    def _activate(self, states: Node) -> Node:
        return op.relu(states) if self.activation == "relu" else op.gelu(states, _GELU[self.activation])

    def _weight(self, name: str) -> Any:
        value = self.weights.get(name)
        if value is None:
            raise SetupError(f"model.sources: the weights have no {name}; the file is not a whole BERT encoder")
        return value.astype(np.float32, copy=False)


def _const(value: Any) -> Node:
    return op.constant(np.asarray(value))


def _axes(*axes: int) -> Node:
    return op.constant(np.array(axes, np.int64))
