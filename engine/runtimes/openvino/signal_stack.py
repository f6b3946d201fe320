"""Restores the stack for a thread's signal handlers, because OpenVINO GenAI leaves a freed one behind.

OpenVINO's CPU plug-in gives the thread that loads it another stack, and the thread that frees it the previous one.
OpenVINO GenAI loads one for the tokenizer and one for the model, and frees them in the same order: the thread is left
with the first one's freed stack, and the next signal, such as Ctrl-C, ends the process (2026.4).
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

_DISABLE = 2
"""SS_DISABLE of <signal.h>: handlers run on the thread's ordinary stack."""


class _Stack(ctypes.Structure):
    """`stack_t` of <signal.h>."""

    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Gives the calling thread the same stack after the block, or the function, as before it."""
    if sys.platform != "linux":
        yield
        return
    swap = ctypes.CDLL(None).sigaltstack
    before = _Stack()
    swap(None, ctypes.byref(before))
    try:
        yield
    finally:
        # A stack too small for AMX registers is refused once OpenVINO has requested them.
        if swap(ctypes.byref(before), None) != 0:
            swap(ctypes.byref(_Stack(None, _DISABLE, 0)), None)
