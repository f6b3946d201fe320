"""Loads generators with transformers, in the arithmetic that the device is best at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.artifacts import Artifact, gguf
from engine.runtimes import torch_gguf
from schemas.hardware import CpuHardwareSpec, CudaHardwareSpec


def dtype(hardware: CpuHardwareSpec | CudaHardwareSpec) -> torch.dtype:
    """The arithmetic: as asked, or what the device computes natively and fastest.

    On CPUs with AVX512-BF16 or AMX, bfloat16 was measured at 1.3 times (alone) to 2 times (8 together) the tokens a
    second of float32; elsewhere it is emulated and slower. float16 is about 100 times slower on a CPU.
    """
    if hardware.dtype != "auto":
        chosen: torch.dtype = getattr(torch, hardware.dtype)
        return chosen
    if isinstance(hardware, CudaHardwareSpec):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    cpu = torch.cpu.get_capabilities()
    return torch.bfloat16 if cpu.get("avx512_bf16") or cpu.get("amx_bf16") else torch.float32


def set_threads(hardware: CpuHardwareSpec | CudaHardwareSpec) -> None:
    """torch has one number of threads for the whole process; the model that was loaded last decides."""
    if hardware.threads is not None:
        torch.set_num_threads(hardware.threads)


def generator(artifact: Artifact, kind: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    """The model and its tokenizer. Raises OSError, ValueError or RuntimeError."""
    with quiet():
        if artifact.format == "gguf":
            model, tokenizer = torch_gguf.load(gguf.find(artifact.path), kind)
        else:
            folder = artifact.path
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=kind, attn_implementation="sdpa", local_files_only=True
            )
    return model.eval().to(device), tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' bars and warnings from the terminal, where our own progress stands."""
    from transformers.utils import logging as hub_logging

    shown, level = hub_logging.is_progress_bar_enabled(), hub_logging.get_verbosity()
    hub_logging.disable_progress_bar()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)
        if shown:
            hub_logging.enable_progress_bar()
