"""Source `file`: files that are already on this machine."""

from __future__ import annotations

from pathlib import Path

from engine.artifacts.job import Job
from engine.artifacts.resolve import Artifact
from engine.core.errors import SetupError, nearest
from engine.schemas.sources import FileSourceSpec


class FileSource:
    """A file or folder on this machine, used in place."""

    def __init__(self, spec: FileSourceSpec) -> None:
        self._spec = spec

    def __str__(self) -> str:
        return f"file {self._spec.path}"

    def fetch(self, job: Job) -> Artifact:
        """Raises SetupError for a missing path, with the nearest names of its folder."""
        path = Path(self._spec.path).expanduser()
        if not path.exists():
            near = nearest(path.name, [entry.name for entry in path.parent.iterdir()]) if path.parent.is_dir() else ""
            raise SetupError(f"there is no such file or folder; {near or 'check the path'}")
        return Artifact(path.resolve(), self._spec.format, str(self))
