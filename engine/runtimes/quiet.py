"""Silences the libraries while a model loads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' bars and warnings from the terminal, which shows our progress."""
    from transformers.utils import logging as hub_logging

    shown, level = hub_logging.is_progress_bar_enabled(), hub_logging.get_verbosity()
    hub_logging.disable_progress_bar()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)
        if shown:
            hub_logging.enable_progress_bar()
