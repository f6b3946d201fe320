"""The number of threads that torch uses for the work of one thread.

Its threads look for work for some milliseconds after each operation: next to another library that computes on the same
cores, such as OpenVINO between two steps of a generation, that costs more than it brings.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch


def use_here(count: int | None) -> None:
    """Sets torch's threads for the calling thread to `count`; None: as many as elsewhere."""
    torch.get_num_threads()  # a thread reads the process's number at its first call, and would overwrite ours
    with ThreadPoolExecutor(1) as another:
        elsewhere = another.submit(torch.get_num_threads).result()
        torch.set_num_threads(count or elsewhere)
        # A later thread starts with the number that any thread set last.
        another.submit(torch.set_num_threads, elsewhere).result()
