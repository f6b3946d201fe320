"""The sources of a model's files: one file a kind of source, tried in the order that the model names them."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from engine.artifacts.cache import Cache
from engine.artifacts.job import Job, Notify
from engine.core.errors import SetupError
from engine.core.registry import SOURCES
from engine.schemas.model import ModelSpec
from engine.schemas.storage import StorageSpec

__all__ = ["SOURCES", "Artifact", "Job", "Notify", "Source", "default_cache", "disk_problem", "fetch", "job_of"]

_POLL_S = 0.1
"""The interval at which a race checks if its winner is still needed, in seconds."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model's files on this machine. They can't be evicted from our cache while this object lives."""

    path: Path
    """The file, or the folder that holds them."""
    format: str
    """Their layout, of schemas.sources.Format."""
    source: str
    """Their source, in one line."""
    cid: str | None = None
    """The content id of the fetched content; None: not known without reading it all."""
    lease: Any = field(default=None, repr=False, compare=False)
    """The lock that keeps them in the cache."""
    cache: Cache | None = field(default=None, repr=False, compare=False)
    """The cache for files made of them; None: the default cache."""


class Source(Protocol):
    """One place that may hold a model's files. Made with `cls(spec)`."""

    def __init__(self, spec: object) -> None: ...

    def __str__(self) -> str:
        """Returns the source in one line, for messages."""
        ...

    def fetch(self, job: Job) -> Artifact:
        """Returns the files, from the cache if they are there. Blocks. Raises SetupError with the reason, OSError for
        the disk, and Stopped soon after `job.stop` is set."""
        ...


def job_of(storage: StorageSpec, *, cache_dir: Path | None = None, notify: Notify | None = None) -> Job:
    """Returns the settings of one fetch; `cache_dir` overrides `storage.cache_dir`."""
    own = Path(storage.cache_dir).expanduser() if storage.cache_dir else default_cache()
    offline = storage.offline or os.environ.get("ENGINE_OFFLINE", "") not in ("", "0")
    job = Job(storage, Cache(cache_dir or own, storage.cache_max_bytes), offline=offline)
    return job if notify is None else replace(job, notify=notify)


def fetch(
    model: ModelSpec,
    formats: tuple[str, ...],
    *,
    cache_dir: Path | None = None,
    notify: Notify | None = None,
    storage: StorageSpec | None = None,
    stop: threading.Event | None = None,
) -> Artifact:
    """Returns the files of `model` from one of its sources whose format is one of `formats`.

    Uses the first source that works, in their order, or with `storage.strategy=fastest` the first that is ready.
    Blocks while it downloads; when another thread sets `stop` it raises Stopped soon, and a later fetch continues the
    download. Raises SetupError that names each source with the reason why it could not be used.
    """
    if not model.sources:
        raise SetupError(
            f"model.sources: {model.name!r} names no source, so it can't run in this process. "
            f"Next: choose a model with sources, or a remote provider."
        )
    job = job_of(storage or StorageSpec(), cache_dir=cache_dir, notify=notify)
    job.stop = stop or job.stop
    sources: list[Source] = [SOURCES.get(spec.kind)(spec) for spec in model.sources]
    reasons: dict[int, str] = {}
    fit: dict[int, Source] = {}
    for place, (spec, source) in enumerate(zip(model.sources, sources, strict=True)):
        if spec.format in formats:
            fit[place] = source
        else:
            reasons[place] = f"holds {spec.format}, and this runtime reads {' or '.join(formats)}"
    found = (_fastest if job.spec.strategy == "fastest" else _first)(fit, job, reasons)
    if found is not None:
        return replace(found, cache=job.cache)
    listed = "\n".join(f"  - {source}: {reasons[place]}" for place, source in enumerate(sources))
    raise SetupError(
        f"model.sources: no source of {model.name!r} can be used here\n{listed}\n"
        f"Next: put that right, or name files you have: 'model.sources=[{{kind: file, path: PATH, "
        f"format: {formats[0]}}}]'."
    )


def _first(sources: dict[int, Source], job: Job, reasons: dict[int, str]) -> Artifact | None:
    for place, source in sources.items():
        try:
            return source.fetch(job)
        except (SetupError, OSError) as error:
            reasons[place] = _reason(error, job)
    return None


def _fastest(sources: dict[int, Source], job: Job, reasons: dict[int, str]) -> Artifact | None:
    """Fetches all side by side; the others are cancelled, and not awaited, when the first is ready."""
    runs: dict[Future[Artifact], tuple[int, Job]] = {}
    for place, source in sources.items():
        own = replace(job, stop=threading.Event())
        outcome: Future[Artifact] = Future()
        threading.Thread(target=_into, args=(outcome, source, own), name="artifacts-race", daemon=True).start()
        runs[outcome] = (place, own)
    try:
        under_way = set(runs)
        while under_way:
            done, under_way = wait(under_way, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            job.check()
            for outcome in sorted(done, key=list(runs).index):
                error = outcome.exception()
                if error is None:
                    return outcome.result()
                if not isinstance(error, SetupError | OSError):
                    raise error
                reasons[runs[outcome][0]] = _reason(error, job)
        return None
    finally:
        for _, own in runs.values():
            own.stop.set()


def _into(outcome: Future[Artifact], source: Source, job: Job) -> None:
    try:
        outcome.set_result(source.fetch(job))
    except BaseException as error:  # raised again by `result`, in the other thread
        outcome.set_exception(error)


def _reason(error: Exception, job: Job) -> str:
    return disk_problem(error, job.cache.root) if isinstance(error, OSError) else str(error)


def default_cache() -> Path:
    """Returns $ENGINE_CACHE, else $XDG_CACHE_HOME/ipfs-accelerate, else ~/.cache/ipfs-accelerate."""
    own = os.environ.get("ENGINE_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "ipfs-accelerate"


def disk_problem(error: OSError, cache: Path) -> str:
    """Explains why the cache could not be written, with the next step."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"the disk is full ({error.filename or cache}); free space, or set ENGINE_CACHE to another disk"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        what = error.strerror.lower() if error.strerror else "refused"
        return f"the cache {cache} can't be written ({what}: {error.filename}); set ENGINE_CACHE to a folder that can"
    return f"{type(error).__name__}: {error}"
