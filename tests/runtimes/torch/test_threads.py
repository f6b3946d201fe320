"""Threads of torch for one thread of ours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch")

from engine.runtimes.torch.threads import use_here  # noqa: E402


def numbers(*counts: int | None) -> tuple[list[int], int]:
    """What a new thread has after each call, and a thread that begins after it."""
    found = []
    with ThreadPoolExecutor(1) as one:
        for count in counts:
            one.submit(use_here, count).result()
            found.append(one.submit(torch.get_num_threads).result())
        with ThreadPoolExecutor(1) as later:
            return found, later.submit(torch.get_num_threads).result()


def test_only_the_calling_thread_has_fewer() -> None:
    here = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert numbers(1, None, 2) == ([1, 3, 2], 3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(here)
