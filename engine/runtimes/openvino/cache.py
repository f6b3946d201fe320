"""Files made from a model's for OpenVINO, kept in the cache next to them: made once, shared by processes."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from engine.artifacts.cache import Cache, Held, tree_cid
from engine.artifacts.resolve import Artifact, default_cache
from engine.core.cid import cid_of_json

log = logging.getLogger("engine.runtimes")


def kept(artifact: Artifact, what: str, recipe: dict[str, str], make: Callable[[Path], Path]) -> Held:
    """Returns the folder that `make` fills, from the artifact's cache if it exists; held, so that it isn't evicted.

    `what` is its name in messages, such as "OpenVINO int8". `recipe` names the inputs other than the model's
    files, such as versions. `make` gets an empty folder to work in and returns the one within it to
    keep. Blocks. Raises OSError or SetupError when the cache can't be written, and the errors of `make`.
    """
    cache = artifact.cache or Cache(default_cache())
    key = cid_of_json({"source": artifact.cid or _state(artifact.path), **recipe})
    name = f"{what} of {artifact.source}"

    def work(folder: Path) -> tuple[Path, str, str]:
        # A folder of its own: a killed process may have left files here.
        temp = Path(tempfile.mkdtemp(prefix="make-", dir=folder))
        try:
            made = make(temp)
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            raise
        return made, tree_cid(made), artifact.path.name

    def waiting() -> None:
        log.info("waiting for another process that makes %s", name)

    return cache.once(key, name, work, lambda: None, waiting)


def _state(path: Path) -> str:
    """Returns path, sizes and times: they change with the files."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    states = [(file, file.stat()) for file in files if file.is_file()]
    return " ".join([str(path.resolve()), *(f"{file.name} {at.st_size} {at.st_mtime_ns}" for file, at in states)])
