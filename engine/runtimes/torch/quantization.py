"""Smaller weights: applies `hardware.quantization` to a model that was loaded in full precision.

torch: linear layers only; embeddings and the layer that scores words stay (they are often one and the same tensor, and
the answers depend on it most). int8_dynamic: torch.ao.quantization.quantize_dynamic, 8-bit weights, activations
quantized as they come. int8, int4: torchao's weight-only configurations. bnb_*: transformers' BitsAndBytesConfig,
applied while loading. OpenVINO: nncf.compress_weights and nncf.quantize. A GGUF file keeps the type it has.
"""

from __future__ import annotations

import logging
from typing import Any

from engine.core.errors import SetupError

GROUP_SIZES = (128, 64, 32)
"""Group sizes of int4, of weights that share a scale; the largest that divides every layer's width is used."""
SMOOTHING = 0.7
"""SmoothQuant's alpha (Xiao et al. 2022, arXiv:2211.10438): the share of the activations' outliers moved to weights."""
_WORDS_OUT = ("lm_head", "embed_out", "output_projection", "proj_out")
_SENTENCES = (
    "The {0} was open all {1}.", "How do I reset the {0} before {1}?", "A short note about the {0}, written last {1}.",
    "No one at the {0} expected rain on a {1}.", "Prices of the {0} rose by 4.2 % this {1}.", "{0}: see page 12, {1}.",
    "She walked to the {0} and stayed until {1}.", "Please send the {0} by {1} at the latest.",
)  # fmt: skip
_THINGS = (("library", "summer"), ("router", "Monday"), ("harbour", "week"), ("museum", "Sunday"), ("wheat", "year"),
           ("contract", "March"), ("station", "midnight"), ("report", "Friday"))  # fmt: skip
CALIBRATION = tuple(sentence.format(*pair) for sentence in _SENTENCES for pair in _THINGS)
"""64 short sentences, for the activations of an encoder of general text."""


def quantize_torch(model: Any, kind: str) -> Any:
    """Quantizes the linear layers of the model. Raises SetupError if they can't be."""
    if kind in ("none", "bnb_int8", "bnb_int4"):
        return model
    import torch

    _conv1d_to_linear(model)
    chosen = {name for name, module in model.named_modules() if type(module) is torch.nn.Linear and _inner(name)}
    if not chosen:
        raise SetupError(
            f"hardware.quantization: {type(model).__name__} has no linear layer that {kind} makes smaller. "
            f"Next: hardware.quantization=none"
        )
    if kind == "int8_dynamic":
        # Its kernels take float32; the layers between them follow.
        return torch.ao.quantization.quantize_dynamic(model.float(), chosen, dtype=torch.qint8)
    widths = {model.get_submodule(name).in_features for name in chosen}
    _torchao(model, chosen, kind, widths)
    return model


def _torchao(model: Any, chosen: set[str], kind: str, widths: set[int]) -> None:
    logging.getLogger("torchao").setLevel(logging.ERROR)  # it warns of GPU kernels that it could not load
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    if kind == "int8":
        config: Any = Int8WeightOnlyConfig()
    else:
        group = next((size for size in GROUP_SIZES if all(width % size == 0 for width in widths)), None)
        if group is None:
            raise SetupError(
                f"hardware.quantization: int4 needs layers whose width 32 divides; this model's: {sorted(widths)}. "
                f"Next: hardware.quantization=int8"
            )
        config = _int4(group, model.device.type)
    quantize_(model, config, filter_fn=lambda module, name: name in chosen)


def _int4(group: int, device: str) -> Any:
    if device == "cpu":
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

        return PrototypeInt4WeightOnlyConfig(group_size=group)
    from torchao.quantization import Int4WeightOnlyConfig

    return Int4WeightOnlyConfig(group_size=group, int4_packing_format="tile_packed_to_4d")


def bitsandbytes(kind: str, dtype: Any) -> dict[str, Any]:
    """Returns the arguments of transformers' `from_pretrained` for bnb_int8 and bnb_int4; empty for the others."""
    if kind not in ("bnb_int8", "bnb_int4"):
        return {}
    from transformers import BitsAndBytesConfig

    if kind == "bnb_int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    }


def _sensitive(graph: Any) -> list[str]:
    """Returns the layers that int8_full leaves alone in an encoder of `openvino_bert`.

    Attention's output in every layer, and the second half of the feed-forward network in the last third of the layers:
    their activations have outliers. all-MiniLM-L6-v2, cosine with float32, least of 32 sentences: 0.980 with everything
    quantized, 0.993 with SMOOTHING instead of NNCF's 0.95, 0.997 without these layers too.
    """
    names = [node.get_friendly_name() for node in graph.get_ordered_ops() if node.get_type_name() == "MatMul"]
    outputs = [name for name in names if name.endswith(".attention.output.dense")]
    seconds = [name for name in names if name.endswith(".output.dense") and name not in outputs]
    return outputs + seconds[-(len(seconds) // 3) :] if len(seconds) >= 3 else outputs


def _openvino_group(graph: Any) -> int:
    """Returns the largest group size that divides the width of every weight of a MatMul."""
    widths = set()
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "MatMul":
            shape = node.input_value(1).get_partial_shape()
            if shape.is_static and len(shape) == 2:
                transposed = node.get_attributes().get("transpose_b", False)
                widths.add(int(shape[1 if transposed else 0].get_length()))
    return next((size for size in GROUP_SIZES if all(width % size == 0 for width in widths)), -1)


def _inner(name: str) -> bool:
    return not any(part in name for part in _WORDS_OUT)


def _conv1d_to_linear(model: Any) -> None:
    """Replaces GPT-2's own linear layer, which has its weight transposed, by one that quantizers support."""
    import torch
    from transformers.pytorch_utils import Conv1D

    for name, module in list(model.named_modules()):
        if not isinstance(module, Conv1D):
            continue
        rows, columns = module.weight.shape
        linear = torch.nn.Linear(rows, columns, device="meta")
        linear.weight = torch.nn.Parameter(module.weight.detach().t().contiguous(), requires_grad=False)
        linear.bias = module.bias
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, linear)
