"""`engine artifacts …`: model files by hand. Objects of S3 stores, any source through the cache, the cache itself."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from engine.artifacts.bucket import Bucket, Object
from engine.artifacts.job import Job, megabytes
from engine.artifacts.resolve import SOURCES, Artifact, Source, disk_problem, job_of
from engine.cli.command import Command, at_least, config_dir_flag, json_flag
from engine.config.compose import compose
from engine.core.errors import ConfigError, SetupError, nearest
from engine.schemas.sources import SourceSpec, source_from_uri

_S3 = "s3://bucket/models"
METHODS = ("GET", "PUT", "HEAD", "DELETE")


def _json(parser: argparse.ArgumentParser) -> None:
    json_flag(parser)
    config_dir_flag(parser)


def _forced(what: str) -> Callable[[argparse.ArgumentParser], None]:
    def flags(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--force", action="store_true", help=what)
        _json(parser)

    return flags


def _presigned(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--expires", type=at_least(1), default=3600, metavar="SECONDS", help="lifetime in seconds")
    parser.add_argument("--method", choices=METHODS, default="GET", help="the permitted method")
    _json(parser)


def _pruned(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-bytes", type=at_least(0), metavar="N", help="bytes to shrink to; else storage's")
    _json(parser)


_CODES = (0, 2, 4)
COMMANDS = {
    "fetch": Command("fetch a source into the cache, and print its path", ("artifacts fetch hub://owner/model",
                     "artifacts fetch https://host/model.gguf --force", f"artifacts fetch {_S3}/a.gguf"), "URI …",
                     _forced("fetch it even if it is in the cache"), 1, None, _CODES),
    "get": Command("get an object, or all below a prefix ending with /", (f"artifacts get {_S3}/a.gguf",
                   f"artifacts get {_S3}/ models", f"artifacts get {_S3}/a.gguf a.gguf --force"),
                   "s3://BUCKET/KEY [PATH]", _forced("overwrite what is there"), 1, 2, _CODES),
    "put": Command("put a file or a folder", (f"artifacts put a.gguf {_S3}/", f"artifacts put models {_S3}",
                   f"artifacts put a.gguf {_S3}/b.gguf --json"), "PATH s3://BUCKET/KEY", _json, 2, 2, _CODES),
    "list": Command("list objects", ("artifacts list s3://bucket", f"artifacts list {_S3}",
                    f"artifacts list {_S3} --json"), "s3://BUCKET[/PREFIX]", _json, 1, 1, _CODES),
    "head": Command("show an object's size, date, ETag and version", (f"artifacts head {_S3}/a.gguf",
                    f"artifacts head '{_S3}/a.gguf?version=3'", f"artifacts head {_S3}/a.gguf --json"),
                    "s3://BUCKET/KEY[?version=ID]", _json, 1, 1, _CODES),
    "delete": Command("delete objects, or all below a prefix ending with /", (f"artifacts delete {_S3}/a.gguf",
                      f"artifacts delete {_S3}/a {_S3}/b", f"artifacts delete {_S3}/ --force"), "s3://BUCKET/KEY …",
                      _forced("delete all objects below a prefix"), 1, None, _CODES),
    "presign": Command("print a URL that works without credentials", (f"artifacts presign {_S3}/a.gguf",
                       f"artifacts presign {_S3}/a.gguf --expires 60", f"artifacts presign {_S3}/b --method PUT"),
                       "s3://BUCKET/KEY", _presigned, 1, 1, _CODES),
    "cache list": Command("list the cache", ("artifacts cache list", "artifacts cache", "artifacts cache list --json"),
                          "", _json, 0, None, _CODES),
    "cache verify": Command("compare cached files with their content ids", ("artifacts cache verify",
                            "artifacts cache verify CID", "artifacts cache verify CID CID"), "[CID …]", _json, 0, None,
                            _CODES),
    "cache remove": Command("delete entries of the cache", ("artifacts cache remove CID",
                            "artifacts cache remove CID CID", "artifacts cache remove CID storage.cache_dir=DIR"),
                            "CID …", _json, 1, None, _CODES),
    "cache prune": Command("delete the least recently used entries", ("artifacts cache prune",
                           "artifacts cache prune --max-bytes 0", "artifacts cache prune --max-bytes 20000000000"), "",
                           _pruned, 0, None, _CODES),
}  # fmt: skip
DEFAULT = None


def main(arguments: argparse.Namespace) -> int:
    """Raises ConfigError, SetupError."""
    overrides = [word for word in arguments.words if word.lstrip("+~").startswith(("storage.", "storage="))]
    words = [word for word in arguments.words if word not in overrides]
    verb = arguments.command
    storage = compose(overrides, arguments.config_dir).spec.storage
    job = job_of(storage, notify=lambda line: print(line, file=sys.stderr, flush=True))
    job.again = verb == "fetch" and arguments.force
    try:
        return _RUN[verb](words, job, arguments)
    except OSError as error:
        raise SetupError(f"artifacts {verb}: {disk_problem(error, job.cache.root)}") from error


def _fetch(words: list[str], job: Job, arguments: argparse.Namespace) -> int:
    found = []
    for uri in words:
        source = _source(uri)
        try:
            found.append(source.fetch(job))
        except SetupError as error:
            raise SetupError(f"{source}: {error}") from error
    if arguments.json:
        _print_json([_plain(artifact) for artifact in found])
    else:
        print("\n".join(str(artifact.path) for artifact in found))
    return 0


def _get(words: list[str], job: Job, arguments: argparse.Namespace) -> int:
    name, key, version = _place(words[0])
    into = Path(words[1] if len(words) == 2 else ".").expanduser()
    bucket = Bucket(name, job)
    if key.endswith("/") or not key:
        objects = [item for item in bucket.list(key) if not item.key.endswith("/")]
        if not objects:
            raise SetupError(f"{words[0]}: nothing is below it")
        for item in objects:
            _get_one(bucket, item.key, into / _inside(item.key[len(key) :]), None, arguments.force)
        return 0
    _get_one(bucket, key, into / PurePosixPath(key).name if into.is_dir() else into, version, arguments.force)
    return 0


def _get_one(bucket: Bucket, key: str, path: Path, version: str | None, force: bool) -> None:
    if path.exists() and not force:
        raise SetupError(f"{path} is there already; name another, or say --force")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    digest = bucket.get(key, part, version)
    part.replace(path)
    print(f"{path}  {megabytes(path.stat().st_size)}  sha256={digest}")


def _put(words: list[str], job: Job, arguments: argparse.Namespace) -> int:
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
        _print_json([_object(item) for item in stored])
    return 0


def _list(words: list[str], job: Job, arguments: argparse.Namespace) -> int:
    name, prefix, _ = _place(words[0])
    objects = list(Bucket(name, job).list(prefix))
    if arguments.json:
        _print_json([_object(item) for item in objects])
        return 0
    for item in objects:
        print(f"{item.size_bytes:>14}  {item.modified:%Y-%m-%d %H:%M:%S}  s3://{name}/{item.key}")
    return 0


def _head(words: list[str], job: Job, arguments: argparse.Namespace) -> int:
    name, key, version = _place(words[0], whole=True)
    found = _object(Bucket(name, job).head(key, version))
    if arguments.json:
        _print_json(found)
    else:
        print("\n".join(f"{knob:<12} {value}" for knob, value in found.items() if value is not None))
    return 0


def _delete(words: list[str], job: Job, arguments: argparse.Namespace) -> int:
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
    return 0


def _presign(words: list[str], job: Job, arguments: argparse.Namespace) -> int:
    name, key, _ = _place(words[0], whole=True)
    print(Bucket(name, job).presign(key, arguments.expires, arguments.method))
    return 0


def _cache_verify(cids: list[str], job: Job, arguments: argparse.Namespace) -> int:
    known = [entry.cid for entry in job.cache.entries()]
    damaged = [cid for cid in cids or known if not job.cache.verify(cid)]
    if damaged:
        raise SetupError(
            f"not what was fetched any more, or not here: {', '.join(damaged)}. "
            "Next: engine artifacts cache remove CID, then fetch again"
        )
    print(f"{len(cids or known)} whole")
    return 0


def _cache_remove(cids: list[str], job: Job, arguments: argparse.Namespace) -> int:
    for cid in cids:
        if not job.cache.remove(cid):
            raise SetupError(f"{cid} is in use, or not in {job.cache.root}")
    print(f"{len(cids)} deleted")
    return 0


def _cache_prune(words: list[str], job: Job, arguments: argparse.Namespace) -> int:
    gone = job.cache.prune(arguments.max_bytes)
    print(f"{len(gone)} deleted, {megabytes(sum(entry.size_bytes for entry in gone))}")
    return 0


def _cache_list(words: list[str], job: Job, arguments: argparse.Namespace) -> int:
    entries = job.cache.entries()
    if arguments.json:
        names = ("cid", "name", "source", "size_bytes", "used_s", "in_use")
        _print_json([{name: getattr(entry, name) for name in names} for entry in entries])
        return 0
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used_s))
        print(
            f"{entry.cid}  {megabytes(entry.size_bytes):>9}  {used}  {entry.source}{'  in use' if entry.in_use else ''}"
        )
    print(f"{len(entries)} in {job.cache.root}, {megabytes(sum(entry.size_bytes for entry in entries))}")
    return 0


_RUN: dict[str, Callable[[list[str], Job, argparse.Namespace], int]] = {
    "fetch": _fetch, "get": _get, "put": _put, "list": _list, "head": _head, "delete": _delete, "presign": _presign,
    "cache list": _cache_list, "cache verify": _cache_verify, "cache remove": _cache_remove,
    "cache prune": _cache_prune,
}  # fmt: skip


def _source(uri: str) -> Source:
    """Raises ConfigError."""
    try:
        # By hand any file may be fetched; its layout is the user's matter.
        spec = TypeAdapter[Any](SourceSpec).validate_python(source_from_uri(uri, "safetensors"))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = str(first["loc"][-1]) if first["loc"] else "URI"
        raise ConfigError(f"artifacts fetch: {where}: {first['msg']}") from None
    except ValueError as error:
        raise ConfigError(f"artifacts fetch: {error}") from None
    found: Source = SOURCES.get(spec.kind)(spec)
    return found


def _place(uri: str, whole: bool = False) -> tuple[str, str, str | None]:
    """Bucket, key and version of an S3 URI; `whole`: of one object. Raises ConfigError."""
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


def _plain(artifact: Artifact) -> dict[str, Any]:
    return {"path": str(artifact.path), "cid": artifact.cid, "source": artifact.source}


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False))
