"""What the tests of isolation run in processes of their own."""

from __future__ import annotations

import os
import signal
import time
from typing import Any


def answer(word: str, pipe: Any) -> None:
    pipe.send_bytes(word.encode())
    pipe.close()


def run_forever(word: str, pipe: Any) -> None:
    pipe.send_bytes(f"{word} began".encode())
    while True:
        time.sleep(60)


def eat_memory(word: str, pipe: Any) -> None:
    pipe.send_bytes(f"{word} began".encode())
    eaten = []
    while True:
        eaten.append(bytearray(os.urandom(1 << 16) * 160))  # 10 MiB that are really written
        time.sleep(0.005)


def die(word: str, pipe: Any) -> None:
    pipe.send_bytes(f"{word} began".encode())
    os.kill(os.getpid(), signal.SIGSEGV)


def chosen(word: str, pipe: Any) -> None:
    {"good": answer, "hangs": run_forever, "dies": die}[word](word, pipe)
