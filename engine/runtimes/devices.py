"""The devices of this machine: turns `hardware=auto` into a concrete choice and checks a named one."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from typing import Any

from engine.core.errors import SetupError
from engine.core.registry import RUNTIMES
from engine.runtimes.openvino.core import core
from engine.schemas.hardware import (
    AutoHardwareSpec,
    CpuHardwareSpec,
    CudaHardwareSpec,
    HardwareSpec,
    MpsHardwareSpec,
    OpenVinoHardwareSpec,
)
from engine.schemas.model import ModelSpec

OPENVINO_EXTRA = 'pip install "ipfs-accelerate[openvino]"'
TORCH_EXTRA = 'pip install "ipfs-accelerate[local]"'

Concrete = CpuHardwareSpec | CudaHardwareSpec | MpsHardwareSpec | OpenVinoHardwareSpec

_RUNTIMES = {"cpu": "torch", "cuda": "torch", "mps": "torch", "openvino": "openvino"}
"""The runtime of each of our hardware kinds."""
QUANTIZERS = {
    "cpu": {"int8": "torchao", "int4": "torchao"},
    "cuda": {"int8": "torchao", "int4": "torchao", "bnb_int8": "bitsandbytes", "bnb_int4": "bitsandbytes"},
    "openvino": {"int8": "nncf", "int4": "nncf", "int8_full": "nncf"},
}
"""The package that each hardware.quantization needs, by the hardware's kind."""
_EXTRAS = {"torchao": "torchao", "bitsandbytes": "bitsandbytes", "nncf": "nncf", "accelerate": "multi_gpu"}
_DRIVERS = (
    ("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1", "cuInit", "cuDeviceGetCount"),
    ("amdhip64.dll" if sys.platform == "win32" else "libamdhip64.so", "hipInit", "hipGetDeviceCount"),
)
"""NVIDIA's driver, and AMD's: the library, the call that starts it, and the call that counts GPUs."""


def is_own(hardware: HardwareSpec) -> bool:
    """Returns False for the kind of an installed package."""
    return hardware.kind in _RUNTIMES


def runtime_of(hardware: HardwareSpec) -> Any:
    """Returns the runtime class for a hardware; for a plug-in's kind, the plug-in. Raises ConfigError."""
    return RUNTIMES.get(_RUNTIMES.get(hardware.kind, hardware.kind))


def resolve(hardware: HardwareSpec, model: ModelSpec | None = None) -> Concrete:
    """Returns the concrete hardware for a spec. Raises SetupError if this machine or environment does not have it.

    auto: CUDA if torch is installed and sees a GPU, otherwise OpenVINO if it is installed, otherwise torch on the CPU;
    of these the first that reads one of the model's sources.
    """
    if isinstance(hardware, AutoHardwareSpec):
        return _best(hardware, model)
    if not is_own(hardware):
        return hardware  # a plug-in's kind checks its machine when it is made
    if isinstance(hardware, OpenVinoHardwareSpec):
        _check_openvino(hardware)
    elif not installed("torch", "transformers"):
        raise SetupError(
            f"hardware: {hardware.kind} needs torch and transformers, which are not installed. Next: {TORCH_EXTRA}"
        )
    if isinstance(hardware, CudaHardwareSpec):
        _check_cuda(hardware)
    elif isinstance(hardware, MpsHardwareSpec):
        _check_mps()
    _check_packages(hardware)
    return hardware


def _check_packages(hardware: Concrete) -> None:
    """Returns the package that a knob needs in addition to the runtime."""
    if not isinstance(hardware, MpsHardwareSpec):
        needed = QUANTIZERS[hardware.kind].get(hardware.quantization)
        if needed is not None and not installed(needed):
            raise SetupError(_lacks(f"hardware.quantization: {hardware.quantization}", needed))
    if isinstance(hardware, CudaHardwareSpec) and hardware.device_map != "none" and not installed("accelerate"):
        raise SetupError(_lacks("hardware.device_map", "accelerate"))
    if isinstance(hardware, CpuHardwareSpec) and hardware.compile and not _compiler():
        raise SetupError(
            "hardware.compile: torch.compile needs a C++ compiler, and neither $CXX, g++ nor clang++ was found. "
            "Next: install g++, or hardware.compile=false"
        )


def _lacks(knob: str, package: str) -> str:
    return f'{knob} needs {package}, which is not installed. Next: pip install "ipfs-accelerate[{_EXTRAS[package]}]"'


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CXX") or "g++") or shutil.which("clang++")


def _best(hardware: AutoHardwareSpec, model: ModelSpec | None) -> Concrete:
    common = hardware.model_dump(exclude={"kind"})
    torch_there = installed("torch", "transformers")
    found: list[Concrete] = []
    if torch_there and _driver_gpus() and cuda_devices() > 0:
        found.append(CudaHardwareSpec.model_validate({"kind": "cuda", **common}))
    if installed("openvino", "openvino_genai"):
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
    formats = runtime_of(hardware).formats(model)
    if isinstance(hardware, OpenVinoHardwareSpec) and "openvino" in formats:
        formats = ("gguf", "openvino")  # a generator; the export of its safetensors takes a minute: only on request
    return any(source.format in formats for source in model.sources)


def _check_cuda(hardware: CudaHardwareSpec) -> None:
    gpus = _driver_gpus()
    if not gpus:
        raise SetupError(
            "hardware: cuda was requested, but no driver of NVIDIA or AMD with a GPU was found. "
            "Next: hardware=auto, hardware=openvino or hardware=cpu"
        )
    found = cuda_devices()
    if found == 0:
        build = importlib.metadata.version("torch")
        raise SetupError(
            f"hardware: cuda was requested and the driver shows {gpus} GPU(s), but torch {build} can't use them. "
            f"Next: install torch's CUDA (or ROCm) build, or hardware=cpu"
        )
    if hardware.tensor_parallel:
        _check_tensor_parallel(found)
    if hardware.device + hardware.replicas > found > hardware.device:
        raise SetupError(
            f"hardware.replicas: {hardware.replicas} from GPU {hardware.device} on need "
            f"{hardware.device + hardware.replicas} GPUs, and torch sees {found}. "
            f"Next: hardware.replicas={found - hardware.device}"
        )
    if hardware.device >= found:
        raise SetupError(
            f"hardware.device: {hardware.device} was requested, but torch sees {found} GPU(s), numbered from 0. "
            f"Next: hardware.device=0"
        )


def _check_tensor_parallel(gpus: int) -> None:
    """Checks tensor parallelism: it runs one process a GPU, which torchrun starts and announces in the environment."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        raise SetupError(
            f"hardware.tensor_parallel: needs one process a GPU, started by torchrun. "
            f"Next: torchrun --nproc-per-node {gpus} -m engine …, or hardware=multi_gpu, which needs one process"
        )


def _check_mps() -> None:
    import torch

    if not torch.backends.mps.is_available():
        raise SetupError(
            "hardware: mps was requested, but torch finds no GPU of an Apple machine here. "
            "Next: hardware=auto or hardware=cpu"
        )


def _check_openvino(hardware: OpenVinoHardwareSpec) -> None:
    if not installed("openvino", "openvino_genai"):
        raise SetupError(
            f"hardware: openvino needs openvino and openvino-genai, which are not installed. Next: {OPENVINO_EXTRA}"
        )
    if hardware.device == "CPU":
        return
    devices = core().available_devices
    several, _, parts = hardware.device.partition(":")
    wanted = (
        [part for part in parts.split(",") if part] if several in ("AUTO", "HETERO", "MULTI") else [hardware.device]
    )
    for name in wanted:
        if not any(device == name or device.startswith(f"{name}.") for device in devices):
            raise SetupError(
                f"hardware.device: OpenVINO has no {name!r} here; it found {', '.join(devices) or 'nothing'}. "
                f"Next: hardware.device={devices[0] if devices else 'CPU'}"
            )


def cuda_devices() -> int:
    """Counts the GPUs that torch can use. Imports torch."""
    import torch

    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def installed(*modules: str) -> bool:
    """Returns True if all of these packages are installed; imports none."""
    return all(importlib.util.find_spec(module) is not None for module in modules)


def _driver_gpus() -> int:
    """Returns the GPUs that the drivers report: importing torch takes seconds."""
    return max(_gpus_of(*driver) for driver in _DRIVERS)


def _gpus_of(library: str, start: str, count: str) -> int:
    try:
        driver = ctypes.CDLL(library)
        found = ctypes.c_int(0)
        if getattr(driver, start)(0) != 0 or getattr(driver, count)(ctypes.byref(found)) != 0:
            return 0
        return found.value
    except (OSError, AttributeError):
        return 0
