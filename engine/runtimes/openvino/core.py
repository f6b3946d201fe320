"""The one Core of OpenVINO in this process.

A Core loads a plug-in of its own for each device, and the CPU's gives the thread that loads it another stack for
signals (OpenVINO 2026.4). Of two that end in the order in which they began, the second puts the first one's freed stack
back, and the next signal, such as Ctrl-C, ends the process.
"""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def core() -> Any:
    """Made at the first call, and never freed."""
    import openvino

    return openvino.Core()
