"""The number of threads that torch uses for the work of one thread.

Its threads continue looking for work for some milliseconds after each operation: next to another library that computes
on the same cores, such as OpenVINO between two steps of a generation, that costs more than they bring.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch


def use_here(count: int | None) -> None:
    """From now on torch computes with `count` threads in the calling thread, None: as many as elsewhere."""
    torch.get_num_threads()  # a thread takes the process's number at its first question, over what was set before
    with ThreadPoolExecutor(1) as another:
        elsewhere = another.submit(torch.get_num_threads).result()
        torch.set_num_threads(count or elsewhere)
        # A thread that begins later takes the number that was set last, by any thread.
        another.submit(torch.set_num_threads, elsewhere).result()
