"""Quantizes models for OpenVINO with NNCF."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.core.errors import SetupError
from engine.runtimes.torch.quantization import CALIBRATION, SMOOTHING, _openvino_group, _sensitive


def quantize_openvino(graph: Any, kind: str, inputs: Sequence[Any] = ()) -> Any:
    """Returns the graph with smaller weights; `inputs`: the texts with which int8_full measures activations."""
    if kind == "none":
        return graph
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    if kind == "int8_full":
        smooth = nncf.AdvancedSmoothQuantParameters(matmul=SMOOTHING)
        found: Any = nncf.quantize(
            graph,
            nncf.Dataset(list(inputs)),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=_sensitive(graph)),
            advanced_parameters=nncf.AdvancedQuantizationParameters(smooth_quant_alphas=smooth),
        )
        return found
    if kind == "int8":
        return nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_ASYM)
    return nncf.compress_weights(
        graph, mode=nncf.CompressWeightsMode.INT4_ASYM, group_size=_openvino_group(graph), ratio=1.0
    )


def calibration_texts(path: str | None) -> tuple[str, ...]:
    """Returns the lines of the file, or our own sentences. Raises SetupError."""
    if path is None:
        return CALIBRATION
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"hardware.calibration_texts: {path} can't be read: {error}") from error
    texts = tuple(line.strip() for line in lines if line.strip())
    if not texts:
        raise SetupError(f"hardware.calibration_texts: {path} holds no text; put one on each line")
    return texts
