"""The memory that a process has taken, read from Linux's /proc."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from engine.core.errors import SetupError

_STATUS = "/proc/{pid}/status"


class Peak:
    """The most memory that this process has taken since the object was made."""

    def __init__(self) -> None:
        _reset()
        self._before = resident_bytes()

    def added(self) -> int:
        """Returns it in bytes."""
        return max(_field("self", "VmHWM") - self._before, 0)


def resident_bytes(pid: int | str = "self") -> int:
    """Returns the present memory of a process; 0 when it is gone."""
    return _field(pid, "VmRSS")


def check_readable() -> None:
    """Raises SetupError on a system without /proc, where no limit could be kept."""
    if not Path(_STATUS.format(pid="self")).exists():
        raise SetupError("matrix: the memory of a process is read from /proc, which only Linux has; run it on Linux")


def _field(pid: int | str, name: str) -> int:
    try:
        text = Path(_STATUS.format(pid=pid)).read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _reset() -> None:
    """Restarts the system's count of the peak (proc(5), clear_refs), if the process may do so."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
