"""Loads generators with transformers, in the device's best precision."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from engine.artifacts import gguf
from engine.artifacts.resolve import Artifact
from engine.core.errors import SetupError
from engine.runtimes import checkpoint
from engine.runtimes.memory import device_map
from engine.runtimes.quiet import quiet
from engine.runtimes.torch import gguf as torch_gguf
from engine.runtimes.torch import quantization
from engine.schemas.hardware import CpuHardwareSpec, CudaHardwareSpec, MpsHardwareSpec

TorchHardware = CpuHardwareSpec | CudaHardwareSpec | MpsHardwareSpec


def dtype(hardware: TorchHardware) -> torch.dtype:
    """Returns the precision: the configured one, or the device's fastest native one.

    On CPUs with AVX512-BF16 or AMX, bfloat16 was measured at 1.3 times (alone) to 2 times (8 together) the tokens a
    second of float32; elsewhere it is emulated and slower. float16 is about 100 times slower on a CPU.
    """
    if isinstance(hardware, CpuHardwareSpec) and hardware.quantization == "int8_dynamic":
        return torch.float32  # the type of its kernels
    if hardware.dtype != "auto":
        chosen: torch.dtype = getattr(torch, hardware.dtype)
        return chosen
    if isinstance(hardware, MpsHardwareSpec):
        return torch.float16
    if isinstance(hardware, CudaHardwareSpec):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    cpu = torch.cpu.get_capabilities()
    return torch.bfloat16 if cpu.get("avx512_bf16") or cpu.get("amx_bf16") else torch.float32


def device(hardware: TorchHardware) -> torch.device:
    """Returns the device of a model that is not spread."""
    return torch.device(f"cuda:{hardware.device}" if isinstance(hardware, CudaHardwareSpec) else hardware.kind)


def set_threads(hardware: TorchHardware) -> None:
    """Sets torch's number of threads, one for the whole process; the model loaded last decides."""
    if hardware.threads is not None:
        torch.set_num_threads(hardware.threads)


def generator(artifact: Artifact, hardware: TorchHardware) -> tuple[Any, Any]:
    """Loads the model and its tokenizer. Raises OSError, ValueError, RuntimeError, ImportError or SetupError."""
    kind = dtype(hardware)
    if artifact.format == "gguf":
        _check_gguf(hardware)
        with quiet():
            model, tokenizer = torch_gguf.load(gguf.find(artifact.path), kind)
        return prepared(model.to(device(hardware)), hardware), tokenizer
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(artifact.path, local_files_only=True)
    return pretrained(AutoModelForCausalLM, artifact.path, hardware), tokenizer


def visual(folder: Path, hardware: TorchHardware) -> tuple[Any, Any]:
    """Loads a model that reads images, and its processor. Raises as `generator`."""
    with quiet():
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    return pretrained(AutoModelForImageTextToText, folder, hardware), processor


def pretrained(cls: Any, folder: Path, hardware: TorchHardware, unused: Iterable[str] = ()) -> Any:
    """Loads a folder's model, where and how `hardware` says; `unused` as in `checkpoint.load`. Raises OSError,
    ValueError, RuntimeError or SetupError."""
    kind = dtype(hardware)
    places = _places(cls, folder, hardware, kind)
    with quiet():
        model = checkpoint.load(cls, folder, unused=unused, dtype=kind, **places)
    if "device_map" not in places and "tp_plan" not in places:
        model = model.to(device(hardware))
    return prepared(model, hardware)


def prepared(model: Any, hardware: TorchHardware) -> Any:
    """Returns a loaded model, quantized and compiled by `hardware`. Raises SetupError."""
    model = model.eval()
    if isinstance(hardware, MpsHardwareSpec):
        return model
    model = quantization.quantize_torch(model, hardware.quantization)
    if hardware.compile:
        model.compile(dynamic=True)
    return model


def _places(cls: Any, folder: Path, hardware: TorchHardware, kind: torch.dtype) -> dict[str, Any]:
    """Returns the arguments of `from_pretrained` for the devices of the weights, and for quantization during
    loading."""
    if not isinstance(hardware, CudaHardwareSpec):
        return {}
    told = quantization.bitsandbytes(hardware.quantization, kind)
    if hardware.tensor_parallel:
        return {**told, "tp_plan": "auto"}
    if hardware.device_map != "none":
        free: dict[device_map.Device, int] = {
            index: torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())
        }
        model = device_map.sketch(folder, cls)
        found = device_map.spread(model, hardware, device_map.memory_of(hardware, free), kind.itemsize)
        return {**told, "device_map": found.map}
    if told:  # a model of bitsandbytes can't be moved once loaded
        return {**told, "device_map": {"": hardware.device}}
    return {}


def check_pipelines(hardware: TorchHardware) -> None:
    """Raises SetupError for options that models of transformers' pipelines do not support."""
    if not isinstance(hardware, CudaHardwareSpec):
        return
    if hardware.device_map != "none" or hardware.tensor_parallel:
        raise SetupError(
            "hardware.device_map and hardware.tensor_parallel spread chat, completion and embedding models, not those "
            "of the other tasks. Next: hardware=cuda hardware.replicas=N, a whole model on each GPU"
        )
    if hardware.quantization in ("bnb_int8", "bnb_int4"):
        raise SetupError(
            f"hardware.quantization: {hardware.quantization} is for chat, completion and embedding models. "
            f"Next: hardware.quantization={hardware.quantization.removeprefix('bnb_')}"
        )


def _check_gguf(hardware: TorchHardware) -> None:
    spreads = isinstance(hardware, CudaHardwareSpec) and (hardware.device_map != "none" or hardware.tensor_parallel)
    if spreads or getattr(hardware, "quantization", "none") in ("bnb_int8", "bnb_int4"):
        knob = "device_map and tensor_parallel" if spreads else "quantization with bitsandbytes"
        raise SetupError(
            f"hardware: {knob} are for safetensors, and the model's file is GGUF. Next: a source with safetensors"
        )
