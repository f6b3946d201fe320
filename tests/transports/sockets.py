"""Counts this process's sockets, so that a test can tell that none was left behind."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

_FOLDER = Path("/proc/self/fd")


def open_sockets() -> int:
    """How many sockets this process holds, of both sides where the server runs in it too."""
    if not _FOLDER.is_dir():
        pytest.skip("counting sockets needs /proc")
    found = 0
    for name in os.listdir(_FOLDER):
        try:
            found += os.readlink(_FOLDER / name).startswith("socket:")
        except FileNotFoundError:
            continue  # the folder's own descriptor
    return found


async def back_to(count: int) -> None:
    """Fails unless there are `count` sockets, or fewer, within two seconds."""
    loop = asyncio.get_running_loop()
    until = loop.time() + 2
    while (found := open_sockets()) > count:
        assert loop.time() < until, f"{found - count} sockets were left open"
        await asyncio.sleep(0.01)
