"""Sentence embeddings on OpenVINO: one stream for each core, buckets of similar length, text in and vectors out."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from engine.runtime import Embeddings
from engine.runtimes.openvino_bert import build
from engine.runtimes.openvino_core import core
from engine.runtimes.quantization import calibration_texts, quantize_openvino
from engine.runtimes.sentence_model import Bucket, SentenceModel, Texts, buckets, padded, read_texts, tokenizer
from schemas.hardware import OpenVinoHardwareSpec

BUCKET_TOKENS = 512
"""Tokens in one inference at most, with padding: more gains nothing on a core, and delays who comes next."""


class Encoder:
    """A compiled sentence encoder. Making one blocks. Raises SetupError, or RuntimeError from OpenVINO."""

    def __init__(self, folder: Path, model: SentenceModel, hardware: OpenVinoHardwareSpec) -> None:
        self._tokenizer = tokenizer(folder, model.max_tokens)
        self._hidden: int = model.config["hidden_size"]
        self.precision = precision_of(hardware)
        properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": self.precision}
        self._streams = 1
        if hardware.device == "CPU":
            # A stream with a single thread loses nothing to synchronisation between the cores.
            self._streams = hardware.threads or _cores()
            properties |= {"NUM_STREAMS": self._streams, "INFERENCE_NUM_THREADS": self._streams}
        graph = quantize_openvino(build(folder, model), hardware.quantization, self._calibration(hardware))
        self._compiled = core().compile_model(graph, hardware.device, properties)
        self._calls = 0
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(self._streams, thread_name_prefix="openvino-encoder")

    def _calibration(self, hardware: OpenVinoHardwareSpec) -> list[Any]:
        """Inputs that int8_full measures activations with, a text each."""
        if hardware.quantization != "int8_full":
            return []
        texts = read_texts(self._tokenizer, list(calibration_texts(hardware.calibration_texts)))
        rows = (Bucket([row], len(ids)) for row, ids in enumerate(texts.ids))
        return [list(padded(texts, bucket, np.int32)) for bucket in rows]

    async def embed(self, texts: list[str]) -> Embeddings:
        """One vector for each text; the buckets of all callers share the streams."""
        loop = asyncio.get_running_loop()
        self._calls += 1
        try:
            read = await loop.run_in_executor(self._pool, read_texts, self._tokenizer, texts)
            vectors = np.empty((len(texts), self._hidden), np.float32)
            lengths = [len(ids) for ids in read.ids]
            # Several callers share the streams; only one who is alone is cut up to fill them all.
            parts = max(1, self._streams // self._calls)
            jobs = (
                loop.run_in_executor(self._pool, self._encode, read, bucket, vectors)
                for bucket in buckets(lengths, BUCKET_TOKENS, parts)
            )
            await asyncio.gather(*jobs)
        finally:
            self._calls -= 1
        return Embeddings(vectors, lengths, read.cut)

    def close(self) -> None:
        """Waits for what is under way and frees the model. Blocks."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._compiled = None

    def _encode(self, texts: Texts, bucket: Bucket, vectors: np.ndarray) -> None:
        ids, mask = padded(texts, bucket, np.int32)
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        vectors[bucket.rows] = request.infer([ids, mask], share_inputs=True, share_outputs=True)[0]


def precision_of(hardware: OpenVinoHardwareSpec) -> str:
    """The name that OpenVINO gives the precision of the computations: what is asked, or the device's fastest."""
    if hardware.precision != "auto":
        return hardware.precision
    native = core().get_property(hardware.device, "OPTIMIZATION_CAPABILITIES")
    return "bf16" if "BF16" in native else "f32" if hardware.device == "CPU" else "f16"


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
