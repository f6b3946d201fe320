"""The one Core of OpenVINO in this process.

A Core loads a plug-in of its own for each device, and the CPU's plug-in gives the thread that loads it another stack
for signals (OpenVINO 2026.4). If two Cores end in the order in which they began, the second one restores the first
one's freed stack, and the next signal, such as Ctrl-C, ends the process.
"""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def core() -> Any:
    """Returns the Core, made at the first call and never freed."""
    import openvino

    return openvino.Core()
