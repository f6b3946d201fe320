"""The free memory of a device."""

from __future__ import annotations

from pathlib import Path

from engine.runtimes.devices import Concrete
from engine.schemas.hardware import CudaHardwareSpec


def free_bytes(hardware: Concrete) -> int | None:
    """Returns the free memory of the device: the GPU's own count, else Linux's MemAvailable within the control group's
    limit.

    None: this system does not report it.
    """
    if isinstance(hardware, CudaHardwareSpec):
        import torch

        spread = range(torch.cuda.device_count()) if hardware.device_map != "none" else (hardware.device,)
        return sum(int(torch.cuda.mem_get_info(index)[0]) for index in spread)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    group = _group_free()
    return free if group is None or free is None else min(free, group)


def _group_free() -> int | None:
    """Returns the bytes that the control group still allows (version 2: memory.max, memory.current)."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)
