"""A bucket of any S3 store, through obstore: several endpoints with failover, downloads that can be resumed.

obstore is the well-kept client for this (Rust's object_store). It signs, retries, and splits uploads in parts. It
can't list an object's versions; a version whose id is known can be read.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import mimetypes
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from engine.artifacts.job import Job, Progress, Stopped, megabytes
from engine.artifacts.replicas import Replicas
from engine.core.errors import SetupError
from engine.credentials.keys import s3_keys, variable
from engine.credentials.masking import Secret, mask_shapes, redact
from engine.schemas.storage import S3Spec

T = TypeVar("T")

_CHUNK_BYTES = 1024 * 1024
_DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Object:
    """The facts that a store reports about one object."""

    key: str
    size_bytes: int
    modified: datetime
    etag: str | None
    version: str | None
    """None: the bucket keeps no versions, or the store does not report them."""


class Changed(Exception):
    """Raised when the object has changed since the request began."""


class Bucket:
    """A bucket, the same at each of its endpoints. Blocks; every method raises SetupError."""

    def __init__(self, name: str, job: Job) -> None:
        """Raises SetupError: obstore is not installed, or half of the keys is missing."""
        if importlib.util.find_spec("obstore") is None:
            raise SetupError('obstore is not installed; pip install "ipfs-accelerate[s3]"')
        self.name = name
        self.job = job
        self.spec = job.spec.s3
        keys = None if self.spec.anonymous else s3_keys(self.spec)
        self._secrets: list[Secret] = list(keys) if keys else []
        endpoints = endpoints_of(self.spec)
        if endpoints and not keys and not self.spec.anonymous and not _aws_keys_set():
            raise SetupError(
                f"the store at {endpoints[0]} needs keys: export {self.spec.access_key_env}=… and "
                f"{self.spec.secret_key_env}=…, or say storage.s3.anonymous=true for a public bucket"
            )
        self._stores = {place: self._store(place, keys) for place in endpoints or ("",)}
        self._replicas = Replicas(list(self._stores), job.clock, job.rng)

    def put(self, content: Path | bytes, key: str) -> Object:
        """Uploads a file (in parts, several at a time, if it is large) or some bytes."""
        import obstore

        kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        large = size > self.spec.part_bytes

        def upload(store: Any) -> Any:
            data: Any = content
            if isinstance(content, Path):
                data = self._pieces(content, key, size) if large else content.read_bytes()
            return obstore.put(
                store,
                key,
                data,
                attributes={"Content-Type": kind},
                use_multipart=large,
                chunk_size=self.spec.part_bytes,
                max_concurrency=self.spec.parallel,
            )

        put = self._call(f"put {key}", upload)
        return self.head(key, put["version"])

    def get(self, key: str, into: Path, version: str | None = None, sha256: str | None = None) -> str:
        """Downloads an object in ranges, several at a time, and returns its sha256 (hexadecimal).

        Bytes that an earlier download has left at `into` are not fetched again, if the object is still the same.
        """
        for last in (False, True):
            found = self.head(key, version)
            resumed = _Ranges(self, found, into, version)
            try:
                resumed.fetch()
            except Changed as error:
                into.unlink(missing_ok=True)
                if last:
                    raise SetupError(f"s3://{self.name}/{key} changes while it is fetched; name a version") from error
                continue
            with into.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            resumed.forget()
            if sha256 is not None and digest != sha256:
                into.unlink()
                raise SetupError(f"its sha256 is {digest}, expected {sha256}: it was not used")
            return digest
        raise AssertionError

    def list(self, prefix: str = "") -> Iterator[Object]:
        """Yields all objects whose key begins with a prefix, in the store's order."""
        import obstore

        # obstore compares whole parts of a path, so the last part is compared here.
        folder = prefix.rpartition("/")[0]
        pages = self._call("list", lambda store: [*obstore.list(store, folder or None, chunk_size=1000)])
        for page in pages:
            for meta in page:
                if meta["path"].startswith(prefix):
                    yield _object(meta)

    def head(self, key: str, version: str | None = None) -> Object:
        """Returns the store's facts about an object."""
        import obstore

        options: Any = {"head": True} if version is None else {"head": True, "version": version}
        return _object(self._call(key, lambda store: obstore.get(store, key, options=options).meta))

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects; a missing object is not an error."""
        import obstore

        wanted = [*keys]
        if wanted:
            self._call("delete", lambda store: obstore.delete(store, wanted))

    def presign(self, key: str, expires_s: int = 3600, method: str = "GET") -> str:
        """Returns a URL that allows one method on one object without keys, for `expires_s` seconds (S3: a week at
        most)."""
        import obstore

        known: Any = method
        store = next(iter(self._stores.values()))
        return str(obstore.sign(store, known, key, timedelta(seconds=expires_s)))

    # -- inside -------------------------------------------------------------------------------------------------

    def read(self, key: str, start: int, end: int, same: Object, version: str | None) -> Iterator[bytes]:
        """Yields some bytes of an object that is still the same. Raises SetupError, Changed."""
        import obstore

        options: Any = {"range": (start, end)}
        options |= {"version": version} if version is not None else {}
        options |= {"if_match": same.etag} if same.etag else {}

        def first(store: Any) -> tuple[Any, Any]:
            stream = obstore.get(store, key, options=options).stream(min_chunk_size=_CHUNK_BYTES)
            return next(iter(stream), b""), stream

        piece, stream = self._call(key, first)
        yield bytes(piece)
        for piece in stream:
            yield bytes(piece)

    def _call(self, what: str, call: Callable[[Any], T]) -> T:
        """Tries the endpoints one after another until one answers."""
        from obstore.exceptions import BaseError, PreconditionError

        reasons: dict[str, str] = {}
        for attempt in self._replicas.attempts():
            self.job.check()
            try:
                found = call(self._stores[attempt.name])
                attempt.worked()
                return found
            except PreconditionError as error:
                attempt.worked()
                raise Changed from error
            except FileNotFoundError as error:
                attempt.worked()
                raise SetupError(f"s3://{self.name} has no {what!r}") from error
            except ValueError as error:
                attempt.worked()
                raise SetupError(f"s3://{self.name}: {str(error).splitlines()[0]}") from error
            except BaseError as error:
                if not _is_down(error):
                    attempt.worked()
                    raise SetupError(f"s3://{self.name}: {self.said(error)}") from None  # its text shows what was sent
                attempt.failed()
                reasons[attempt.name] = self.said(error)
        listed = "; ".join(f"{place or 'AWS'}: {why}" for place, why in reasons.items())
        raise SetupError(
            f"no endpoint of s3://{self.name} answers ({listed}); check storage.s3.endpoints or S3_ENDPOINT"
        )

    def said(self, error: Exception) -> str:
        """Returns an error of obstore in one line without secrets."""
        text = str(error)
        status = re.search(r"status code: (\d+)", text)
        code, message = re.search(r"<Code>([^<]*)", text), re.search(r"<Message>([^<]*)", text)
        if status is None:
            short = text.splitlines()[0].rpartition(" - ")[2]
        else:
            words = " ".join(found[1].strip() for found in (code, message) if found)
            short = f"HTTP {status[1]} {words}".strip().rstrip(".")
            if status[1] in ("401", "403"):
                short += f"; check {self.spec.access_key_env}, {self.spec.secret_key_env} and what they may do"
        return mask_shapes(redact(short[:400], self._secrets))

    def _store(self, endpoint: str, keys: tuple[Secret, Secret] | None) -> Any:
        from obstore.store import S3Store

        spec, transport = self.spec, self.job.spec.transport
        client: Any = {
            "connect_timeout": timedelta(seconds=transport.connect_s),
            "read_timeout": timedelta(seconds=transport.read_s),
            "timeout": timedelta(hours=6),  # of a whole reply; a store that is down is noticed by its silence
            "allow_http": endpoint.startswith("http://"),
        }
        if transport.verify is False:
            client["allow_invalid_certificates"] = True
        elif isinstance(transport.verify, str):
            client["root_certificate"] = Path(transport.verify).expanduser().read_bytes()
        if transport.proxy:
            client["proxy_url"] = transport.proxy
        config: dict[str, Any] = {"region": spec.region or os.environ.get("AWS_REGION") or _DEFAULT_REGION}
        if endpoint:
            config["endpoint"] = endpoint
        if keys is not None:
            config |= {"access_key_id": keys[0].reveal(), "secret_access_key": keys[1].reveal()}
        if spec.anonymous:
            config["skip_signature"] = True
        return S3Store(
            self.name,
            **config,
            client_options=client,
            retry_config={"max_retries": spec.retries, "retry_timeout": timedelta(seconds=transport.read_s)},
        )

    def _pieces(self, path: Path, key: str, size: int) -> Iterator[bytes]:
        progress, done = Progress(self.job, f"uploading {key}", size), 0
        with path.open("rb") as file:
            while piece := file.read(_CHUNK_BYTES):
                self.job.check()
                done += len(piece)
                progress.at(done)
                yield piece


class _Ranges:
    """A download in ranges; the ranges on the disk are listed next to the file."""

    def __init__(self, bucket: Bucket, found: Object, into: Path, version: str | None) -> None:
        self._bucket, self._object, self._into, self._version = bucket, found, into, version
        self._part_bytes = bucket.spec.part_bytes
        self._state_path = into.with_name(into.name + ".state")
        self._done: set[int] = self._load()
        self._halted = threading.Event()
        """Set when one range has failed for good: the others stop."""

    def forget(self) -> None:
        self._state_path.unlink(missing_ok=True)

    def fetch(self) -> None:
        """Raises SetupError, Changed, Stopped, OSError."""
        found, job = self._object, self._bucket.job
        self._check_size()
        progress = Progress(job, f"s3://{self._bucket.name}/{found.key}", found.size_bytes)
        count = -(-found.size_bytes // self._part_bytes)
        missing = [part for part in range(count) if part not in self._done]
        with self._into.open("r+b" if self._into.exists() else "w+b") as file:
            file.truncate(found.size_bytes)
            self._save()
            with ThreadPoolExecutor(min(self._bucket.spec.parallel, max(1, len(missing)))) as pool:
                under_way = {pool.submit(self._one, part, file.fileno()): part for part in missing}
                try:
                    while under_way:
                        done, _ = wait(under_way, return_when=FIRST_COMPLETED, timeout=0.2)
                        job.check()
                        for future in done:
                            part = under_way.pop(future)
                            future.result()
                            self._done.add(part)
                        if done:
                            self._save()
                            progress.at(len(self._done) * self._part_bytes)
                except BaseException:
                    self._halted.set()
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise

    def _one(self, part: int, descriptor: int) -> None:
        from obstore.exceptions import BaseError

        job = self._bucket.job
        start = part * self._part_bytes
        end = min(start + self._part_bytes, self._object.size_bytes)
        for left in reversed(range(job.spec.tries)):
            at = start
            try:
                for piece in self._bucket.read(self._object.key, start, end, self._object, self._version):
                    job.check()
                    if self._halted.is_set():
                        raise Stopped
                    os.pwrite(descriptor, piece, at)
                    at += len(piece)
                why = f"{at - start} bytes came of {end - start}"
            except BaseError as error:
                why = self._bucket.said(error)
            if at == end:
                os.fsync(descriptor)
                return
            if left == 0:
                raise SetupError(f"a range of s3://{self._bucket.name}/{self._object.key} broke off: {why}")

    def _check_size(self) -> None:
        size, most = self._object.size_bytes, self._bucket.job.spec.max_bytes
        if size > most:
            raise SetupError(f"it is {megabytes(size)}, more than storage.max_bytes={most} allows")
        self._into.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._into.parent).free
        if size - len(self._done) * self._part_bytes > free:
            raise SetupError(
                f"the disk is full: {megabytes(size)} are needed, {megabytes(free)} are free in {self._into.parent}; "
                f"free space, or choose another disk"
            )

    def _identity(self) -> list[Any]:
        return [self._object.etag, self._object.size_bytes, self._version, self._part_bytes]

    def _load(self) -> set[int]:
        try:
            state = json.loads(self._state_path.read_bytes())
        except (OSError, ValueError):
            return set()
        same = state.get("identity") == self._identity() and self._into.exists() and self._object.etag is not None
        return set(state["done"]) if same else set()

    def _save(self) -> None:
        temporary = self._state_path.with_name(self._state_path.name + ".tmp")
        temporary.write_text(json.dumps({"identity": self._identity(), "done": sorted(self._done)}), encoding="utf-8")
        temporary.replace(self._state_path)


def endpoints_of(spec: S3Spec) -> tuple[str, ...]:
    """Returns `storage.s3.endpoints`, else those of $S3_ENDPOINT; empty: AWS."""
    told = spec.endpoints or tuple(variable("S3_ENDPOINT").replace(",", " ").split())
    return tuple((place if "://" in place else f"http://{place}").rstrip("/") for place in told)


def _aws_keys_set() -> bool:
    names = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
             "AWS_CONTAINER_CREDENTIALS_FULL_URI")  # fmt: skip
    return any(os.environ.get(name) for name in names)


def _is_down(error: Exception) -> bool:
    """Returns True if another endpoint may help: no answer, too busy, or an internal error."""
    status = re.search(r"status code: (\d+)", str(error))
    return status is None or int(status[1]) >= 500 or int(status[1]) == 429


def _object(meta: Any) -> Object:
    return Object(meta["path"], meta["size"], meta["last_modified"], meta["e_tag"], meta["version"])
