"""HTTP for artifacts: redirects without credentials, downloads that can be resumed.

Sources: RFC 9110 (HTTP Semantics) sections 13.1.5 (If-Range), 14 (Range Requests), 15.4 (Redirection).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import backoff

from engine.artifacts.job import Job, Progress, megabytes
from engine.core.errors import InferenceError, SetupError
from engine.core.registry import TRANSPORTS
from engine.transports.transport import HttpCall, HttpReply, Transport, origin

MAX_REDIRECTS = 8
SYNC_BYTES = 8 * 1024 * 1024
"""Bytes between two syncs; after a power cut a download continues from the last one."""
MAX_HINT_S = 60.0
"""The longest pause that a server's hint can cause, in seconds."""
_AGAIN = (408, 425, 429, 500, 502, 503, 504)


class Again(Exception):
    """Another try may succeed. `retry_after_s` is the server's hint."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Web:
    """An HTTP client for one fetch. Used on one event loop, as an async context manager."""

    def __init__(self, job: Job) -> None:
        spec = job.spec.transport
        self._job = job
        self._transport: Transport = TRANSPORTS.get(spec.kind)(spec)

    async def __aenter__(self) -> Web:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.aclose()

    async def get(self, url: str, headers: Mapping[str, str], private: Mapping[str, str] | None = None) -> HttpReply:
        """Returns the reply to a GET, redirects followed; `private` headers go to the URL's own origin only.

        Raises Again (no connection, no reply), SetupError (a redirect that is refused).
        """
        home, at = origin(url), url
        for _ in range(MAX_REDIRECTS + 1):
            own = private if private and origin(at) == home else {}
            try:
                reply = await self._transport.open(HttpCall("GET", at, {**headers, **own}))
            except InferenceError as error:
                raise Again(reason(error)) from error
            if reply.status not in (301, 302, 303, 307, 308):
                return reply
            target = urljoin(at, reply.headers.get("location") or "")
            await reply.aclose()
            if origin(target) != home:
                private = None  # not even if a later redirect comes back
            if urlsplit(target).scheme not in ("http", "https"):
                raise SetupError(f"{origin(at)} redirects to something that is not HTTP; check the address")
            if urlsplit(at).scheme == "https" and urlsplit(target).scheme != "https":
                raise SetupError(f"{origin(at)} redirects from https to http, which is refused")
            at = target
        raise SetupError(f"{origin(url)} redirects more than {MAX_REDIRECTS} times")

    async def download(
        self, url: str, into: Path, sha256: str | None, private: Mapping[str, str], progress: Progress
    ) -> str:
        """Fetches a file into `into`, continuing an earlier download, and returns its sha256 (hexadecimal).

        Breaks are retried, up to `storage.tries` times without a byte of progress. Raises SetupError.
        """
        download = _Download(self, self._job, url, into, sha256, private, progress)
        while True:
            await download.whole()
            found = await asyncio.to_thread(_digest, into)
            if sha256 is None or found == sha256:
                download.forget()
                return found
            download.discard()
            if not download.resumed:
                raise SetupError(f"its sha256 is {found}, expected {sha256}: it was not used")
            download = _Download(self, self._job, url, into, sha256, private, progress)  # its first part was old


class _Download:
    """One download of a file, and its state: kept next to the file, so that another process can continue."""

    def __init__(
        self,
        web: Web,
        job: Job,
        url: str,
        into: Path,
        sha256: str | None,
        private: Mapping[str, str],
        progress: Progress,
    ) -> None:
        self._web, self._job, self._url, self._into = web, job, url, into
        self._trusted = sha256 is not None
        self._private = private
        self._progress = progress
        self._state_path = into.with_name(into.name + ".state")
        self._state: dict[str, Any] = self._load()
        self._have = self._begin()
        self.resumed = self._have > 0

    def forget(self) -> None:
        """Deletes the state: the file is complete."""
        self._state_path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Deletes the file as well: it is not the requested one."""
        self.forget()
        self._into.unlink(missing_ok=True)

    async def whole(self) -> None:
        """Fetches until the file is complete. Raises SetupError."""
        failures, pauses = 0, delays()
        while True:
            before = self._have
            try:
                return await self._once()
            except Again as error:
                if self._have > before:
                    failures, pauses = 0, delays()
                failures += 1
                if failures >= self._job.spec.tries:
                    here = f"; {megabytes(self._have)} are here and need not be fetched again" if self._have else ""
                    raise SetupError(f"{error} ({failures} tries, storage.tries){here}") from error
                pause = self._job.rng.uniform(0.0, next(pauses))
                await asyncio.sleep(max(pause, min(error.retry_after_s or 0.0, MAX_HINT_S)))

    def _load(self) -> dict[str, Any]:
        try:
            found = json.loads(self._state_path.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _begin(self) -> int:
        """Returns how many bytes on the disk can be continued."""
        if not self._into.exists():
            return 0
        size = self._into.stat().st_size
        # Without a digest at the end only synced bytes count; a power cut may have torn the rest.
        return size if self._trusted else min(size, int(self._state.get("synced", 0)))

    async def _once(self) -> None:
        """Sends one request. Raises Again, SetupError."""
        headers = {"accept-encoding": "identity"}
        etag = self._state.get("etag")
        if self._have and (etag or self._trusted):
            headers["range"] = f"bytes={self._have}-"
            if etag:
                headers["if-range"] = etag
        else:
            self._have = 0
        reply = await self._web.get(self._url, headers, self._private)
        try:
            total = self._place(reply)
            if total is not None and total == self._have and reply.status == 416:
                return
            self._check_size(total)
            await self._write(reply, total)
        finally:
            await reply.aclose()

    def _place(self, reply: HttpReply) -> int | None:
        """Sets the position of the body, and returns the file's size if it is known. Raises Again, SetupError."""
        where, length = origin(self._url), reply.headers.get("content-length")
        said = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", reply.headers.get("content-range") or "")
        total = int(said[2]) if said and said[2] != "*" else None
        if reply.status == 206:
            if said is None or said[1] is None or int(said[1]) != self._have:
                self._have = 0
                raise Again(f"{where} sent another range than the requested one")
            return total
        if reply.status == 200:
            if reply.headers.get("content-encoding", "identity") != "identity":
                length = None
            self._have = 0
            tag = reply.headers.get("etag") or ""
            self._state = {"etag": tag} if tag.startswith('"') else {}
            return int(length) if length and length.isdigit() else None
        if reply.status == 416 and self._have:
            if total != self._have:
                self._have = 0
                raise Again(f"{where} holds another file than before")
            return total
        raise refusal(reply, where)

    def _check_size(self, total: int | None) -> None:
        most = self._job.spec.max_bytes
        if total is not None and total > most:
            raise SetupError(f"it is {megabytes(total)}, more than storage.max_bytes={most} allows")
        free = shutil.disk_usage(self._into.parent).free
        if total is not None and total - self._have > free:
            raise SetupError(
                f"the disk is full: {megabytes(total - self._have)} are needed and {megabytes(free)} are free in "
                f"{self._into.parent}; free space, or set storage.cache_dir to another disk"
            )
        self._progress.total_bytes = total

    async def _write(self, reply: HttpReply, total: int | None) -> None:
        most, since_sync = self._job.spec.max_bytes, 0
        with self._into.open("r+b" if self._into.exists() else "w+b") as file:
            file.truncate(self._have)
            file.seek(self._have)
            self._save(self._have)
            try:
                async for piece in reply.chunks():
                    if self._have + len(piece) > most:
                        raise SetupError(f"it is larger than storage.max_bytes={most} allows")
                    file.write(piece)
                    self._have += len(piece)
                    since_sync += len(piece)
                    if since_sync >= SYNC_BYTES:
                        since_sync = 0
                        self._sync(file)
                    self._progress.at(self._have)
            except InferenceError as error:
                self._sync(file)
                raise Again(reason(error)) from error
            self._sync(file)
        if total is not None and self._have < total:
            raise Again(f"{origin(self._url)}: the connection broke in the middle of the file")
        if total is not None and self._have > total:
            self._have = 0
            raise Again(f"{origin(self._url)} sent more than it had announced")

    def _sync(self, file: Any) -> None:
        file.flush()
        os.fsync(file.fileno())
        self._save(self._have)

    def _save(self, synced: int) -> None:
        self._state["synced"] = synced
        temporary = self._state_path.with_name(self._state_path.name + ".tmp")
        temporary.write_text(json.dumps(self._state), encoding="utf-8")
        temporary.replace(self._state_path)


def refusal(reply: HttpReply, where: str) -> Exception:
    """Returns the error for a status other than success: Again, or SetupError."""
    status = reply.status
    if status in _AGAIN:
        hint = reply.headers.get("retry-after") or ""
        return Again(f"{where} answered HTTP {status}", float(hint) if hint.isdigit() else None)
    if status in (401, 403):
        return SetupError(
            f"{where} refused (HTTP {status}); name a token's variable with token_env, or check the address"
        )
    if status in (404, 410):
        return SetupError(f"{where} has no such file (HTTP {status})")
    return SetupError(f"{where} answered HTTP {status}")


def reason(error: InferenceError) -> str:
    """Returns a transport's error, with the knobs of `storage` in place of a provider's."""
    text = error.message.replace("provider.transport.", "storage.transport.")
    return text.replace("check provider.base_url and storage.transport.proxy", "check the address")


def delays() -> Any:
    """Yields pauses between tries, in seconds: random (full jitter) up to a bound that doubles, up to 30."""
    found = backoff.expo(factor=0.5, max_value=30)
    next(found)  # the generator's first value is for `send`
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
