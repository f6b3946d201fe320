"""A built model on OpenVINO: converted from a trace, or, if that fails, by transformers' own exporter."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.matrix.build.recipe import BATCH, Built, forward
from engine.matrix.measure.generation import Forward, greedy, growing_input
from engine.matrix.measure.isolate import within
from engine.matrix.measure.memory import Peak
from engine.matrix.measure.on_torch import RUNS, torch_batches
from engine.matrix.measure.outputs import TOLERANCE, relative_error
from engine.matrix.report.record import Cell
from engine.runtimes.openvino.core import core
from engine.runtimes.openvino.patches import GEOMETRY, rewritten

Say = Callable[[str], None]
Inputs = Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """A converted model, with inputs that its exporter computed beforehand and the graph needs."""

    model: Any
    aside: Inputs


Convert = Callable[[Built], Graph]

_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}
_BFLOAT16 = {"INFERENCE_PRECISION_HINT": "bf16"}


def measure(built: Built, peak: Peak, say: Say, route_s: float) -> Cell:
    """Converts, compiles for the CPU, runs and compares, route by route until one gives the same outputs and tokens.

    `route_s`: how long one route may take. The best one counts: right outputs first, then the same generated tokens,
    then the most numbers of rows.
    """
    problems: list[str] = []
    found: list[Cell] = []
    growing = growing_input(built.model, built.prepared.inputs, built.outputs)
    wanted = torch_batches(built)
    for route, convert in ROUTES.items():
        if route in built.override.not_routes or (route == LAST_RESORT and found and found[0].status == "ok"):
            continue
        say(f"openvino: {route}")
        try:
            with within(route_s):
                cell = _by(route, convert, built, peak, say, growing, wanted)
        except Exception as problem:  # the boundary: converters and plug-ins raise types of their own
            problems.append(f"{route}: {_said(problem)}")
            continue
        found.append(cell)
        found.sort(key=_rank, reverse=True)
        if cell.status == "drift":
            problems.append(f"{route}: differs by {cell.error:.2g}")
        elif cell.batch_sizes and cell.tokens_equal is not False:
            break
    if not found:
        return Cell(status="failed", reason="; ".join(problems))
    if found[0].status == "drift":
        found[0].reason = "; ".join(problems)
    return found[0]


def _rank(cell: Cell) -> tuple[bool, bool, int]:
    return cell.status == "ok", cell.tokens_equal is not False, len(cell.batch_sizes)


def _by(
    route: str, convert: Convert, built: Built, peak: Peak, say: Say, growing: str | None,
    batches: Sequence[int],
) -> Cell:  # fmt: skip
    """Measures the cell of one route. Raises the errors of the converter or the plug-in."""
    started = time.perf_counter()
    graph = convert(built)
    run = _compiled(graph, _FLOAT32)
    outputs = run(built.prepared.inputs)
    load_s = time.perf_counter() - started
    say(f"openvino: {route}: compare")
    error = relative_error(built.outputs, outputs)
    cell = Cell(
        status="ok" if error <= TOLERANCE else "drift",
        route=route,
        precision="float32",
        load_s=round(load_s, 3),
        run_s=round(_median_s(run, built.prepared.inputs), 5),
        peak_bytes=peak.added(),
        error=error,
    )
    if cell.status == "drift":
        return cell
    if growing is not None:
        cell.tokens_equal = _same_tokens(built, run, growing)
    cell.batch_sizes = _batches(built, graph, batches)
    try:
        found = _compiled(graph, _BFLOAT16)(built.prepared.inputs)
        cell.other_precisions["bfloat16"] = relative_error(built.outputs, found)
    except (RuntimeError, ValueError):
        pass  # a precision that this plug-in does not have leaves no entry
    return cell


def by_trace(built: Built) -> Graph:
    """Converts a TorchScript trace by `openvino.convert_model` (OpenVINO: Convert a PyTorch model)."""
    import openvino
    import torch

    names = [
        name
        for name, value in built.prepared.inputs.items()
        if isinstance(value, torch.Tensor) and name not in GEOMETRY
    ]
    fixed = {name: value for name, value in built.prepared.inputs.items() if name not in names}
    model, wanted = built.model, list(built.outputs)

    class Flat(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: Any) -> tuple[Any, ...]:
            from engine.matrix.measure.outputs import leaves

            found = leaves(self.model(**dict(zip(names, values, strict=True)), **fixed))
            return tuple(found[name] for name in wanted)

    example = tuple(built.prepared.inputs[name].clone() for name in names)
    with torch.no_grad(), rewritten(model):
        graph = openvino.convert_model(Flat().eval(), example_input=example)
    for port, name in zip(graph.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    for port, name in zip(graph.outputs, wanted, strict=True):
        port.get_tensor().add_names({name})  # one tensor may be two outputs, and has two names then
    return Graph(graph, {})


def by_export(built: Built) -> Graph:
    """Converts by transformers' OpenVINO exporter, over torch.export, with dynamic shapes."""
    return _exported(built, dynamic=True)


def by_static_export(built: Built) -> Graph:
    """Converts by the same exporter with the shapes of the example, for models that torch.export can't keep
    symbolic."""
    return _exported(built, dynamic=False)


def _exported(built: Built, *, dynamic: bool) -> Graph:
    import copy

    from transformers.exporters import OpenVINOConfig, OpenVINOExporter
    from transformers.exporters.utils import get_leaf_tensors

    inputs = {name: copy.deepcopy(value) for name, value in built.prepared.inputs.items()}
    config = OpenVINOConfig(dynamic=dynamic, stateful=False)
    program = OpenVINOExporter().export(built.model, inputs, config).program
    aside = {name: value for name, value in inputs.items() if name not in built.prepared.inputs}
    return Graph(program, {**aside, **get_leaf_tensors(aside)})


ROUTES: Mapping[str, Convert] = {
    "trace": by_trace,
    "export": by_export,
    "export, fixed shapes": by_static_export,
}
"""The routes, the quickest first."""
LAST_RESORT = "export, fixed shapes"
"""Routes that are skipped if a route with other shapes gives the right outputs."""


def _compiled(graph: Graph, precision: Mapping[str, str]) -> Forward:
    """Returns a function from named inputs to named outputs."""
    import torch

    labels = [set(port.get_names()) for port in graph.model.outputs]
    compiled = core().compile_model(graph.model, "CPU", {**precision, "PERFORMANCE_HINT": "LATENCY"})

    def run(inputs: Inputs) -> dict[str, Any]:
        given = {**graph.aside, **_scalars(inputs), **inputs}
        feed = {}
        for port in compiled.inputs:
            name = next((found for found in port.get_names() if found.removeprefix("input.") in given), None)
            if name is None:
                raise ValueError(f"the graph needs an input that was not given: {sorted(port.get_names())}")
            value = given[name.removeprefix("input.")]
            feed[name] = value.contiguous().numpy() if isinstance(value, torch.Tensor) else value
        found = compiled(feed)
        return {
            name.removeprefix("output."): torch.from_numpy(found[number].copy())
            for number, names in enumerate(labels)
            for name in names
        }

    return run


def _scalars(inputs: Inputs) -> dict[str, int]:
    """Returns geometry as single numbers: the exporter calls the second number of the first row `image_sizes_0_1`."""
    return {
        f"{name}_{row}_{column}": number
        for name in GEOMETRY
        if name in inputs and inputs[name].dim() == 2
        for row, numbers in enumerate(inputs[name].tolist())
        for column, number in enumerate(numbers)
    }


def _median_s(run: Forward, inputs: Inputs) -> float:
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        run(inputs)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _batches(built: Built, graph: Graph, batches: Sequence[int]) -> list[int]:
    """Returns the numbers of rows whose outputs equal torch's."""
    run = _compiled(graph, _FLOAT32)
    found = []
    for batch in sorted(batches, key=lambda rows: rows != BATCH):
        try:
            inputs = built.inputs(batch) if batch != BATCH else built.prepared.inputs
            if relative_error(forward(built.model, inputs), run(inputs)) <= TOLERANCE:
                found.append(batch)
        except Exception:  # the boundary: a graph bound to the example's rows raises many types
            run = _compiled(graph, _FLOAT32)  # a graph that failed once never answers again
    return sorted(found)


def _same_tokens(built: Built, run: Forward, growing: str) -> bool | None:
    """Returns True if the tokens are equal; None if torch itself can't generate by whole passes."""
    try:
        wanted = greedy(lambda inputs: forward(built.model, inputs), built.prepared.inputs, growing)
    except Exception:  # the boundary: some models only continue through their cache
        return None
    try:
        return greedy(run, built.prepared.inputs, growing) == wanted
    except Exception:  # the boundary: a graph that is bound to the example's length
        return False


def _said(problem: BaseException) -> str:
    """Returns the part of a converter's long message with the reason."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    for words in _TELLING:
        found = next((number for number, line in enumerate(lines) if words in line), None)
        if found is not None:
            return f"{type(problem).__name__}: {' '.join(lines[found : found + 3])[:280]}"
    return f"{type(problem).__name__}: {' '.join(lines[:2])[:280]}"


_TELLING = (
    "No conversion rule",
    "Conversion is failed",
    "module by tracing",
    "Could not guard",
    "is not supported",
    "Check '",
)
"""Marks of the line with the reason, the clearest first."""
