"""What this machine can run on: turns `hardware=auto` into a concrete choice and checks a named one."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import sys

from engine.errors import SetupError
from engine.registry import RUNTIMES
from schemas.hardware import (
    AutoHardwareSpec,
    CpuHardwareSpec,
    CudaHardwareSpec,
    HardwareSpec,
    OpenVinoHardwareSpec,
)
from schemas.model import ModelSpec

OPENVINO_EXTRA = 'pip install "ipfs-accelerate[openvino]"'
TORCH_EXTRA = 'pip install "ipfs-accelerate[local]"'

Concrete = CpuHardwareSpec | CudaHardwareSpec | OpenVinoHardwareSpec

RUNTIME_OF = {"cpu": "torch", "cuda": "torch", "openvino": "openvino"}
"""Which runtime serves which hardware."""


def resolve(hardware: HardwareSpec, model: ModelSpec | None = None) -> Concrete:
    """The concrete hardware for a spec. Raises SetupError when this machine or environment does not have it.

    auto: CUDA if torch is installed and sees a GPU, else OpenVINO if it is installed, else torch on the CPU; of these
    the first that reads one of the model's sources.
    """
    if isinstance(hardware, AutoHardwareSpec):
        return _best(hardware, model)
    if isinstance(hardware, CudaHardwareSpec):
        _check_cuda(hardware)
    elif isinstance(hardware, OpenVinoHardwareSpec):
        _check_openvino(hardware)
    elif not _installed("torch", "transformers"):
        raise SetupError(f"hardware: cpu needs torch and transformers, which are not installed. Next: {TORCH_EXTRA}")
    return hardware


def _best(hardware: AutoHardwareSpec, model: ModelSpec | None) -> Concrete:
    common = {"threads": hardware.threads, "max_sequences": hardware.max_sequences}
    torch_there = _installed("torch", "transformers")
    found: list[Concrete] = []
    if torch_there and _driver_gpus() and cuda_devices() > 0:
        found.append(CudaHardwareSpec.model_validate({"kind": "cuda", **common}))
    if _installed("openvino", "openvino_genai"):
        found.append(OpenVinoHardwareSpec.model_validate({"kind": "openvino", **common}))
    if torch_there:
        found.append(CpuHardwareSpec.model_validate({"kind": "cpu", **common}))
    if not found:
        raise SetupError(
            f"hardware: nothing that can run a model in this process is installed. Next: {OPENVINO_EXTRA} "
            f"(small, CPU and Intel GPU), or {TORCH_EXTRA} (torch), or choose a remote provider"
        )
    return next((choice for choice in found if model is not None and _reads(choice, model)), found[0])


def _reads(hardware: Concrete, model: ModelSpec) -> bool:
    formats = RUNTIMES.get(RUNTIME_OF[hardware.kind]).formats(model)
    return any(source.format in formats for source in model.sources)


def _check_cuda(hardware: CudaHardwareSpec) -> None:
    if not _installed("torch", "transformers"):
        raise SetupError(f"hardware: cuda needs torch and transformers, which are not installed. Next: {TORCH_EXTRA}")
    gpus = _driver_gpus()
    if not gpus:
        raise SetupError(
            "hardware: cuda was asked for, but no NVIDIA driver with a GPU was found. "
            "Next: hardware=auto, hardware=openvino or hardware=cpu"
        )
    found = cuda_devices()
    if found == 0:
        build = importlib.metadata.version("torch")
        raise SetupError(
            f"hardware: cuda was asked for and the driver shows {gpus} GPU(s), but torch {build} can't use them. "
            f"Next: install torch's CUDA build, or hardware=cpu"
        )
    if hardware.device >= found:
        raise SetupError(
            f"hardware.device: {hardware.device} was asked for, but torch sees {found} GPU(s), numbered from 0. "
            f"Next: hardware.device=0"
        )


def _check_openvino(hardware: OpenVinoHardwareSpec) -> None:
    if not _installed("openvino", "openvino_genai"):
        raise SetupError(
            f"hardware: openvino needs openvino and openvino-genai, which are not installed. Next: {OPENVINO_EXTRA}"
        )
    if hardware.device == "CPU":
        return
    import openvino

    devices = openvino.Core().available_devices
    plain = [device for device in devices if device == hardware.device or device.startswith(f"{hardware.device}.")]
    if not plain:
        raise SetupError(
            f"hardware.device: OpenVINO has no {hardware.device!r} here; it found {', '.join(devices) or 'nothing'}. "
            f"Next: hardware.device={devices[0] if devices else 'CPU'}"
        )


def cuda_devices() -> int:
    """GPUs that torch can use. Imports torch."""
    import torch

    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def _installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)


def _driver_gpus() -> int:
    """GPUs that the NVIDIA driver shows: asked of the driver itself, because importing torch takes seconds."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
        return count.value
    except (OSError, AttributeError):
        return 0
