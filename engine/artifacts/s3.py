"""Source `s3`: an object of an S3 store, or all objects below a prefix."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from engine.artifacts.bucket import Bucket, Object, endpoints_of
from engine.artifacts.cache import tree_cid
from engine.artifacts.job import Job, megabytes
from engine.artifacts.resolve import Artifact
from engine.core.cid import cid_of_digest, cid_of_json
from engine.core.errors import SetupError
from engine.schemas.sources import S3SourceSpec


class S3Source:
    """Objects of an S3 store, in our cache. A cached object is used without a request to the store."""

    def __init__(self, spec: S3SourceSpec) -> None:
        self._spec = spec

    def __str__(self) -> str:
        version = f"?version={self._spec.version}" if self._spec.version else ""
        return f"s3://{self._spec.bucket}/{self._spec.key}{version}"

    def fetch(self, job: Job) -> Artifact:
        """Raises SetupError: no such object, refused, another digest, too large, no endpoint answers."""
        spec = self._spec
        held, name = None, PurePosixPath(spec.key).name
        if spec.sha256 is not None and not job.again:
            held = job.cache.use(cid_of_digest(bytes.fromhex(spec.sha256)), name)
        if held is None:
            where = {"endpoints": endpoints_of(job.spec.s3), "region": job.spec.s3.region}
            key = cid_of_json({**where, **spec.model_dump(exclude={"format"})})
            held = job.once(key, str(self), lambda folder: self._download(folder, job))
        return Artifact(held.path, spec.format, str(self), held.cid, held)

    def _download(self, folder: Path, job: Job) -> tuple[Path, str, str]:
        spec = self._spec
        bucket = Bucket(spec.bucket, job)
        job.notify(f"downloading {self}")
        if spec.key.endswith("/"):
            return self._prefix(bucket, folder, job)
        digest = bucket.get(spec.key, folder / "file", spec.version, spec.sha256)
        return folder / "file", cid_of_digest(bytes.fromhex(digest)), PurePosixPath(spec.key).name

    def _prefix(self, bucket: Bucket, folder: Path, job: Job) -> tuple[Path, str, str]:
        if self._spec.sha256 or self._spec.version:
            raise SetupError("sha256 and version are of one object, not of a prefix; name the object itself")
        objects = [item for item in bucket.list(self._spec.key) if not item.key.endswith("/")]
        if not objects:
            raise SetupError(f"s3://{self._spec.bucket} has nothing below {self._spec.key!r}")
        total = sum(item.size_bytes for item in objects)
        if total > job.spec.max_bytes:
            raise SetupError(f"it is {megabytes(total)}, more than storage.max_bytes={job.spec.max_bytes} allows")
        tree, notes = folder / "tree", folder / "tree.state"
        fetched = _read(notes)
        for item in objects:
            inside = _below(item.key, self._spec.key)
            path = tree / inside
            if fetched.get(str(inside)) != _mark(item) or not path.is_file():
                bucket.get(item.key, folder / "file")
                path.parent.mkdir(parents=True, exist_ok=True)
                (folder / "file").replace(path)
                fetched[str(inside)] = _mark(item)
                notes.write_text(json.dumps(fetched), encoding="utf-8")
        wanted = {_below(item.key, self._spec.key) for item in objects}
        for path in [path for path in tree.rglob("*") if path.is_file()]:
            if PurePosixPath(path.relative_to(tree).as_posix()) not in wanted:
                path.unlink()  # it was there in an earlier download, and is gone from the store
        return tree, tree_cid(tree), PurePosixPath(self._spec.key).name


def _mark(item: Object) -> list[Any]:
    return [item.etag, item.size_bytes]


def _below(key: str, prefix: str) -> PurePosixPath:
    """Returns an object's path in its folder. Raises SetupError if it would leave it."""
    path = PurePosixPath(key[len(prefix) :])
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in key or "\0" in key:
        raise SetupError(f"{key!r} can't be a file's path; name the objects one by one")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
