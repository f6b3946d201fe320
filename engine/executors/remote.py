"""Calls a provider over HTTP: a dialect encodes the call, a transport sends it with a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from engine.core.errors import (
    ConfigError,
    InferenceError,
    InvalidRequest,
    retyped,
)
from engine.core.registry import DIALECTS
from engine.core.request import Attempt, Context, Request, Result
from engine.core.server_info import ServerInfo
from engine.core.stream import ChunkStream
from engine.core.task_table import TASKS
from engine.credentials.masking import StreamMask, mask_bytes
from engine.dialects.common.boundary import DEFECTS
from engine.dialects.discovery import Discovery, DiscoveryReply
from engine.executors.answer_reader import AnswerReader, is_success
from engine.executors.call_keys import CallKeys
from engine.executors.dialect_options import dialect_of, pulling, set_stream_options
from engine.executors.discovery import ServerDiscovery
from engine.executors.field_map import FieldMaps
from engine.executors.model_pull import pull
from engine.executors.reply_stream import MaskedReply, ReplyChunks, whole_transcript
from engine.executors.services import Services
from engine.executors.target_check import TargetCheck
from engine.media.fields import may_hold_media, read_media
from engine.media.reader import MediaReader
from engine.schemas.provider import RemoteProviderSpec
from engine.tasks import splitting
from engine.transports.download import download
from engine.transports.proxy import check_proxy
from engine.transports.transport import HttpCall, HttpReply, Transport

if TYPE_CHECKING:
    from engine.dialects.client import Dialect, Reply, WireCall
    from engine.schemas import TargetSpec


class RemoteExecutor:
    """A model behind an HTTP API."""

    def __init__(self, target: TargetSpec, services: Services) -> None:
        provider = target.provider
        if not isinstance(provider, RemoteProviderSpec):
            raise ConfigError(f"provider.kind: {provider.kind!r} is not remote")
        self.target = target
        self.base_urls = tuple(_checked_url(url) for url in (provider.base_url, *provider.endpoints))
        self._model = target.model_id
        self._drop_unsupported = provider.drop_unsupported
        self._dialect: Dialect = DIALECTS.get(dialect_of(provider))(services.clock.wall)
        set_stream_options(provider, self._dialect)
        self._fields = FieldMaps(provider)
        self._pulling = pulling(provider, self._dialect)
        self.server_info = ServerInfo()
        self._inquiry = (
            ServerDiscovery(self._dialect, self._model, self.server_info)
            if isinstance(self._dialect, Discovery)
            else None
        )
        self._answers = AnswerReader(self._dialect, self._model)
        self._services = services
        for url in self.base_urls:
            check_proxy(url, provider.transport)
        self._transport: Transport = services.transport(provider.transport)
        self.call_keys = CallKeys(provider, self._dialect)
        self.keys = self.call_keys.shared
        self.tasks: frozenset[str] = self._dialect.tasks

    @property
    def dialect(self) -> Dialect:
        """Returns what it speaks."""
        return self._dialect

    async def start(self) -> None:
        """Has the server describe itself, where its wire can, and has it fetch its model where that is configured;
        connections are made by the calls. Raises SetupError."""
        if self._inquiry is not None:
            key = self.call_keys.of(None)
            await self._inquiry.begin(partial(self._ask, key))
            if self.server_info.missing and self._pulling is not None:
                await pull(self._pulling, self._model, partial(self.exchange, key=key), self._services.notify)
                self._inquiry.done = False
                await self._inquiry.begin(partial(self._ask, key))

    async def aclose(self) -> None:
        """Nothing to free: the transport belongs to the services."""

    async def __call__(self, request: Request, context: Context) -> Result:
        """The provider's reply, or its chunks when `context.stream` is set. Raises InferenceError."""
        attempt = context.attempt
        key = self.call_keys.of(attempt)
        stream = context.stream
        if self._inquiry is not None and not self._inquiry.done:
            await self._inquiry.learn(partial(self._ask, key))
        if self.server_info.max_inputs is not None:
            parts = splitting.split(request, self.server_info.max_inputs)
            if len(parts) > 1:
                # One after the other: together they are one attempt, which holds one permit.
                return splitting.join(request, parts, [await self(part, context) for part in parts])
        if may_hold_media(request.task, request.body):
            request = await self.with_media(request)
        wire = self.wire(request, context)
        headers = self.call_keys.headers[key][stream]
        if wire.headers:
            headers = {**headers, **wire.headers}
        reply: HttpReply | None = None
        try:
            address = self.base_urls[0]
            if attempt is not None:
                address, attempt.sent = self.base_urls[attempt.place], True
            reply = await self._transport.open(
                HttpCall(wire.method, address + wire.path, headers, wire.content or None)
            )
            if attempt is not None:
                attempt.status = reply.status
                attempt.hints = partial(self._dialect.rate_hints, reply.headers)
            if stream:
                return await self._streamed(request, reply, attempt, key)
            content = mask_bytes(await reply.read(), self.call_keys.echoes[key])
            answer = self.answer(request, reply.status, reply.headers, content)
        except InferenceError as error:
            failure = error
            if error.kind == "auth" and reply is not None and _is_page(reply.headers):
                # A firewall's or a proxy's page is about what was sent, and never about the key.
                failure = retyped(error, InvalidRequest)
            self.call_keys.settle(failure, attempt, key)
            if failure is error:
                raise
            raise failure from error
        for warning in answer.warnings:
            context.warn(warning)
        if attempt is not None:
            attempt.provider_request_id = self.call_keys.without_key(answer.provider_request_id, key)
        return Result(request.id or "", answer.body, usage=answer.usage, engine=context.record)

    async def with_media(self, request: Request) -> Request:
        """The request with the bytes of the images, audio and documents that its body names. Raises
        InvalidRequest."""
        access = self._services.media if request.media is None else request.media
        body = await read_media(request.task, request.body, MediaReader(access, partial(download, self._transport)))
        return request if body is request.body else replace(request, body=body)

    def wire(self, request: Request, context: Context) -> WireCall:
        """The request as this provider needs it; what gets lost on the way is warned about. Raises InvalidRequest."""
        body = self._filled(request)
        # Which model a request may name is decided further out; here the target's fills the gap.
        model = body.get("model") or self._model
        changes: list[str] = []
        try:
            fields = self._fields.of(model)
            if fields is not None:
                body, changes = fields.apply(body, self._drop_unsupported)
            wire = self._dialect.encode(
                request.task,
                body,
                model=model,
                stream=context.stream,
                drop_unsupported=self._drop_unsupported,
            )
        except DEFECTS as error:
            raise InvalidRequest(f"body: a field has another type than its wire takes ({error})") from error
        for warning in (*changes, *wire.warnings):
            context.warn(warning)
        return wire

    def answer(self, request: Request, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        """Returns the canonical reply to a request. Raises an InferenceError."""
        return self._answers.read(request.task, self._filled(request), status, headers, content)

    async def exchange(
        self, wire: WireCall, key: str | None, url: str | None = None, transport: Transport | None = None
    ) -> HttpReply:
        """A call of the provider's API that is not an inference: its reply, whatever the status. `url` in place of the
        one that the path makes with provider.base_url. Raises InferenceError."""
        headers = {**self.call_keys.headers[key][False], **wire.headers}
        address = url or self.base_urls[0] + wire.path
        reply = await (transport or self._transport).open(HttpCall(wire.method, address, headers, wire.content or None))
        return MaskedReply(reply, self.call_keys.echoes[key])

    def redacted(self, error: InferenceError, key: str | None) -> InferenceError:
        """An error of such a call, without the key that it may echo."""
        self.call_keys.settle(error, None, key)
        return error

    async def check(self) -> str:
        """Reaches the target with each key; returns in one line what it found. Raises EngineError if no key works."""
        return await TargetCheck(self).lines()

    async def learn(self, key: str | None) -> None:
        """Has the server describe itself, if its wire can and it has not yet. Raises ConnectFailed."""
        if self._inquiry is not None:
            await self._inquiry.learn(partial(self._ask, key))

    async def _ask(self, key: str | None, wire: WireCall) -> DiscoveryReply:
        reply = await self.exchange(wire, key)
        return DiscoveryReply(reply.status, await reply.read())

    async def _streamed(self, request: Request, reply: HttpReply, attempt: Attempt | None, key: str | None) -> Result:
        headers = reply.headers
        if attempt is not None:
            attempt.provider_request_id = self.call_keys.without_key(self._dialect.request_id(headers), key)
        good = is_success(reply.status)
        if not good or not self._dialect.is_stream(headers):
            content = mask_bytes(await reply.read(), self.call_keys.echoes[key])
            if good and TASKS[request.task].files == ("file",):
                # A model that can't stream takes no notice of the wish (OpenAI's whisper-1).
                answer = self._dialect.decode(request.task, 200, headers, content)
                return Result(request.id or "", stream=ChunkStream(whole_transcript(answer)))
            raise self._dialect.error(reply.status, headers, content)
        options = request.body.get("stream_options")
        asked = isinstance(options, dict) and bool(options.get("include_usage"))
        decoder = self._dialect.stream_decoder(request.task, show_usage=asked)
        settle = partial(self.call_keys.settle, attempt=attempt, key=key)
        chunks = ReplyChunks(reply, decoder, StreamMask(self.call_keys.echoes[key]), settle)
        return Result(request.id or "", stream=ChunkStream(chunks))

    def _filled(self, request: Request) -> dict[str, Any]:
        """The request's body, with what its server is known to need where it says nothing."""
        if not self.server_info.defaults or request.body.get("model") not in (None, self._model):
            return request.body
        return {**self.server_info.defaults, **request.body}


def _is_page(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").lstrip().lower().startswith("text/html")


def _checked_url(url: str) -> str:
    """`url` without its last slash. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
        parts = urlsplit("")
    if not good:
        raise ConfigError(f"provider.base_url: {url!r} is not an address; expected such as https://api.openai.com/v1")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError(
            "provider.base_url: no user name, query or fragment belongs here; a key is named in provider.credential"
        )
    return url.rstrip("/")
