"""GGUF weights on OpenVINO without loss: OpenVINO GenAI's own model of the file, with corrected weights.

GenAI reads formats whose blocks have a minimum (Q4_1, Q4_K) as 4-bit weights with a 4-bit zero point. The block's true
zero lies between two integers, so every weight of a block is off by up to half a step in the same direction: a model
that knows that a week has 7 days then says 31. Here such weights become 8-bit, with a zero point 16 times finer: as
fast in a batch, twice the memory, and the answers of the file's own weights. docs/decisions/0010 has the figures.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.artifacts.cache import Held
from engine.artifacts.gguf import TensorInfo, read
from engine.artifacts.resolve import Artifact
from engine.runtimes.openvino import signal_stack
from engine.runtimes.openvino.cache import kept
from engine.runtimes.openvino.core import core

RECIPE = 1
"""Version of the output: a cached copy of an older version is made again."""
WITH_MINIMUM = {3: "Q4_1", 12: "Q4_K"}
"""The ggml types that GenAI reads with a rounded zero point."""


def needs_repair(path: Path) -> bool:
    """Returns True if OpenVINO GenAI would read this file's weights with a rounded zero point."""
    return any(tensor.kind in WITH_MINIMUM for tensor in read(path)[1])


def repaired(artifact: Artifact, path: Path) -> Held:
    """Returns a folder of OpenVINO IR with the weights of `path`, the artifact's file, made once and kept in its cache.

    Blocks, some seconds. Raises OSError or SetupError when the cache can't be written and RuntimeError when OpenVINO
    can't read the file.
    """
    import openvino_genai

    recipe = {"genai": openvino_genai.__version__, "recipe": str(RECIPE)}
    return kept(replace(artifact, path=path), "OpenVINO", recipe, lambda temp: _convert(path, temp))


@signal_stack.kept()
def _convert(path: Path, temp: Path) -> Path:
    """Lets GenAI write its model next to the file it reads, and replaces the weights in that model."""
    import openvino
    import openvino_genai

    link = temp / "model.gguf"
    try:
        link.symlink_to(path.resolve())
    except OSError:
        shutil.copyfile(path, link)
    pipeline = openvino_genai.LLMPipeline(str(link), "CPU", enable_save_ov_model=True)
    del pipeline
    model = core().read_model(str(temp / "openvino_model.xml"))
    Weights(path).put_right(model)
    fresh = temp / "fresh"
    fresh.mkdir()
    openvino.save_model(model, str(fresh / "openvino_model.xml"), compress_to_fp16=False)
    for file in temp.glob("openvino_*tokenizer.*"):
        os.replace(file, fresh / file.name)
    return fresh


class Weights:
    """The tensors of a GGUF file, found by GenAI's version of them."""

    def __init__(self, path: Path) -> None:
        metadata, tensors = read(path)
        architecture = metadata.get("general.architecture")
        heads = int(metadata.get(f"{architecture}.attention.head_count", 1))
        self._heads = {"attn_q": heads, "attn_k": int(metadata.get(f"{architecture}.attention.head_count_kv", heads))}
        self._data = np.memmap(path, np.uint8, "r")
        self._left = [tensor for tensor in tensors if tensor.kind in WITH_MINIMUM]

    def put_right(self, model: Any) -> int:
        """Replaces every 4-bit weight that has a tensor in the file; returns their number."""
        done = 0
        for multiply in model.get_ordered_ops():
            found = _four_bit(multiply)
            if found is None:
                continue
            exact = self._exact(_values(*found))
            if exact is not None:
                _replace(multiply, exact)
                done += 1
        return done

    def _exact(self, rounded: np.ndarray) -> np.ndarray | None:
        """Returns the exact values of GenAI's `rounded`, shape (rows, groups, 32); None if they are not in the file."""
        columns = rounded.shape[1] * rounded.shape[2]
        # Half a step of a group is the most that rounding shifts; a step is a fifteenth of its range.
        tolerance = np.ptp(rounded, axis=2, keepdims=True) / 15 + 1e-6
        for tensor in self._left:
            if tensor.shape != (rounded.shape[0], columns):
                continue
            first = self._read(tensor, 1).reshape(1, *rounded.shape[1:])
            if np.any(np.abs(first - rounded[:1]) > tolerance[:1]):
                continue
            whole = self._read(tensor, tensor.shape[0])
            for candidate in self._orders(tensor, whole):
                candidate = candidate.reshape(rounded.shape)
                if np.all(np.abs(candidate - rounded) <= tolerance):
                    self._left.remove(tensor)
                    return candidate
        return None

    def _orders(self, tensor: TensorInfo, whole: np.ndarray) -> list[np.ndarray]:
        """Returns the tensor as stored, without llama.cpp's order of the rows of queries and keys."""
        orders = [whole]
        heads = next((count for name, count in self._heads.items() if f".{name}." in tensor.name), None)
        if heads is not None:
            half = whole.shape[0] // heads // 2
            orders.append(whole.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(whole.shape))
        return orders

    def _read(self, tensor: TensorInfo, rows: int) -> np.ndarray:
        """Returns the first rows of a tensor, dequantized to float32."""
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize, quant_shape_to_byte_shape

        kind = GGMLQuantizationType(tensor.kind)
        shape = quant_shape_to_byte_shape((rows, tensor.shape[1]), kind)
        raw = self._data[tensor.offset : tensor.offset + int(np.prod(shape))].reshape(shape)
        values: np.ndarray = dequantize(raw, kind)
        return values


def _four_bit(multiply: Any) -> tuple[Any, Any, Any] | None:
    """Returns weight, zero point and scale of `(weight - zero) * scale` for a weight of 4 bits."""
    if multiply.get_type_name() != "Multiply":
        return None
    subtract, scale = (multiply.input_value(place).get_node() for place in (0, 1))
    if subtract.get_type_name() != "Subtract" or scale.get_type_name() != "Constant":
        return None
    converts = [subtract.input_value(place).get_node() for place in (0, 1)]
    if any(node.get_type_name() != "Convert" for node in converts):
        return None
    weight, zero = (node.input_value(0).get_node() for node in converts)
    if weight.get_type_name() != "Constant" or weight.get_element_type().get_type_name() != "u4":
        return None
    return weight, zero, scale


def _values(weight: Any, zero: Any, scale: Any) -> np.ndarray:
    values: np.ndarray = (_nibbles(weight) - _nibbles(zero)) * scale.data.astype(np.float32)
    return values


def _nibbles(constant: Any) -> np.ndarray:
    """Returns a u4 constant as float32; a byte has two values, the lower half first."""
    packed = constant.data.view(np.uint8).ravel()
    values = np.empty(packed.size * 2, np.float32)
    values[0::2], values[1::2] = packed & 15, packed >> 4
    shape = tuple(int(size) for size in constant.shape)
    whole: np.ndarray = values[: int(np.prod(shape))].reshape(shape)
    return whole


def _replace(multiply: Any, exact: np.ndarray) -> None:
    """Replaces 4-bit weights by 8-bit ones, with a zero point and scale for each group."""
    from openvino import opset13

    low = np.minimum(exact.min(axis=2, keepdims=True), 0.0)
    high = np.maximum(exact.max(axis=2, keepdims=True), 0.0)
    # The scale is stored as float16: quantize the weights with the stored value.
    scale = np.maximum((high - low) / 255, 1e-7).astype(np.float16).astype(np.float32)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    weight = np.clip(np.rint(exact / scale) + zero, 0, 255)
    subtract = multiply.input_value(0).get_node()
    for place, values in ((0, weight), (1, zero)):
        convert = subtract.input_value(place).get_node()
        convert.input(0).replace_source_output(opset13.constant(values.astype(np.uint8)).output(0))
    multiply.input(1).replace_source_output(opset13.constant(scale.astype(np.float16)).output(0))
