"""The content-addressed cache: files under the CIDv1 of their content, shared by all processes of a user.

    objects/<cid>/…     a file under its name, or the files of a folder
    entries/<cid>.json  its size, and the digest of what lies there
    refs/<key>.json     the entry that a source had when it was fetched
    partial/<key>/      a download in flight, or broken off
    locks/              held (flock) during a fetch, use or deletion; their times are those of the last use

An entry appears under `objects` only as a whole: synced, then renamed. A lock ends with its process.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from engine.core.cid import DAG_PB, cid_of_file, cid_of_json, parse
from engine.core.errors import SetupError

_POLL_S = 0.05
"""The interval at which a process that waits for another process's download looks again, in seconds."""


@dataclass(frozen=True, slots=True)
class Held:
    """An entry of the cache that can't be evicted while this object lives."""

    path: Path
    cid: str
    lease: IO[bytes] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """The facts about one entry."""

    cid: str
    name: str
    source: str
    """Its first source, or its origin if it was made here, in one line."""
    size_bytes: int
    used_s: float
    """The time of its last use, in seconds since 1970."""
    in_use: bool


class Cache:
    """A folder of fetched entries. Making the object does no I/O."""

    def __init__(self, root: Path, max_bytes: int | None = None) -> None:
        """Above `max_bytes` the least recently used entries are deleted, never those in use; None: no limit."""
        self.root = root
        self._max_bytes = max_bytes
        self._objects, self._entries = root / "objects", root / "entries"
        self._refs, self._partial, self._locks = root / "refs", root / "partial", root / "locks"

    # -- using --------------------------------------------------------------------------------------------------

    def use(self, cid: str, name: str | None = None) -> Held | None:
        """Returns the entry with this content id, a file also under another name; None if it is missing or damaged."""
        known = self._read(self._entries / f"{cid}.json")
        if known is None or "kind" not in known:
            return None
        lease = self._lease(cid)
        folder = self._objects / cid
        path = folder / known["name"] if known["kind"] == "file" else folder
        if (
            lease is None
            or not path.exists()
            or (known["kind"] == "file" and path.stat().st_size != known["size_bytes"])
        ):
            return None
        if known["kind"] == "file" and name and name != known["name"]:
            path = self._under_name(path, name)
        return Held(path, cid, lease)

    def lookup(self, key: str) -> Held | None:
        """Returns the entry that the source with this key had when it was fetched; None if there was none, or it is
        gone."""
        ref = self._read(self._refs / f"{key}.json")
        return None if ref is None else self.use(ref["cid"], ref.get("name"))

    # -- fetching -----------------------------------------------------------------------------------------------

    @contextmanager
    def fetching(self, key: str, check: Callable[[], None], waiting: Callable[[], None]) -> Iterator[Path]:
        """Yields the folder for a download, with the files of an earlier one. One process at a time: others wait, and
        call `check` meanwhile, which may raise; `waiting` is called once when a wait begins."""
        self._locks.mkdir(parents=True, exist_ok=True)
        with (self._locks / f"{key}.fetch").open("ab") as lock:
            told = False
            while not _try_lock(lock, fcntl.LOCK_EX):
                if not told:
                    waiting()
                    told = True
                check()
                time.sleep(_POLL_S)
            folder = self._partial / key
            folder.mkdir(parents=True, exist_ok=True)
            yield folder

    def once(
        self,
        key: str,
        source: str,
        make: Callable[[Path], tuple[Path, str, str]],
        check: Callable[[], None],
        waiting: Callable[[], None],
        again: bool = False,
    ) -> Held:
        """Returns the entry of `source` with this key, made by one process for all; with `again` even if it is here.

        `make` gets the folder of `fetching` and returns the finished file or folder, its content id and its name.
        Raises OSError, SetupError, and what `make` and `check` raise.
        """
        held = None if again else self.lookup(key)
        if held is not None:
            return held
        with self.fetching(key, check, waiting) as folder:
            held = None if again else self.lookup(key)
            if held is None:
                made, cid, name = make(folder)
                held = self.keep(made, cid, name, source, replace=again)
                self.refer(key, held, source)
        return held

    def keep(self, made: Path, cid: str, name: str, source: str, replace: bool = False) -> Held:
        """Moves a finished file or folder in, and makes room for it. The caller has verified that it is `cid`.

        An existing entry is kept, unless it is damaged; with `replace` only while it is in use.
        """
        self._locks.mkdir(parents=True, exist_ok=True)
        (self._locks / f"{cid}.lock").touch()
        file_name = name if made.is_file() else None
        with (self._locks / f"{cid}.keep").open("ab") as keeper:
            fcntl.flock(keeper, fcntl.LOCK_EX)
            held = None if replace else self.use(cid, file_name)
            if held is None and self._delete(cid):
                lease = self._lease(cid)  # so that it is not evicted before it is used
                self._move_in(made, cid, name, source)
                held = self.use(cid, file_name)
                if lease is not None:
                    lease.close()
            held = held or self.use(cid, file_name)
        if held is None:
            raise SetupError(f"{cid} is broken in {self.root}, and another process uses it; end that, then fetch again")
        self._evict(self._max_bytes)
        return held

    def _move_in(self, made: Path, cid: str, name: str, source: str) -> None:
        is_file = made.is_file()
        digest = cid
        if parse(cid).codec == DAG_PB:  # IPFS's tree of blocks, of which only the file itself is left
            digest = cid_of_file(made) if is_file else tree_cid(made)
        size = sum(path.stat().st_size for path in ([made] if is_file else _files(made)))
        _sync(made)
        record = {"kind": "file" if is_file else "folder", "name": name, "source": source}
        self._write(self._entries / f"{cid}.json", {**record, "size_bytes": size, "digest": digest})
        self._objects.mkdir(parents=True, exist_ok=True)
        if is_file:
            whole = made.parent / f".{name}.whole"
            shutil.rmtree(whole, ignore_errors=True)
            whole.mkdir()
            made.replace(whole / name)
            made = whole
        made.rename(self._objects / cid)
        _sync_folder(self._objects)

    def refer(self, key: str, held: Held, source: str) -> None:
        """Records the entry of a source, and deletes the rest of the download."""
        name = held.path.name if held.path.is_file() else None
        self._write(self._refs / f"{key}.json", {"source": source, "cid": held.cid, "name": name})
        shutil.rmtree(self._partial / key, ignore_errors=True)

    # -- looking after ------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """Returns all entries, the most recently used first."""
        found = []
        for path in self._entries.glob("*.json") if self._entries.is_dir() else ():
            known, lock = self._read(path), self._locks / f"{path.stem}.lock"
            if known is not None and (self._objects / path.stem).exists() and lock.exists():
                used = lock.stat().st_mtime
                found.append(
                    Entry(path.stem, known["name"], known["source"], known["size_bytes"], used, self._busy(path.stem))
                )
        return sorted(found, key=lambda entry: -entry.used_s)

    def verify(self, cid: str) -> bool:
        """Returns True if the bytes on the disk are unchanged."""
        known = self._read(self._entries / f"{cid}.json")
        held = self.use(cid)
        if known is None or held is None:
            return False
        digest: str = cid_of_file(held.path) if held.path.is_file() else tree_cid(held.path)
        return digest == str(known["digest"])

    def remove(self, cid: str) -> bool:
        """Deletes an entry; False when it is in use."""
        return self._delete(cid)

    def prune(self, max_bytes: int | None = None) -> list[Entry]:
        """Deletes leftovers of broken-off downloads and deletions, and entries above the limit; returns the latter."""
        for folder in self._partial.glob("*") if self._partial.is_dir() else ():
            with (self._locks / f"{folder.name}.fetch").open("ab") as lock:
                if _try_lock(lock, fcntl.LOCK_EX):
                    shutil.rmtree(folder, ignore_errors=True)
        for folder in self._objects.glob("*") if self._objects.is_dir() else ():
            if not (self._entries / f"{folder.name}.json").exists():
                self._delete(folder.name)  # a process was killed while it deleted or moved
        return self._evict(self._max_bytes if max_bytes is None else max_bytes)

    # -- inside -------------------------------------------------------------------------------------------------

    def _evict(self, max_bytes: int | None) -> list[Entry]:
        if max_bytes is None:
            return []
        entries = self.entries()
        total, gone = sum(entry.size_bytes for entry in entries), []
        for entry in reversed(entries):
            if total <= max_bytes:
                break
            if self._delete(entry.cid):
                total -= entry.size_bytes
                gone.append(entry)
        return gone

    def _delete(self, cid: str) -> bool:
        lock = self._locks / f"{cid}.lock"
        if not lock.exists():
            return False
        with lock.open("rb") as stream:
            if not _try_lock(stream, fcntl.LOCK_EX):
                return False
            (self._entries / f"{cid}.json").unlink(missing_ok=True)
            shutil.rmtree(self._objects / cid, ignore_errors=True)
            return True

    def _busy(self, cid: str) -> bool:
        with (self._locks / f"{cid}.lock").open("rb") as stream:
            return not _try_lock(stream, fcntl.LOCK_EX)

    def _lease(self, cid: str) -> IO[bytes] | None:
        """Takes a shared lock on an entry, and records its use."""
        path = self._locks / f"{cid}.lock"
        try:
            stream = path.open("rb")
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(stream, fcntl.LOCK_SH)
            os.utime(path)
        except PermissionError:
            pass  # a cache of another user, or a read-only one, works all the same
        except OSError as error:
            if error.errno != errno.EROFS:
                stream.close()
                raise
        return stream

    def _under_name(self, path: Path, name: str) -> Path:
        """Returns the same file under the requested name: runtimes tell a format by the suffix."""
        other = path.with_name(name)
        try:
            if not other.exists():
                os.link(path, other)
            return other
        except OSError:
            return path  # no hard links here, or a read-only cache

    @staticmethod
    def _read(path: Path) -> dict[str, Any] | None:
        try:
            found = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    @staticmethod
    def _write(path: Path, record: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(record, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)


def tree_cid(folder: Path) -> str:
    """Returns the content id of a folder: of the JSON object of its files' paths and their content ids."""
    return cid_of_json({str(path.relative_to(folder)): cid_of_file(path) for path in _files(folder)})


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _try_lock(stream: IO[bytes], how: int) -> bool:
    try:
        fcntl.flock(stream, how | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise SetupError(
                "the cache is on a file system without locks; set storage.cache_dir to a local one"
            ) from error
        raise


def _sync(made: Path) -> None:
    folders = {made.parent} if made.is_file() else {made, *(path for path in made.rglob("*") if path.is_dir())}
    for path in [made] if made.is_file() else _files(made):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    for folder in folders:
        _sync_folder(folder)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
