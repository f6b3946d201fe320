"""Where a model's files come from: one file a kind of source, tried in the order that the model names them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.errors import SetupError
from engine.registry import Registry
from schemas.model import ModelSpec

Notify = Callable[[str], None]
"""Told in one line when something slow begins."""

SOURCES = Registry(
    "sources",
    {
        "hub": "engine.artifacts.hub:HubSource",
        "package": "engine.artifacts.package:PackageSource",
        "file": "engine.artifacts.file:FileSource",
    },
)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model's files on this machine."""

    path: Path
    """The file, or the folder that holds them."""
    format: str
    """Their layout, of schemas.model.Format."""
    source: str
    """Where they came from, in one line."""
    cid: str | None = None
    """The content id of what was fetched; None: not known without reading it all."""


class Source(Protocol):
    """One place that may hold a model's files. Made with `cls(spec)`."""

    def __init__(self, spec: object) -> None: ...

    def __str__(self) -> str:
        """The source in one line, for messages."""
        ...

    def fetch(self, cache: Path, notify: Notify) -> Artifact:
        """The files, from the cache when they are there. Blocks. Raises SetupError with the reason why not."""
        ...


def fetch(
    model: ModelSpec, formats: tuple[str, ...], *, cache_dir: Path | None = None, notify: Notify | None = None
) -> Artifact:
    """The files of `model` from the first of its sources that works and whose format is one of `formats`.

    Blocks while it downloads. Raises SetupError that names each source with the reason why it could not be used.
    """
    if not model.sources:
        raise SetupError(
            f"model.sources: {model.name!r} names no source, so it can't run in this process. "
            f"Next: choose a model with sources, or a remote provider."
        )
    cache = cache_dir or default_cache()
    reasons: list[str] = []
    for spec in model.sources:
        source: Source = SOURCES.get(spec.kind)(spec)
        if spec.format not in formats:
            reasons.append(f"{source}: holds {spec.format}, and this runtime reads {' or '.join(formats)}")
            continue
        try:
            return source.fetch(cache, notify or _silent)
        except SetupError as error:
            reasons.append(f"{source}: {error}")
        except OSError as error:
            reasons.append(f"{source}: {disk_problem(error, cache)}")
    listed = "\n".join(f"  - {reason}" for reason in reasons)
    raise SetupError(
        f"model.sources: no source of {model.name!r} can be used here\n{listed}\n"
        f"Next: put that right, or name files you have: 'model.sources=[{{kind: file, path: PATH, "
        f"format: {formats[0]}}}]'."
    )


def default_cache() -> Path:
    """$ENGINE_CACHE, else $XDG_CACHE_HOME/ipfs-accelerate, else ~/.cache/ipfs-accelerate."""
    own = os.environ.get("ENGINE_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "ipfs-accelerate"


def disk_problem(error: OSError, cache: Path) -> str:
    """Says what kept us from writing into the cache and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({error.filename or cache}); free space, or set ENGINE_CACHE to another disk"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        what = error.strerror.lower() if error.strerror else "refused"
        return f"the cache {cache} can't be written ({what}: {error.filename}); set ENGINE_CACHE to a folder that can"
    return f"{type(error).__name__}: {error}"


def _silent(line: str) -> None:
    """Nobody listens."""
