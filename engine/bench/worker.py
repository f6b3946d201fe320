"""One contender in its own process: `python -m engine.bench.worker ROW VARIANT CLOCK` prints its figures as JSON.

CLOCK is wall (all cores, elapsed time) or cpu (one thread, processor time: the measure for a machine that is busy with
other work).
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from engine.bench.rows import ROWS, Row

SHORT_TOKENS = 16
"""Tokens of the answer that the latency is measured with."""
ROUNDS = 3
LEAST_S = 0.2
"""A round repeats the call for at least this time, in seconds."""


_CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def main(name: str, variant: str, clock: str) -> dict[str, Any]:
    """Returns the figures of one contender."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        return _figures(name, variant, clock, folder)


def _figures(name: str, variant: str, clock: str, folder: str) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    import torch

    if clock == "cpu":
        torch.set_num_threads(1)
    import transformers

    transformers.logging.set_verbosity_error()
    row = next(each for each in ROWS if each.name == name)
    if row.prepare is not None:
        row.prepare()  # its imports are not part of the model's memory
    threads = 1 if clock == "cpu" else None
    if variant.startswith("genai "):
        from engine.bench import genai

        exported, parameters = genai.exported(row, variant.partition(" ")[2], folder)
        before = resident_bytes()
        model: Any = genai.Model(exported, threads)
        drifts: list[float] = []
        decode: Callable[[dict[str, Any], int], None] = model.decode
    else:
        before = resident_bytes()
        model, parameters, drifts = _model(row, variant, threads)
        decode = partial(_decode, model)
    assert row.inputs is not None
    torch.manual_seed(1)
    inputs = row.inputs(model)
    with torch.inference_mode():
        found = _measure(row, model, decode, inputs, _CLOCKS[clock])
    gc.collect()
    found["memory_mb"] = (resident_bytes() - before) / 1e6
    found["parameters"] = parameters
    if drifts:
        found["cosine"] = min(drifts)
    return found


def _model(row: Row, variant: str, threads: int | None) -> tuple[Any, int, list[float]]:
    """The model, how many parameters it has, and where the cosines with float32 of what is quantized come to lie."""
    import torch

    from engine.runtimes.torch import loading
    from engine.schemas.hardware import CpuHardwareSpec

    assert row.build is not None
    runtime, _, how = variant.partition(" ")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if variant == "torch bf16" else torch.float32)
    model = row.build().eval()
    torch.set_default_dtype(torch.float32)
    parameters = sum(weight.numel() for weight in model.parameters())
    if how == "int8_dynamic":
        model = loading.prepared(model, CpuHardwareSpec(kind="cpu", quantization="int8_dynamic"))
    if runtime == "openvino":
        from engine.runtimes.openvino.module import OpenVinoModule
        from engine.runtimes.openvino.parts import OpenVinoParts
        from engine.runtimes.openvino.target import Target

        properties = {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            properties["INFERENCE_NUM_THREADS"] = str(threads)
        kind = "none" if how == "bf16" else how
        target = Target("CPU", "bf16", properties, kind)
        if row.call == "decode":
            return model, parameters, OpenVinoParts(model, target).drifts  # in place
        made = OpenVinoModule(model, target)
        return made, parameters, made.drifts
    return model, parameters, []


def _measure(
    row: Row, model: Any, decode: Callable[[dict[str, Any], int], None], inputs: dict[str, Any],
    clock: Callable[[], float],
) -> dict[str, Any]:  # fmt: skip
    found: dict[str, Any] = {}
    if row.prepare is not None:
        found["preprocessing_s"] = _median_s(row.prepare, clock)
    if row.call == "decode":
        short = _median_s(lambda: decode(inputs, SHORT_TOKENS), clock)
        whole = _median_s(lambda: decode(inputs, row.new_tokens), clock)
        if whole <= short:
            raise RuntimeError(f"the machine is too busy to measure: {row.new_tokens} tokens took no longer than fewer")
        found |= {"tokens_s": (row.new_tokens - SHORT_TOKENS) / (whole - short), "latency_s": short}
        if row.seconds:
            found["latency_s"] = whole + found["preprocessing_s"]
    else:
        forward = _median_s(lambda: model(**inputs), clock)
        found["latency_s"] = forward
        found["query_ms"] = 1000 * (forward + found.get("preprocessing_s", 0.0))
        found["sentence_ms"] = 1000 * forward / row.rows
    if row.seconds:
        found["realtime"] = row.seconds / found["latency_s"]
    return found


def _decode(model: Any, inputs: dict[str, Any], tokens: int) -> None:
    # No token ends it: transformers' own way to a least length looks through the whole vocabulary at every step.
    made = model.generate(**inputs, max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
    assert made.shape[1] >= tokens, f"{made.shape[1]} tokens instead of {tokens}"


def _median_s(call: Callable[[], object], clock: Callable[[], float]) -> float:
    call()
    times = []
    for _ in range(ROUNDS):
        count, started = 0, clock()
        while count == 0 or clock() - started < LEAST_S:
            call()
            count += 1
        times.append((clock() - started) / count)
    return statistics.median(times)


def resident_bytes() -> int:
    """Memory of this process that is in RAM (VmRSS of Linux's /proc)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
