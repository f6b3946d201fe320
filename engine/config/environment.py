"""The resolvers of interpolations that read something outside: `oc.env` and `now`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from omegaconf import OmegaConf
from omegaconf.resolvers import oc

ALLOWED_ENV = "ENGINE_CONFIG_ENV"
"""The environment variable that names further variables that a config repo may read, with commas between them."""
READABLE = (
    "HOME", "HOSTNAME", "LANG", "LOGNAME", "PWD", "TMPDIR", "USER",
    "CUDA_VISIBLE_DEVICES", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID", "SLURM_PROCID",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR",
)  # fmt: skip
"""The variables that any config repo may read: places and job numbers, no secrets."""


@dataclass(frozen=True)
class Reading:
    """The limits of one composition. `names` are the variables that may be read; None: all."""

    names: frozenset[str] | None
    now: datetime


_reading: ContextVar[Reading | None] = ContextVar("reading", default=None)


def readable(overrides: Iterable[str]) -> frozenset[str]:
    """Returns the variables that a composition with a config repo may read: listed ones, and those that were typed."""
    listed = (name.strip() for name in os.environ.get(ALLOWED_ENV, "").split(","))
    typed = (name for line in overrides for name in re.findall(r"oc\.env\s*:\s*([^\s,}]+)", line))
    return frozenset({*READABLE, *filter(None, listed), *(name.strip("'\"") for name in typed)})


@contextmanager
def reading(limits: Reading) -> Iterator[None]:
    """Resolves interpolations within limits while the context is open."""
    token = _reading.set(limits)
    try:
        yield
    finally:
        _reading.reset(token)


class NotReadable(ValueError):
    """A config repo reads a variable that is not on the list."""


def _env(name: str, *default: Any) -> Any:
    """Reads a variable as OmegaConf does. Outside a composition, such as in a program with configs of its own: any."""
    limits = _reading.get()
    if limits is not None and limits.names is not None and name not in limits.names:
        raise NotReadable(
            f"the environment variable {name} is not one that a config repo may read. Fix: {ALLOWED_ENV}={name} in the "
            "environment lets it"
        )
    return oc.env(name, *default)


def _now(pattern: str) -> str:
    limits = _reading.get()
    return (limits.now if limits is not None else datetime.now()).strftime(pattern)


OmegaConf.register_new_resolver("oc.env", _env, replace=True)
if not OmegaConf.has_resolver("now"):  # a program that uses Hydra has it
    OmegaConf.register_new_resolver("now", _now)
