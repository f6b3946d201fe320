"""Sentence embeddings on OpenVINO: one stream for each core."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from engine.runtimes.embedding.model import SentenceModel, padded, read_texts, tokenizer
from engine.runtimes.openvino.bert_graph import build
from engine.runtimes.openvino.core import core
from engine.runtimes.openvino.quantization import calibration_texts, quantize_openvino
from engine.schemas.hardware import OpenVinoHardwareSpec


class OpenVinoForward:
    """A compiled sentence encoder. Making one blocks. Raises SetupError, or RuntimeError from OpenVINO."""

    dtype = np.int32
    max_tokens = 512
    """More tokens gain nothing on a core, and delay the next caller."""

    def __init__(self, folder: Path, model: SentenceModel, hardware: OpenVinoHardwareSpec) -> None:
        self.threads = 1
        properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision_of(hardware)}
        if hardware.device == "CPU":
            # A stream with a single thread loses no time to synchronisation between the cores.
            self.threads = hardware.threads or _cores()
            properties |= {"NUM_STREAMS": self.threads, "INFERENCE_NUM_THREADS": self.threads}
        calibration = _calibration(folder, model, hardware)
        graph = quantize_openvino(build(folder, model), hardware.quantization, calibration)
        self._compiled = core().compile_model(graph, hardware.device, properties)
        self._local = threading.local()

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Returns a vector a text."""
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        vectors: np.ndarray = request.infer([ids, mask], share_inputs=True)[0]
        return vectors


def _calibration(folder: Path, model: SentenceModel, hardware: OpenVinoHardwareSpec) -> list[Any]:
    """Yields the inputs with which int8_full measures activations, a text each."""
    if hardware.quantization != "int8_full":
        return []
    texts = read_texts(tokenizer(folder, model.max_tokens), list(calibration_texts(hardware.calibration_texts)))
    return [list(padded([ids], OpenVinoForward.dtype)) for ids in texts.ids]


def precision_of(hardware: OpenVinoHardwareSpec) -> str:
    """Returns OpenVINO's name for the precision of the computations: the configured one, or the device's fastest."""
    if hardware.precision != "auto":
        return hardware.precision
    native = core().get_property(hardware.device, "OPTIMIZATION_CAPABILITIES")
    return "bf16" if "BF16" in native else "f32" if hardware.device == "CPU" else "f16"


def _cores() -> int:
    """Counts the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
