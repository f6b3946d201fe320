"""Checks one remote target with each of its keys, for `engine check`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from engine.core.errors import InferenceError, InvalidRequest
from engine.core.request import Context, EngineRecord, Request
from engine.core.server_info import ServerInfo
from engine.executors.call_keys import CallKeys
from engine.executors.key_check import KeyCheck, Listing, is_missing, list_models, trial_for
from engine.transports.transport import HttpReply, origin

if TYPE_CHECKING:
    from engine.dialects.client import Dialect, Reply, WireCall
    from engine.schemas import TargetSpec


class Checked(Protocol):
    """An executor with an HTTP API."""

    target: TargetSpec
    tasks: frozenset[str]
    server_info: ServerInfo
    base_urls: tuple[str, ...]
    call_keys: CallKeys

    @property
    def dialect(self) -> Dialect: ...
    def wire(self, request: Request, context: Context) -> WireCall: ...
    def answer(self, request: Request, status: int, headers: Mapping[str, str], content: bytes) -> Reply: ...
    def redacted(self, error: InferenceError, key: str | None) -> InferenceError: ...
    async def exchange(self, wire: WireCall, key: str | None, url: str | None = None) -> HttpReply: ...
    async def learn(self, key: str | None) -> None: ...


class TargetCheck:
    """The checks of one executor."""

    def __init__(self, executor: Checked) -> None:
        self._executor = executor

    async def lines(self) -> str:
        """Returns in one line what was found. Raises the first key's error if no key works."""
        executor = self._executor
        checks = await self.by_key()
        errors = [each.error for each in checks if each.error is not None]
        if len(errors) == len(checks):
            raise errors[0]
        found = [executor.server_info.found] if executor.server_info.found else []
        return f"{origin(executor.base_urls[0])}: {'; '.join([each.line for each in checks] + found)}"

    async def by_key(self, any_model: bool = False) -> list[KeyCheck]:
        """Lists the models with each key, and with the first one at each further endpoint.

        Tries the operation where the list does not show that the model answers. `any_model`: only the keys are checked.
        """
        calls = self._executor.call_keys.by_address(self._executor.base_urls)
        return [await self._one(url, key, any_model) for url, key in calls]

    async def _one(self, base_url: str, key: str | None, any_model: bool) -> KeyCheck:
        executor = self._executor
        endpoint, place = origin(base_url), executor.call_keys.place(key)

        async def call(wire: WireCall) -> HttpReply:
            return await executor.exchange(wire, key, base_url + wire.path)

        try:
            listing = await list_models(executor.dialect, call, None if any_model else executor.target.model_id)
            await executor.learn(key)
            if any_model:
                return KeyCheck(endpoint, key, place, listing.found, listing.limits, verified=listing.has is True)
            verified, found = await self._tried(listing, call)
        except InferenceError as error:
            executor.redacted(error, key)
            if is_missing(error.status):
                error.message += await self._advice(base_url, key)
            return KeyCheck(endpoint, key, place, error.message, None, error)
        return KeyCheck(endpoint, key, place, found, listing.limits, verified=verified)

    async def _tried(self, listing: Listing, call: Callable[[WireCall], Awaitable[HttpReply]]) -> tuple[bool, str]:
        """Returns True if the model answers, and what was found. Raises InferenceError if it does not."""
        executor = self._executor
        model = executor.target.model_id
        if executor.server_info.missing and not listing.has:
            raise InvalidRequest(f"the server has no model {model!r}: {listing.found}")
        trial = trial_for(executor.target.model.tasks, executor.tasks)
        if trial is None:
            return listing.has is True or bool(executor.server_info.found), listing.found
        request = Request(trial.task, {**trial.body, "model": model})
        wire = executor.wire(request, Context(EngineRecord(), 0.0))
        if listing.has:  # an empty body costs nothing, and shows that the wire is spoken here
            empty = await call(replace(wire, content=b"{}"))
            await empty.read()
            if not is_missing(empty.status):
                return True, listing.found
        reply = await call(wire)
        try:
            executor.answer(request, reply.status, reply.headers, await reply.read())
        except InferenceError as error:
            if error.kind == "throttled" or (error.kind == "invalid_request" and not is_missing(reply.status)):
                return False, f"{listing.found}; a trial ({trial.task}) was not answered: {error.message}"
            error.message = f"{listing.found}; a trial ({trial.task}) failed: {error.message}"
            error.status = reply.status
            raise
        return True, f"{listing.found}; a trial ({trial.task}) was answered"

    async def _advice(self, base_url: str, key: str | None) -> str:
        """Returns the advice to add the version to the address, if the server has its list of models there."""
        if urlsplit(base_url).path.strip("/"):
            return ""
        url = f"{base_url.rstrip('/')}/v1"
        probe = self._executor.dialect.probe()
        with suppress(InferenceError):
            reply = await self._executor.exchange(probe, key, url + probe.path)
            if reply.status == 200 and self._executor.dialect.models(await reply.read()):
                return f"; {url} has a list of models. Fix: provider.base_url={url}"
        return ""
