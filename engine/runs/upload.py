"""Puts a finished run's files into an S3 bucket: `output.upload`."""

from __future__ import annotations

from pathlib import Path

from engine.artifacts.bucket import Bucket
from engine.artifacts.resolve import Notify, job_of
from engine.core.errors import OutputError, SetupError
from engine.runs.directory import RunDirectory
from engine.runs.media_files import FOLDER
from engine.schemas import RunSpec

FILES = (
    "results.jsonl", "dead.jsonl", "metrics.json", "report.md", "report.html", "spec.yaml", "manifest.json",
)  # fmt: skip
"""Files to upload, in this order after the images and audio: once the manifest is there, all others are."""


class Upload:
    """The destination of a run's files. Made before the run starts, so that missing keys are reported at once."""

    def __init__(self, spec: RunSpec, notify: Notify | None = None) -> None:
        """Raises SetupError: obstore is not installed, or keys are missing."""
        self._spec = spec
        bucket, _, prefix = (spec.output.upload or "").removeprefix("s3://").partition("/")
        self._prefix = prefix.strip("/")
        try:
            self._bucket = Bucket(bucket, job_of(spec.storage, notify=notify))
        except SetupError as error:
            raise SetupError(f"output.upload: {error}") from error

    def send(self, run: RunDirectory) -> str:
        """Uploads the files of a finished run, and returns where they are. Raises OutputError; a resume tries again."""
        folder = "/".join(part for part in (self._prefix, _name(run.path, self._spec)) if part)
        place = f"s3://{self._bucket.name}/{folder}"
        try:
            media = sorted(path.relative_to(run.path).as_posix() for path in (run.path / FOLDER).glob("*"))
            for name in (*media, *FILES):
                if (run.path / name).is_file():
                    self._bucket.put(run.path / name, f"{folder}/{name}")
        except SetupError as error:
            again = f"python -m engine artifacts put {run.path} {place}" if run.manifest.source is None else ""
            raise OutputError(
                f"output.upload: {error}. The run is finished, and its files are in {run.path}; upload them with:\n"
                f"  {again or run.resume_command}"
            ) from error
        return place


def _name(path: Path, spec: RunSpec) -> str:
    """Returns the run's name; for a sweep's cell with the sweep's before it."""
    root = Path(spec.output.root).expanduser().absolute()
    here = path.absolute()
    return here.relative_to(root).as_posix() if here.is_relative_to(root) else here.name
