"""Plans a model in this process for `engine plan`: the memory it takes, and which GPU holds which module."""

from __future__ import annotations

from typing import Any

from engine.artifacts.resolve import Artifact
from engine.core.errors import EngineError, SetupError
from engine.executors.local import LocalExecutor
from engine.executors.services import Executor
from engine.runtimes import devices
from engine.runtimes.memory import device_map
from engine.runtimes.memory import estimate as memory
from engine.schemas import TargetSpec
from engine.schemas.hardware import AutoHardwareSpec, CudaHardwareSpec
from engine.schemas.storage import StorageSpec

GIB = memory.GIB
_ABSENT = "unknown before the model's files are here: python -m engine artifacts fetch model={}"


def describe(target: TargetSpec, executor: Executor, storage: StorageSpec) -> tuple[dict[str, Any], EngineError | None]:
    """Returns the record and the problem, if any. Loads and fetches nothing; may read a config and build it empty.

    Also for hardware that is not here, so that a model can be planned for another machine.
    """
    hardware = executor.hardware if isinstance(executor, LocalExecutor) else target.hardware
    if isinstance(hardware, AutoHardwareSpec) or not devices.is_own(hardware):
        return {"memory": None}, None
    formats = devices.runtime_of(hardware).formats(target.model)
    artifact = memory.at_hand(target.model, formats, storage)
    if artifact is None:
        return {"memory": None}, None
    try:
        found = memory.of(artifact, target.model, hardware)
    except EngineError as error:
        return {"memory": None}, error
    record: dict[str, Any] = {
        "memory": {
            "parameters": found.parameters,
            "weights_bytes": found.weights,
            "kv_cache_bytes_a_sequence": found.kv_sequence,
            "kv_cache_bytes_at_most": found.kv_all,
            "activations_bytes": found.activations,
            "least_bytes": found.least,
            "tokens": found.tokens,
            "limit_gib": hardware.memory_limit_gib,
        }
    }
    try:
        if isinstance(hardware, CudaHardwareSpec) and hardware.device_map != "none":
            record["device_map"] = _spread(target, hardware, artifact)
        if isinstance(executor, LocalExecutor):
            memory.check(found, executor.hardware, target.model.name)
    except EngineError as error:
        return record, error
    return record, None


def _spread(target: TargetSpec, hardware: CudaHardwareSpec, artifact: Artifact) -> dict[str, Any]:
    if artifact.format == "gguf":
        raise SetupError(
            "hardware.device_map: a GGUF file runs on one device. Next: a source with safetensors, or hardware=cuda"
        )
    free: dict[device_map.Device, int] = {}
    if not hardware.max_memory_gib:
        import torch

        free = {index: int(torch.cuda.mem_get_info(index)[0]) for index in range(devices.cuda_devices())}
        if not free and not isinstance(hardware.device_map, dict):
            raise SetupError(
                "hardware.max_memory_gib: no GPU found whose memory could be read. "
                "Next: say what the GPUs have, 'hardware.max_memory_gib={0: 20, 1: 20}'"
            )
    model = device_map.sketch(artifact.path, device_map.model_class(target.model.tasks))
    item_bytes = 4.0 if hardware.dtype == "float32" else 2.0
    found = device_map.spread(model, hardware, device_map.memory_of(hardware, free), item_bytes)
    return {"modules": found.map, "lines": found.lines()}


def render(record: dict[str, Any], model: str) -> list[str]:
    """The lines under a target."""
    found = record.get("memory")
    if found is None:
        return [f"    memory: {_ABSENT.format(model)}"]
    sequence, most = found["kv_cache_bytes_a_sequence"], found["kv_cache_bytes_at_most"]
    cache = ""
    if sequence:
        each = f" ({_gib(sequence)} a sequence of {found['tokens']} tokens)" if most != sequence else ""
        cache = f" + KV cache at most {_gib(most)}{each}"
    lines = [
        f"    memory: {found['parameters'] / 1e6:.1f} million parameters; weights {_gib(found['weights_bytes'])}{cache}"
        f" + activations about {_gib(found['activations_bytes'])}; at least {_gib(found['least_bytes'])}"
    ]
    if "device_map" in record:
        lines += [f"    {line}" for line in record["device_map"]["lines"]]
    return lines


def _gib(count: int) -> str:
    return f"{count / GIB:.2f} GiB"
