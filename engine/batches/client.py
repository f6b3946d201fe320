"""Makes a batch dialect's calls, with a key, through the executor of the same provider."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

from engine.core.errors import ConfigError, InferenceError, Malformed
from engine.core.registry import BATCH_DIALECTS
from engine.dialects.batch import BatchCall, BatchDialect, Heard, JobRequest, JobView, Member, file_pending
from engine.executors.remote import RemoteExecutor
from engine.executors.services import Services
from engine.schemas.provider import BatchApiSpec, RemoteProviderSpec
from engine.transports.transport import HttpReply

RESULT_BYTES = 8 * 1024**3
"""Largest file of results: 50,000 long vectors take 2 GB."""
_LISTED_PAGES = 100
"""Pages of the provider's list that are searched at most."""


class BatchClient:
    """One target's batch API. Every error is an InferenceError without the key that it may echo."""

    def __init__(self, executor: RemoteExecutor, services: Services) -> None:
        """Raises ConfigError for a provider that has no batch API."""
        provider = executor.target.provider
        assert isinstance(provider, RemoteProviderSpec)
        self.spec = batch_api(provider)
        self.executor = executor
        self.keys: tuple[str | None, ...] = executor.keys or (None,)
        self.dialect: BatchDialect = BATCH_DIALECTS.get(self.spec.api)(executor.dialect)
        self._base = provider.base_url.rstrip("/")
        # Connections of its own: a file of results is larger than any reply to a live call may be.
        limit = max(provider.transport.max_body_bytes, RESULT_BYTES)
        self._transport = services.transport(provider.transport.model_copy(update={"max_body_bytes": limit}))
        self._line_bytes = provider.transport.max_body_bytes

    async def upload(self, job: JobRequest, key: str | None) -> str | None:
        """Uploads the requests, where that is a step of its own; returns the id of their file."""
        steps = self.dialect.upload(job)
        try:
            call = next(steps)
            while True:
                call = steps.send(await self._hear(call, key))
        except StopIteration as end:
            file: str | None = end.value
            return file
        except InferenceError as error:
            raise self.executor.redacted(error, key) from error

    async def create(self, job: JobRequest, file: str | None, key: str | None) -> JobView:
        return await self._view(self.dialect.create(job, file), key)

    async def file_pending(self, file: str, key: str | None) -> bool | None:
        """True while the provider works on an uploaded file; None if it does not report that."""
        call = self.dialect.file(file)
        return None if call is None else file_pending(await self._hear(call, key))

    async def poll(self, id: str, key: str | None) -> JobView:
        return await self._view(self.dialect.poll(id), key)

    async def cancel(self, id: str, key: str | None) -> None:
        """Cancels the job; rows answered by then are kept."""
        heard = await self._hear(self.dialect.cancel(id), key)
        if not 200 <= heard.status < 300:
            raise self.executor.redacted(self.dialect.live.error(heard.status, heard.headers, heard.content), key)

    async def listed(self, key: str | None, since_s: float) -> list[JobView]:
        """Returns the key's jobs that were created after `since_s`, in seconds since 1970, the newest first."""
        found: list[JobView] = []
        cursor: str | None = None
        for _ in range(_LISTED_PAGES):
            heard = await self._hear(self.dialect.listing(cursor), key)
            try:
                views, cursor = self.dialect.listed(heard)
            except InferenceError as error:
                raise self.executor.redacted(error, key) from error
            found += [view for view in views if view.created_s is None or view.created_s >= since_s]
            old = any(view.created_s is not None and view.created_s < since_s for view in views)
            if cursor is None or old:
                return found
        return found

    async def members(self, view: JobView, key: str | None) -> AsyncIterator[Member]:
        """Yields the results of a job, a line at a time, in the file's order."""
        place = 0
        for line in view.inline:
            yield self._read(line, place, key)
            place += 1
        for file in view.files:
            async for line in self._lines(self.dialect.results(view, file), key):
                yield self._read(line, place, key)
                place += 1

    def _read(self, line: bytes, place: int, key: str | None) -> Member:
        try:
            member = self.dialect.read(line, place)
        except Malformed as error:  # concerns this line only
            member = Member(None, error=error)
        if member.error is not None:
            self.executor.redacted(member.error, key)
        return member

    async def _lines(self, call: BatchCall, key: str | None) -> AsyncIterator[bytes]:
        reply = await self._open(call, key)
        try:
            if reply.status != 200:
                error = self.dialect.live.error(reply.status, reply.headers, await reply.read())
                raise self.executor.redacted(error, key)
            rest: list[bytes] = []
            size = 0
            async for piece in reply.chunks():
                head, *tail = piece.split(b"\n")
                rest.append(head)
                size += len(head)
                if size > self._line_bytes:
                    raise Malformed(
                        f"a line of the results is larger than {self._line_bytes} bytes "
                        "(provider.transport.max_body_bytes)"
                    )
                if tail:
                    for line in (b"".join(rest), *tail[:-1]):
                        if line.strip():
                            yield line
                    rest, size = [tail[-1]], len(tail[-1])
            if last := b"".join(rest).strip():
                yield last
        finally:
            await reply.aclose()

    async def _view(self, call: BatchCall, key: str | None) -> JobView:
        heard = await self._hear(call, key)
        try:
            view = self.dialect.view(heard)
        except InferenceError as error:
            raise self.executor.redacted(error, key) from error
        for failure in (view.error, *view.bad_lines.values()):
            if failure is not None:
                self.executor.redacted(failure, key)
        return view

    async def _hear(self, call: BatchCall, key: str | None) -> Heard:
        reply = await self._open(call, key)
        return Heard(reply.status, reply.headers, await reply.read())

    async def _open(self, call: BatchCall, key: str | None) -> HttpReply:
        return await self.executor.exchange(call, key, self._address(call), self._transport)

    def _address(self, call: BatchCall) -> str:
        if call.base == "api":
            return self._base + call.path
        scheme, host, path, _, _ = urlsplit(self._base)
        prefix = "" if call.base == "origin" else f"/{call.base}{path}"
        return urlunsplit((scheme, host, "", "", "")) + prefix + call.path


def batch_api(provider: RemoteProviderSpec) -> BatchApiSpec:
    """Returns the provider's batch API. Raises ConfigError if none is known."""
    if provider.batch is None:
        raise ConfigError(
            f"policy.batch.strategy: provider={provider.name} has no batch API that is known; "
            "use policy/batch=default, or describe it with provider.batch.api=openai if it has OpenAI's"
        )
    return provider.batch
