"""What was made of a model's files for OpenVINO, kept in our cache: made once, shared by processes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from engine.artifacts import Artifact
from engine.cid import cid_of_json


def kept(artifact: Artifact, cache: Path, recipe: dict[str, str], make: Callable[[Path], Path]) -> Path:
    """The folder that `make` fills, from the cache if it was made before.

    `recipe` says everything besides the model's files that the content depends on, such as versions. `make` gets an
    empty folder to work in and returns the one within it to keep. Blocks. Raises OSError when the cache can't be
    written, and whatever `make` raises.
    """
    name = cid_of_json({"source": artifact.cid or _state(artifact.path), **recipe})
    folder = cache / "openvino" / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".make-", dir=folder.parent) as temp:
        fresh = make(Path(temp))
        try:
            os.replace(fresh, folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same content
                raise
    return folder


def _state(path: Path) -> str:
    """Path, sizes and times: changes when the files do."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    states = [(file, file.stat()) for file in files if file.is_file()]
    return " ".join([str(path.resolve()), *(f"{file.name} {at.st_size} {at.st_mtime_ns}" for file, at in states)])
