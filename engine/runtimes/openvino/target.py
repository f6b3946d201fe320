"""The device and the precision that graphs are computed with on OpenVINO."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from engine.core.errors import Internal
from engine.runtimes.openvino.compare import TOLERANCE, cosine
from engine.runtimes.openvino.core import core
from engine.runtimes.openvino.quantization import quantize_openvino

LEAST_COSINE = {"int8": 0.98, "int8_full": 0.95, "int4": 0.9}
"""Smallest cosine between a quantized graph's outputs and those of torch in float32, for the inputs of its export."""

log = logging.getLogger("engine.runtimes")


@dataclass(frozen=True, slots=True)
class Target:
    """A device of OpenVINO and its arithmetic."""

    device: str
    """OpenVINO's name for it."""
    precision: str
    """f32, bf16 or f16."""
    properties: Mapping[str, str] = field(default_factory=dict)
    quantization: str = "none"
    """As hardware.quantization."""

    @property
    def tolerance(self) -> float:
        """Returns the largest allowed distance of an output from torch's, before quantization."""
        return TOLERANCE[self.precision]

    def compile(self, graph: Any) -> Any:
        """Compiles a graph. Raises RuntimeError."""
        told = {**self.properties, "INFERENCE_PRECISION_HINT": self.precision}
        if self.device == "CPU":
            told["KV_CACHE_PRECISION"] = self.precision  # OpenVINO's default is eight bits
        return core().compile_model(graph, self.device, told)

    def quantized(self, graph: Any, inputs: Sequence[Any] = ()) -> Any:
        """Returns the graph with smaller weights; `inputs`: the texts with which int8_full measures activations."""
        return quantize_openvino(graph, self.quantization, inputs)

    def check_drift(self, name: str, wanted: list[torch.Tensor], found: list[torch.Tensor]) -> float:
        """Returns the cosine of a quantized graph's outputs with torch's. Raises Internal if it is too small."""
        drift, least = cosine(wanted, found), LEAST_COSINE[self.quantization]
        if drift < least:
            raise Internal(
                f"{self.quantization} changes the answers of {name}: their cosine with those of full precision is "
                f"{drift:.4f}, below {least}. Next: hardware.quantization={_milder(self.quantization)}"
            )
        log.info("%s quantized as %s: cosine %.5f with full precision", name, self.quantization, drift)
        return drift


def _milder(kind: str) -> str:
    return "none" if kind == "int8" else "int8"
