"""Files that are there as a whole or not at all, also after a power cut."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from engine.core.errors import OutputError


class CantWrite(OutputError):
    """The file system refuses. The caller adds the next step."""


_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


@contextmanager
def replacing(*paths: Path) -> Iterator[tuple[IO[bytes], ...]]:
    """Files to write in place of `paths`, of one directory: synced and renamed at the end, dropped after an error.

    Raises CantWrite for anything the file system refuses.
    """
    temporary = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in paths]
    streams: list[IO[bytes]] = []
    try:
        try:
            streams.extend(path.open("wb", buffering=256 * 1024) for path in temporary)
            yield tuple(streams)
            for stream in streams:
                stream.flush()
                os.fsync(stream.fileno())
                stream.close()
            for source, path in zip(temporary, paths, strict=True):
                source.replace(path)
            sync_directory(paths[0].parent)
        finally:
            _drop(streams, temporary)
    except OSError as error:
        what = error.strerror or error
        raise CantWrite(f"{paths[0]} can't be written: {what}; free disk space or choose another disk") from error


def write_atomic(path: Path, content: bytes) -> None:
    """Replaces one file. Raises CantWrite."""
    with replacing(path) as (stream,):
        stream.write(content)


def remove_temporary(folder: Path) -> None:
    """Deletes what a killed process left half-written. The caller holds the folder's lock."""
    for path in folder.iterdir():
        if is_temporary(path):
            path.unlink(missing_ok=True)


def is_temporary(path: Path) -> bool:
    """Returns True once `replacing` has given the file its name."""
    return _TEMPORARY.fullmatch(path.name) is not None


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _drop(streams: list[IO[bytes]], temporary: list[Path]) -> None:
    for stream in streams:
        if not stream.closed:
            try:
                stream.close()
            except OSError:  # its buffer did not fit the disk; the file goes away anyway
                continue
    for path in temporary:
        path.unlink(missing_ok=True)
