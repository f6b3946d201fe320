"""`engine bench quantization`: the effect of each `hardware.quantization` on a model's size, speed and answers.

Each kind runs in a separate process (`python -m engine.bench.quantization FOLDER`). Drift is the cosine between the
answer of a kind and that of full precision: an embedding's vector, or the logits after a prompt.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter

from engine.artifacts import resolve
from engine.bench.report import Table, number
from engine.bench.worker import resident_bytes
from engine.core.child_process import module_command
from engine.core.errors import SetupError
from engine.runtimes import devices
from engine.runtimes.memory import estimate as memory
from engine.runtimes.openvino import core
from engine.schemas import RunSpec
from engine.schemas.hardware import MpsHardwareSpec
from engine.schemas.model import ModelSpec
from engine.tasks.local_model import Sampling

SAID = (
    "Each kind runs in a process of its own. Size is that of the weights by their types; memory is what the process "
    "grew by from before it loaded the model. Drift is the cosine with full precision (float32): of the vectors of 32 "
    "sentences, or of the logits after 8 prompts. Speed is the median of 3 rounds."
)
LIMIT_S = 600.0
ROUNDS = 3
NEW_TOKENS = 32
_WHO = ("A gardener", "The committee", "My neighbour", "An engineer", "The youngest player", "Nobody", "A tired nurse",
        "Every student")  # fmt: skip
_DID = ("found the old map under the stairs", "wondered why the train was late again", "wrote three pages about whales",
        "paid for the repair in coins")  # fmt: skip
TEXTS = tuple(f"{who} {did}." for who in _WHO for did in _DID)
"""32 sentences, none of which calibrates int8_full."""


@dataclass
class Line:
    """One kind of quantization."""

    quantization: str
    device: str = ""
    size_mb: float | None = None
    memory_mb: float | None = None
    speed: float | None = None
    """Texts a second, or tokens a second."""
    cosine_mean: float | None = None
    cosine_least: float | None = None
    problem: str = ""
    unit: str = field(default="")


def run(spec: RunSpec, say: Callable[[str], None]) -> list[Line]:
    """Measures every kind that the hardware of `spec` supports. Raises SetupError if it supports none."""
    hardware = devices.resolve(spec.hardware, spec.model)
    if isinstance(hardware, MpsHardwareSpec):
        raise SetupError("hardware: mps has no quantization. Next: hardware=cpu")
    kinds = get_args(type(hardware).model_fields["quantization"].annotation)
    lines = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        reference = _full(hardware)
        for place, (label, each) in enumerate(
            [("none, float32", reference), *((kind, _with(hardware, kind)) for kind in kinds)]
        ):
            lines.append(_one(folder / str(place), label, each, spec, folder / "0" / "answers.npy"))
            say(f"{label:<16} {lines[-1].problem or _short(lines[-1])}")
    return lines


def _full(hardware: Any) -> Any:
    exact = {"precision": "f32"} if hardware.kind == "openvino" else {"dtype": "float32"}
    return hardware.model_copy(update={"quantization": "none", **exact})


def _with(hardware: Any, kind: str) -> Any:
    return hardware.model_copy(update={"quantization": kind})


def _one(folder: Path, label: str, hardware: Any, spec: RunSpec, reference: Path) -> Line:
    folder.mkdir()
    line = Line(label, unit="texts/s" if spec.model.tasks == ("embedding",) else "tokens/s")
    try:
        devices.resolve(hardware)
    except SetupError as error:
        line.problem = str(error)
        return line
    ask = {"model": spec.model.model_dump(mode="json"), "hardware": hardware.model_dump(mode="json")}
    (folder / "ask.json").write_text(json.dumps(ask), encoding="utf-8")
    command = module_command("engine.bench.quantization", str(folder))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        line.problem = f"took longer than {LIMIT_S:g} s"
        return line
    if done.returncode != 0:
        ended = f"ended by signal {-done.returncode}" if done.returncode < 0 else "no reason was given"
        line.problem = (done.stderr.strip().splitlines() or [ended])[-1][:300]
        return line
    for name, value in json.loads((folder / "figures.json").read_text(encoding="utf-8")).items():
        setattr(line, name, value)
    if reference.is_file():
        line.cosine_mean, line.cosine_least = _cosines(reference, folder / "answers.npy")
    return line


def _cosines(reference: Path, answers: Path) -> tuple[float, float]:
    import numpy as np

    wanted, found = np.load(reference).astype("float64"), np.load(answers).astype("float64")
    cosines = (wanted * found).sum(1) / (np.linalg.norm(wanted, axis=1) * np.linalg.norm(found, axis=1))
    return float(cosines.mean()), float(cosines.min())


def _short(line: Line) -> str:
    return f"{number(line.size_mb)} MB, {number(line.speed)} {line.unit}, cosine {line.cosine_mean or 0:.4f}"


def table(lines: Sequence[Line]) -> Table:
    """One row a kind."""
    heads = ["quantization", "where", "weights MB", "memory MB", lines[0].unit, "cosine, mean", "least", "problem"]
    rows = [
        [
            line.quantization, line.device, number(line.size_mb), number(line.memory_mb), number(line.speed),
            "–" if line.cosine_mean is None else f"{line.cosine_mean:.5f}",
            "–" if line.cosine_least is None else f"{line.cosine_least:.5f}", line.problem,
        ]
        for line in lines
    ]  # fmt: skip
    return Table(heads, rows)


# -- in the process of one kind ---------------------------------------------------------------------------------------


def measure(folder: Path) -> None:
    """Reads `ask.json`, writes `figures.json` and `answers.npy`. Raises SetupError and what the runtime raises."""
    ask = json.loads((folder / "ask.json").read_text(encoding="utf-8"))
    model = ModelSpec.model_validate(ask["model"])
    concrete: TypeAdapter[devices.Concrete] = TypeAdapter(devices.Concrete)
    hardware = concrete.validate_python(ask["hardware"])
    runtime = devices.runtime_of(hardware)
    artifact = resolve.fetch(model, runtime.formats(model))
    work = _embeddings if model.tasks == ("embedding",) else _logits
    figures = work(artifact, model, hardware, folder / "answers.npy")
    figures["size_mb"] = memory.of(artifact, model, hardware).weights / 1e6
    (folder / "figures.json").write_text(json.dumps(figures), encoding="utf-8")


def _embeddings(artifact: resolve.Artifact, model: ModelSpec, hardware: Any, answers: Path) -> dict[str, Any]:
    import numpy as np

    runtime = devices.runtime_of(hardware)(hardware, model, artifact, 0)
    before = resident_bytes()

    async def all_rounds() -> tuple[Any, list[float]]:
        await runtime.start()
        found = await runtime.embed(list(TEXTS))
        times = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            await runtime.embed(list(TEXTS))
            times.append(time.perf_counter() - started)
        return found.vectors, times

    vectors, times = asyncio.run(all_rounds())
    np.save(answers, vectors)
    grown = (resident_bytes() - before) / 1e6
    return {"device": runtime.device, "memory_mb": grown, "speed": len(TEXTS) / statistics.median(times)}


def _logits(artifact: resolve.Artifact, model: ModelSpec, hardware: Any, answers: Path) -> dict[str, Any]:
    if hardware.kind == "openvino":
        return _openvino_logits(artifact, model, hardware, answers)
    import numpy as np
    import torch

    from engine.runtimes.torch import loading

    before = resident_bytes()
    loaded, tokenizer = loading.generator(artifact, hardware)
    rows = []
    with torch.inference_mode():
        for text in TEXTS[:8]:
            ids = torch.tensor([tokenizer(text).input_ids], device=loaded.device)
            rows.append(loaded(input_ids=ids).logits[0, -1].float().cpu().numpy())
        np.save(answers, np.stack(rows))
        times = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            loaded.generate(input_ids=ids, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False)
            times.append(time.perf_counter() - started)
    dtype = str(loading.dtype(hardware)).removeprefix("torch.")
    return {
        "device": f"torch:{loaded.device}:{dtype}",
        "memory_mb": (resident_bytes() - before) / 1e6,
        "speed": NEW_TOKENS / statistics.median(times),
    }


def _openvino_logits(artifact: resolve.Artifact, model: ModelSpec, hardware: Any, answers: Path) -> dict[str, Any]:
    """Logits from the exported graph by itself, speed from the runtime."""
    import numpy as np
    from tokenizers import Tokenizer

    from engine.runtimes.openvino import encoder, export

    if artifact.format != "safetensors":
        raise SetupError(f"model.sources: a file of {artifact.format} keeps its type. Next: a source with safetensors")
    runtime = devices.runtime_of(hardware)(hardware, model, artifact, 0)
    before = resident_bytes()

    async def all_rounds() -> list[float]:
        await runtime.start()
        times = []
        for round in range(ROUNDS):
            prompt = await runtime.encode_text(TEXTS[8 + round])  # a new prompt each time, because prefixes are cached
            started = time.perf_counter()
            asked = Sampling(max_tokens=NEW_TOKENS, temperature=0.0)
            tokens = [piece.tokens async for piece in runtime.generate(prompt, asked, whole=True)]
            times.append((time.perf_counter() - started) / sum(tokens))
        return times

    times = asyncio.run(all_rounds())
    grown = (resident_bytes() - before) / 1e6
    precision = {"INFERENCE_PRECISION_HINT": encoder.precision_of(hardware)}
    folder = export.exported(artifact, hardware.quantization).path
    compiled = core.core().compile_model(folder / "openvino_model.xml", hardware.device, precision)
    request = compiled.create_infer_request()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = []
    for text in TEXTS[:8]:
        ids = np.array([tokenizer.encode(text).ids])
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "beam_idx": np.zeros(1, np.int32),
                 "position_ids": np.arange(ids.shape[1])[None]}  # fmt: skip
        request.reset_state()
        wanted = {port.any_name for port in request.model_inputs}
        found = request.infer({name: value for name, value in given.items() if name in wanted})
        rows.append(found[0][0, -1].astype(np.float32))
    np.save(answers, np.stack(rows))
    return {"device": runtime.device, "memory_mb": grown, "speed": 1 / statistics.median(times)}


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
