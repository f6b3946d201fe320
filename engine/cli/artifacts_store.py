"""`engine artifacts get|put|list|head|delete|presign`: objects of S3 stores."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from engine.artifacts.bucket import Bucket, Object
from engine.artifacts.job import Job, megabytes
from engine.cli.terminal import print_json, print_table
from engine.core.errors import ConfigError, SetupError, nearest


def _get(words: list[str], job: Job, arguments: argparse.Namespace) -> None:
    name, key, version = _place(words[0])
    into = Path(words[1] if len(words) == 2 else ".").expanduser()
    bucket = Bucket(name, job)
    if key.endswith("/") or not key:
        objects = [item for item in bucket.list(key) if not item.key.endswith("/")]
        if not objects:
            raise SetupError(f"{words[0]}: nothing is below it")
        for item in objects:
            _get_one(bucket, item.key, into / _inside(item.key[len(key) :]), None, arguments.force)
        return
    _get_one(bucket, key, into / PurePosixPath(key).name if into.is_dir() else into, version, arguments.force)


def _get_one(bucket: Bucket, key: str, path: Path, version: str | None, force: bool) -> None:
    if path.exists() and not force:
        raise SetupError(f"{path} is there already; name another, or say --force")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    digest = bucket.get(key, part, version)
    part.replace(path)
    print(f"{path}  {megabytes(path.stat().st_size)}  sha256={digest}")


def _put(words: list[str], job: Job, arguments: argparse.Namespace) -> None:
    path, (name, key, _) = Path(words[0]).expanduser(), _place(words[1])
    if not path.exists():
        near = nearest(path.name, [entry.name for entry in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise SetupError(f"{path}: no such file or folder; {near or 'check the path'}")
    bucket = Bucket(name, job)
    files = {path: f"{key}{path.name}" if key.endswith("/") or not key else key}
    if path.is_dir():
        prefix = key.strip("/")
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        files = {file: f"{prefix}/{file.relative_to(path).as_posix()}".lstrip("/") for file in inside}
    stored = []
    for file, object_key in files.items():
        stored.append(bucket.put(file, object_key))
        if not arguments.json:
            print(f"s3://{name}/{object_key}  {megabytes(stored[-1].size_bytes)}", flush=True)
    if arguments.json:
        print_json([_object(item) for item in stored])


def _list(words: list[str], job: Job, arguments: argparse.Namespace) -> None:
    name, prefix, _ = _place(words[0])
    objects = list(Bucket(name, job).list(prefix))
    if arguments.json:
        print_json([_object(item) for item in objects])
        return
    rows = [(item.size_bytes, f"{item.modified:%Y-%m-%d %H:%M:%S}", f"s3://{name}/{item.key}") for item in objects]
    if rows:
        print_table(("bytes", "modified", "object"), rows, plain_heads=False)


def _head(words: list[str], job: Job, arguments: argparse.Namespace) -> None:
    name, key, version = _place(words[0], whole=True)
    found = _object(Bucket(name, job).head(key, version))
    if arguments.json:
        print_json(found)
    else:
        print("\n".join(f"{knob:<12} {value}" for knob, value in found.items() if value is not None))


def _delete(words: list[str], job: Job, arguments: argparse.Namespace) -> None:
    gone = 0
    for uri in words:
        name, key, _ = _place(uri)
        bucket, keys = Bucket(name, job), [key]
        if key.endswith("/") or not key:
            keys = [item.key for item in bucket.list(key)]
            if not arguments.force:
                raise ConfigError(f"{uri}: objects below it: {len(keys)}; say --force to delete them all")
        bucket.delete(keys)
        gone += len(keys)
    print(f"{gone} deleted")


def _presign(words: list[str], job: Job, arguments: argparse.Namespace) -> None:
    name, key, _ = _place(words[0], whole=True)
    print(Bucket(name, job).presign(key, arguments.expires, arguments.method))


def _place(uri: str, whole: bool = False) -> tuple[str, str, str | None]:
    """Returns bucket, key and version of an S3 URI; `whole`: of one object. Raises ConfigError."""
    rest = uri.removeprefix("s3://")
    path, _, query = rest.partition("?")
    name, _, key = path.partition("/")
    version = query.removeprefix("versionId=").removeprefix("version=") or None
    if rest == uri or not name or (whole and (not key or key.endswith("/"))):
        raise ConfigError(f"{uri}: expected s3://BUCKET/KEY")
    return name, key, version


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise SetupError(f"{name!r} can't be a file's path; get the object by itself")
    return path


def _object(item: Object) -> dict[str, Any]:
    return {
        "key": item.key,
        "size_bytes": item.size_bytes,
        "modified": item.modified.isoformat(),
        "etag": item.etag,
        "version": item.version,
    }


RUN: dict[str, Callable[[list[str], Job, argparse.Namespace], None]] = {
    "get": _get,
    "put": _put,
    "list": _list,
    "head": _head,
    "delete": _delete,
    "presign": _presign,
}
