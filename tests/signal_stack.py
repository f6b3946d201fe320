"""The stack for signals that OpenVINO's CPU plug-ins leave behind in a thread (`engine.runtimes.openvino_core`).

NNCF and OpenVINO's converters have Cores of their own, which the engine can't share; a test that raises a signal after
them would end its worker.
"""

from __future__ import annotations

import ctypes
import sys

_DISABLE = 2


class _Stack(ctypes.Structure):
    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def forget() -> None:
    """Signals of the calling thread use its ordinary stack from now on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).sigaltstack(ctypes.byref(_Stack(None, _DISABLE, 0)), None)
