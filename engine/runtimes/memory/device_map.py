"""Plans the GPU of each module from a model's config alone: the model is built on torch's meta device.

Transformers' `_no_split_modules` stay together; tensors that are shared (tied words) are counted once and stay where
they were first put. The map has the form of transformers' `device_map`: module name → device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.core.errors import ConfigError, SetupError, nearest
from engine.schemas.hardware import CudaHardwareSpec

GIB = 2**30
Device = int | Literal["cpu"]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A module that can't be split further."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Spread:
    """The device of each module."""

    map: dict[str, Device]
    bytes: dict[Device, int]
    """Weights on each device."""

    def lines(self) -> list[str]:
        """Describes each device: its bytes, and its first and last module."""
        found = []
        for device in self.bytes:
            names = [name for name, where in self.map.items() if where == device]
            span = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
            label = device if device == "cpu" else f"GPU {device}"
            found.append(f"{label}: {self.bytes[device] / GIB:.2f} GiB in {len(names)} modules: {span}")
        return found


def model_class(tasks: Sequence[str]) -> Any:
    """Returns the class of transformers that loads a model for these tasks: its modules' names depend on it."""
    from transformers import AutoModel, AutoModelForCausalLM

    return AutoModelForCausalLM if {"chat", "completion"} & set(tasks) else AutoModel


def sketch(folder: Path, cls: Any) -> Any:
    """Builds the model of a folder's config.json without weights, as `cls` would load it. Raises SetupError."""
    import torch
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model = cls.from_config(config)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise SetupError(f"model: {folder}/config.json can't be built: {str(error).splitlines()[0]}") from error
    model.tie_weights()
    return model.eval()


def spread(model: Any, hardware: CudaHardwareSpec, memory: Mapping[Device, int], item_bytes: float) -> Spread:
    """Returns the map for `hardware.device_map`; `memory`: each device's bytes for weights, in the devices' order.

    Raises SetupError if the weights do not fit, ConfigError for a name that the model does not have.
    """
    found = pieces(model, item_bytes)
    if isinstance(hardware.device_map, dict):
        return _named(model, found, hardware.device_map)
    limits = dict(memory)
    if hardware.device_map != "sequential":
        limits = _even(found, limits)
    return _fill(found, limits, dict(memory))


def memory_of(hardware: CudaHardwareSpec, free: Mapping[Device, int]) -> dict[Device, int]:
    """Returns the bytes for weights on each device: `max_memory_gib` if it names devices, otherwise nine tenths of the
    free memory."""
    if hardware.max_memory_gib:
        return {device: int(gib * GIB) for device, gib in hardware.max_memory_gib.items()}
    return {device: size * 9 // 10 for device, size in free.items()}


def pieces(model: Any, item_bytes: float) -> list[TextDelta]:
    """Yields the modules in the order of the forward pass, each with the bytes of the weights that no earlier one
    has."""
    whole = set(getattr(model, "_no_split_modules", None) or ())
    seen: set[int] = set()
    found: list[TextDelta] = []

    def visit(name: str, module: Any) -> None:
        own = [tensor for _, tensor in module.named_parameters(recurse=False)]
        children = list(module.named_children())
        if type(module).__name__ in whole or not children or own:
            size = 0.0
            for tensor in (*module.parameters(), *module.buffers()):
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    size += tensor.numel() * item_bytes
            found.append(TextDelta(name, int(size)))
            return
        for child, inner in children:
            visit(f"{name}.{child}" if name else child, inner)

    visit("", model)
    return found


def _even(found: Sequence[TextDelta], limits: Mapping[Device, int]) -> dict[Device, int]:
    """Returns limits that give each GPU a similar share; the last GPU and the CPU take the rest, up to their own."""
    gpus = [device for device in limits if device != "cpu"]
    if not gpus:
        return dict(limits)
    share = sum(piece.bytes for piece in found) / len(gpus) + max((piece.bytes for piece in found), default=0) / 2
    return {
        device: limit if device == "cpu" or device == gpus[-1] else min(limit, int(share))
        for device, limit in limits.items()
    }


def _fill(found: Sequence[TextDelta], limits: Mapping[Device, int], given: Mapping[Device, int]) -> Spread:
    devices = list(limits)
    place = 0
    chosen: dict[str, Device] = {}
    used: dict[Device, int] = {}
    for piece in found:
        while place < len(devices) and used.get(devices[place], 0) + piece.bytes > limits[devices[place]]:
            place += 1
        if place == len(devices):
            total = sum(each.bytes for each in found)
            have = ", ".join(f"{device}: {size / GIB:.2f}" for device, size in given.items())
            raise SetupError(
                f"hardware.device_map: the weights are {total / GIB:.2f} GiB and do not fit ({have} GiB); "
                f"{piece.name} found no place. Next: more devices in hardware.max_memory_gib (also cpu), "
                f"or hardware.quantization=int8"
            )
        chosen[piece.name] = devices[place]
        used[devices[place]] = used.get(devices[place], 0) + piece.bytes
    return Spread(chosen, used)


def _named(model: Any, found: Sequence[TextDelta], given: Mapping[str, Device]) -> Spread:
    """Checks the user's own map against the model's modules: each weight needs a device."""
    names = {name for name, _ in model.named_modules()} - {""}
    for name in given:
        if name not in names:
            raise ConfigError(f"hardware.device_map.{name}: the model has no such module; {nearest(name, names)}")
    chosen: dict[str, Device] = {}
    used: dict[Device, int] = {}
    for piece in found:
        above = [name for name in given if piece.name == name or piece.name.startswith(f"{name}.")]
        if not above:
            inner = [name for name in given if name.startswith(f"{piece.name}.")]
            what = f"{inner[0]} can't be spread apart from {piece.name}" if inner else "it names no device for it"
            raise ConfigError(f"hardware.device_map: {what}. Next: 'hardware.device_map={{{piece.name}: 0, …}}'")
        device = given[max(above, key=len)]
        chosen[piece.name] = device
        used[device] = used.get(device, 0) + piece.bytes
    return Spread(chosen, used)
