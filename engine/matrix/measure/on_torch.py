"""A built model on torch: float32 first, then the device's other precisions."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Mapping
from typing import Any

from engine.matrix.build.recipe import BATCH, SEED, Built
from engine.matrix.measure.generation import growing_input
from engine.matrix.measure.memory import Peak
from engine.matrix.measure.outputs import TOLERANCE, finite, leaves, relative_error
from engine.matrix.report.record import Cell

BATCHES = (1, 2, 4)
RUNS = 3


def measure(built: Built, device: str, peak: Peak) -> Cell:
    """Runs `built` on a torch device, and compares with its outputs on the CPU."""
    started = time.perf_counter()
    model = built.model if device == "cpu" else copy.deepcopy(built.model).to(device)
    load_s = built.load_s if device == "cpu" else time.perf_counter() - started
    times: list[float] = []
    outputs: Mapping[str, Any] = {}
    for _ in range(RUNS):
        started = time.perf_counter()
        outputs = run(model, built.prepared.inputs, device)
        times.append(time.perf_counter() - started)
    error = relative_error(built.outputs, outputs)
    cell = Cell(
        status="ok" if error <= TOLERANCE else "drift",
        route="torch",
        precision="float32",
        load_s=round(load_s, 4),
        run_s=round(statistics.median(times), 5),
        peak_bytes=peak.added(),
        error=error,
        batch_sizes=torch_batches(built, model, device),
    )
    if error > TOLERANCE:
        cell.reason = f"two passes over the same inputs differ by {error:.2g}"
        cell.fix = "the model draws random numbers that no seed fixes"
    growing = growing_input(model, built.prepared.inputs, built.outputs)
    if growing is not None:
        cell.generates = _generates(model, built.prepared.inputs, device)
    half = _bfloat16(built, model, device)
    if half is not None:
        cell.other_precisions["bfloat16"] = half
    return cell


def run(model: Any, inputs: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Returns the outputs of one pass, on the CPU, when the device has finished."""
    import torch

    torch.manual_seed(SEED)
    with torch.no_grad():
        found = leaves(model(**moved(inputs, device)))
    return {name: value.to("cpu") for name, value in found.items()}


def moved(inputs: Mapping[str, Any], device: str, dtype: Any = None) -> dict[str, Any]:
    """Copies the inputs to a device; some models write into them."""
    import torch

    def one(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            kind = dtype if dtype is not None and value.is_floating_point() else value.dtype
            return value.to(device=device, dtype=kind, copy=True)
        return value

    return {name: one(value) for name, value in inputs.items()}


def torch_batches(built: Built, model: Any = None, device: str = "cpu") -> list[int]:
    """Returns the numbers of rows that run on torch; `model`: the one of `built`, if it is on another device."""
    model = built.model if model is None else model
    found = []
    for batch in BATCHES:
        try:
            if batch == BATCH or finite(run(model, built.inputs(batch), device)):
                found.append(batch)
        except (RuntimeError, ValueError, IndexError, KeyError, TypeError, AssertionError, NotImplementedError):
            continue
    return found


def _generates(model: Any, inputs: Mapping[str, Any], device: str) -> bool:
    """Returns True if transformers' own generate() adds tokens, with its cache."""
    import torch

    settings = {"max_new_tokens": 2, "do_sample": False, "use_cache": True}
    if getattr(model.config, "is_encoder_decoder", False) and model.generation_config.decoder_start_token_id is None:
        settings["decoder_start_token_id"] = 0
    try:
        with torch.no_grad():
            tokens = model.generate(**moved(inputs, device), **settings)
    except Exception:  # the boundary: a failure is a fact about the model, not an error of the matrix
        return False
    return bool(torch.is_tensor(tokens) and tokens.numel() > 0)


def _bfloat16(built: Built, model: Any, device: str) -> float | None:
    """Returns the error of bfloat16 arithmetic; None if the model refuses it."""
    import torch

    try:
        half = copy.deepcopy(model).to(torch.bfloat16)
        torch.manual_seed(SEED)
        with torch.no_grad():
            found = leaves(half(**moved(built.prepared.inputs, device, torch.bfloat16)))
        return relative_error(built.outputs, found)
    except Exception:  # the boundary, as above
        return None
