"""Calls a provider over HTTP: a dialect says what, a transport moves it, a key opens the door."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from engine.core import token_estimate
from engine.core.errors import (
    AuthFailed,
    ConfigError,
    InferenceError,
    Internal,
    InvalidRequest,
    Malformed,
    nearest,
    retyped,
)
from engine.core.registry import DIALECTS
from engine.core.request import Attempt, Context, EngineRecord, Request, Result
from engine.core.server_info import ServerInfo
from engine.core.stream import ChunkStream
from engine.core.task_table import TASKS
from engine.credentials.keys import Key, find_keys
from engine.credentials.masking import StreamMask, mask_bytes, redact
from engine.dialects.common.boundary import DEFECTS, odd_reply
from engine.dialects.common.json_body import mended
from engine.dialects.common.retry_hints import LONGEST_S
from engine.dialects.discovery import Discovery, DiscoveryReply
from engine.executors.dialect_options import dialect_of, pulling, set_stream_options
from engine.executors.discovery import ServerDiscovery
from engine.executors.field_map import FieldMaps
from engine.executors.key_check import KeyCheck, Listing, is_missing, list_models, trial_for
from engine.executors.model_pull import pull
from engine.executors.reply_stream import MaskedReply, ReplyChunks, whole_transcript
from engine.executors.services import Services
from engine.media.fields import may_hold_media, read_media
from engine.media.reader import MediaReader
from engine.schemas.provider import RemoteProviderSpec
from engine.tasks import embedding, finite, rerank, splitting, tensors
from engine.tasks.usage import pieces
from engine.transports.download import download
from engine.transports.proxy import check_proxy
from engine.transports.transport import HttpCall, HttpReply, Transport, origin

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
        self._base_urls = tuple(_checked_url(url) for url in (provider.base_url, *provider.endpoints))
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
        self._services = services
        for url in self._base_urls:
            check_proxy(url, provider.transport)
        self._transport: Transport = services.transport(provider.transport)
        own = _endpoint_keys(provider)
        self._own: tuple[str, ...] = tuple(key.name for key in own)
        """Where each endpoint has a key of its own: these, in the order of the addresses."""
        shared = [] if own else find_keys(provider.credential, provider.name)
        self._found: dict[str, Key] = {key.name: key for key in (*own, *shared)}
        self._headers = self._prepare_headers(provider.headers)
        # How each key would stand in a reply that repeats it.
        self._echoes: dict[str | None, tuple[bytes, ...]] = {None: ()}
        for name, found in self._found.items():
            self._echoes[name] = tuple(form.encode() for form in found.secret.forms())
        self._spelled = {name: found.secret.forms() or (found.secret.reveal(),) for name, found in self._found.items()}
        self.keys: tuple[str, ...] = tuple(key.name for key in shared)
        self.tasks: frozenset[str] = self._dialect.tasks

    @property
    def dialect(self) -> Dialect:
        """What it speaks."""
        return self._dialect

    async def start(self) -> None:
        """Asks the server what it takes, where its wire can say so, and has it fetch its model where that is wanted;
        connections are made by the calls. Raises SetupError."""
        if self._inquiry is not None:
            key = self._key_of(None)
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
        key = self._key_of(attempt)
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
        headers = self._headers[key][stream]
        if wire.headers:
            headers = {**headers, **wire.headers}
        reply: HttpReply | None = None
        try:
            address = self._base_urls[0]
            if attempt is not None:
                address, attempt.sent = self._base_urls[attempt.place], True
            reply = await self._transport.open(
                HttpCall(wire.method, address + wire.path, headers, wire.content or None)
            )
            if attempt is not None:
                attempt.status = reply.status
                attempt.hints = partial(self._dialect.rate_hints, reply.headers)
            if stream:
                return await self._streamed(request, reply, attempt, key)
            content = mask_bytes(await reply.read(), self._echoes[key])
            answer = self.answer(request, reply.status, reply.headers, content)
        except InferenceError as error:
            failure = error
            if error.kind == "auth" and reply is not None and _is_page(reply.headers):
                # A firewall's or a proxy's page is about what was sent, and never about the key.
                failure = retyped(error, InvalidRequest)
            self._settle_error(failure, attempt, key)
            if failure is error:
                raise
            raise failure from error
        for warning in answer.warnings:
            context.warn(warning)
        if attempt is not None:
            attempt.provider_request_id = self._without_key(answer.provider_request_id, key)
        return Result(request.id or "", answer.body, usage=answer.usage, engine=context.record)

    async def with_media(self, request: Request) -> Request:
        """The request with the bytes of the pictures, sounds and documents that its body names. Raises
        InvalidRequest."""
        access = self._services.media if request.media is None else request.media
        body = await read_media(request.task, request.body, MediaReader(access, partial(download, self._transport)))
        return request if body is request.body else replace(request, body=body)

    def wire(self, request: Request, context: Context) -> WireCall:
        """The request as this provider wants it; what gets lost on the way is warned about. Raises InvalidRequest."""
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
        """The canonical reply to a request. What is not strict JSON is read leniently, with a warning, after the strict
        reading failed; each status of success counts as 200. Raises an InferenceError."""
        try:
            return self._answer(request, 200 if is_success(status) else status, headers, content)
        except Malformed as error:
            found = mended(content)
            if found is not None:
                with suppress(Malformed):
                    answer = self._answer(request, 200, headers, found[0])
                    answer.warnings = tuple(f"the reply is not strict JSON: {change}" for change in found[1])
                    return answer
            if is_success(status) and status != 200:
                raise self._dialect.error(status, headers, content) from error
            raise

    def _answer(self, request: Request, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        try:
            return self._read(request, status, headers, content)
        except DEFECTS as error:
            raise odd_reply(error, status, headers, content) from error

    def _read(self, request: Request, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        body = self._filled(request)
        answer = self._dialect.decode(request.task, status, headers, content)
        if not answer.body.get("model"):
            # A server of one model does not name it.
            answer.body["model"] = body.get("model") or self._model
        if request.task == "embedding":
            embedding.check_order(answer.body, body.get("input"))
            finite.check_vectors(answer.body)
            if body.get("encoding_format") == "base64":
                embedding.pack(answer.body)
        elif request.task == "rerank":
            rerank.complete(answer.body, body, body.get("model") or self._model)
        elif request.task == "tensors" and body.get("encoding_format") == "base64":
            tensors.pack(answer.body)
        if answer.usage is not None:
            written = 0 if answer.usage.output_tokens else token_estimate.written_tokens(answer.body)
            answer.usage = token_estimate.completed(answer.usage, request.task, body, written)
        if answer.usage is None:
            answer.usage = pieces(request.task, body, answer.body)
        return answer

    async def exchange(
        self, wire: WireCall, key: str | None, url: str | None = None, transport: Transport | None = None
    ) -> HttpReply:
        """A call of the provider's API that is no inference: its reply, whatever the status. `url` in place of the one
        that the path makes with provider.base_url. Raises InferenceError."""
        headers = {**self._headers[key][False], **wire.headers}
        address = url or self._base_urls[0] + wire.path
        reply = await (transport or self._transport).open(HttpCall(wire.method, address, headers, wire.content or None))
        return MaskedReply(reply, self._echoes[key])

    def redacted(self, error: InferenceError, key: str | None) -> InferenceError:
        """An error of such a call, without the key that it may echo."""
        self._settle_error(error, None, key)
        return error

    async def check(self) -> str:
        """Lists the models with each key, and says in one line what it found. Raises the first key's error when no
        key works."""
        checks = await self.check_keys()
        errors = [each.error for each in checks if each.error is not None]
        if len(errors) == len(checks):
            raise errors[0]
        found = [self.server_info.found] if self.server_info.found else []
        return f"{origin(self._base_urls[0])}: {'; '.join([each.line for each in checks] + found)}"

    async def check_keys(self, any_model: bool = False) -> list[KeyCheck]:
        """Lists the models with each key, and with the first one at each further endpoint; the operation is tried where
        the list does not show that the model answers. `any_model`: only the keys are checked."""
        if self._own:
            calls: list[tuple[str, str | None]] = list(zip(self._base_urls, self._own, strict=True))
        else:
            names: tuple[str | None, ...] = self.keys or (None,)
            calls = [(self._base_urls[0], name) for name in names] + [(url, names[0]) for url in self._base_urls[1:]]
        return [await self._check_key(url, name, any_model) for url, name in calls]

    async def _check_key(self, base_url: str, name: str | None, any_model: bool) -> KeyCheck:
        endpoint, place = origin(base_url), self._found[name].place if name is not None else None

        async def call(wire: WireCall) -> HttpReply:
            return await self.exchange(wire, name, base_url + wire.path)

        try:
            listing = await list_models(self._dialect, call, None if any_model else self._model)
            if self._inquiry is not None:
                await self._inquiry.learn(partial(self._ask, name))
            if any_model:
                return KeyCheck(endpoint, name, place, listing.found, listing.limits, verified=listing.has is True)
            verified, found = await self._tried(listing, call)
        except InferenceError as error:
            self._settle_error(error, None, name)
            if is_missing(error.status):
                error.message += await self._versioned(base_url, name)
            return KeyCheck(endpoint, name, place, error.message, None, error)
        return KeyCheck(endpoint, name, place, found, listing.limits, verified=verified)

    async def _tried(self, listing: Listing, call: Callable[[WireCall], Awaitable[HttpReply]]) -> tuple[bool, str]:
        """Returns True if the model answers, and what was found. Raises InferenceError if it does not."""
        if self.server_info.missing and not listing.has:
            raise InvalidRequest(f"the server has no model {self._model!r}: {listing.found}")
        trial = trial_for(self.target.model.tasks, self._dialect.tasks)
        if trial is None:
            return listing.has is True or bool(self.server_info.found), listing.found
        request = Request(trial.task, {**trial.body, "model": self._model})
        wire = self.wire(request, Context(EngineRecord(), 0.0))
        if listing.has:  # an empty body costs nothing, and shows that the wire is spoken here
            empty = await call(replace(wire, content=b"{}"))
            await empty.read()
            if not is_missing(empty.status):
                return True, listing.found
        reply = await call(wire)
        try:
            self.answer(request, reply.status, reply.headers, await reply.read())
        except InferenceError as error:
            if error.kind == "throttled" or (error.kind == "invalid_request" and not is_missing(reply.status)):
                return False, f"{listing.found}; a {trial.task} was not answered: {error.message}"
            error.message = f"{listing.found}; a {trial.task} failed: {error.message}"
            error.status = reply.status
            raise
        return True, f"{listing.found}; it answers a {trial.task}"

    async def _versioned(self, base_url: str, key: str | None) -> str:
        """Returns the advice to add the version to the address, where the server has its list of models there."""
        if urlsplit(base_url).path.strip("/"):
            return ""
        url = f"{base_url.rstrip('/')}/v1"
        with suppress(InferenceError):
            reply = await self.exchange(self._dialect.probe(), key, url + self._dialect.probe().path)
            if reply.status == 200 and self._dialect.models(await reply.read()):
                return f"; {url} has a list of models. Fix: provider.base_url={url}"
        return ""

    async def _ask(self, key: str | None, wire: WireCall) -> DiscoveryReply:
        reply = await self.exchange(wire, key)
        return DiscoveryReply(reply.status, await reply.read())

    async def _streamed(self, request: Request, reply: HttpReply, attempt: Attempt | None, key: str | None) -> Result:
        headers = reply.headers
        if attempt is not None:
            attempt.provider_request_id = self._without_key(self._dialect.request_id(headers), key)
        good = is_success(reply.status)
        if not good or not self._dialect.is_stream(headers):
            content = mask_bytes(await reply.read(), self._echoes[key])
            if good and TASKS[request.task].files == ("file",):
                # A model that can't stream takes no notice of the wish (OpenAI's whisper-1).
                answer = self._dialect.decode(request.task, 200, headers, content)
                return Result(request.id or "", stream=ChunkStream(whole_transcript(answer)))
            raise self._dialect.error(reply.status, headers, content)
        options = request.body.get("stream_options")
        asked = isinstance(options, dict) and bool(options.get("include_usage"))
        decoder = self._dialect.stream_decoder(request.task, show_usage=asked)
        settle = partial(self._settle_error, attempt=attempt, key=key)
        chunks = ReplyChunks(reply, decoder, StreamMask(self._echoes[key]), settle)
        return Result(request.id or "", stream=ChunkStream(chunks))

    def _filled(self, request: Request) -> dict[str, Any]:
        """The request's body, with what its server is known to need where it says nothing."""
        if not self.server_info.defaults or request.body.get("model") not in (None, self._model):
            return request.body
        return {**self.server_info.defaults, **request.body}

    def _key_of(self, attempt: Attempt | None) -> str | None:
        """The name of the key to use: the attempt's; the only or first one where nobody chose."""
        if self._own:
            return self._own[attempt.place if attempt is not None else 0]
        key = attempt.key if attempt is not None else None
        if key is None:
            return self.keys[0] if self.keys else None
        if key not in self._headers:
            raise Internal(f"no key {key!r} at this target; it has: {', '.join(self.keys) or 'none'}")
        return key

    def _settle_error(self, error: InferenceError, attempt: Attempt | None, key: str | None) -> None:
        """Notes what an error says about the attempt, and takes an echoed key out of it before anyone sees it."""
        error.message = self._clean(error.message, key) or ""
        if error.retry_after_s is not None and error.retry_after_s > LONGEST_S:
            days = error.retry_after_s / 86400
            error.message += f"; retry hint: got {days:.1f} days; expected 1 day at most, which is used"
            error.retry_after_s = LONGEST_S
        error.args = (error.message,)
        error.code = self._clean(error.code, key)
        if error.usage is not None and error.usage.unsaid:
            error.usage = None
        error.provider_request_id = self._clean(error.provider_request_id, key)
        if attempt is not None:
            if error.status is not None:
                attempt.status = error.status
            if error.provider_request_id is not None:
                attempt.provider_request_id = error.provider_request_id
        if isinstance(error, AuthFailed):
            who = f"key {key}" if key is not None else "no key was sent"
            error.message = f"{who}: {error.message}"
            error.args = (error.message,)

    def _without_key(self, request_id: str | None, key: str | None) -> str | None:
        """A provider's id of a call, fit to be written; cheap, for every call has one."""
        if request_id is None:
            return None
        if not (request_id.isascii() and request_id.isprintable()):
            request_id = "".join(each if each.isascii() and each.isprintable() else "?" for each in request_id)
        if key is None:
            return request_id
        secret = self._found[key].secret
        if "\\" in request_id or "%" in request_id or any(form in request_id for form in self._spelled[key]):
            return redact(request_id, (secret,))
        return request_id

    def _clean(self, text: str | None, key: str | None) -> str | None:
        """What the provider said, without a key that it echoes."""
        if not text:
            return text
        # A header that is no UTF-8 comes with lone surrogates, which no file takes.
        text = text.encode("utf-8", "replace").decode()
        return redact(text, [found.secret for found in self._found.values()]) if key is not None else text

    def _prepare_headers(self, extra: Mapping[str, str]) -> dict[str | None, tuple[dict[str, str], dict[str, str]]]:
        """The headers of each key's calls, plain and streaming, made once. Raises ConfigError."""
        for name, value in extra.items():
            if not (name + value).isascii() or not (name + value).isprintable():
                raise ConfigError(f"provider.headers.{name}: only printable ASCII can stand in a header")
        lowered = {name.lower(): value for name, value in extra.items()}
        plain = {**self._dialect.constant_headers(False), **lowered}
        streaming = {**self._dialect.constant_headers(True), **lowered}
        prepared: dict[str | None, tuple[dict[str, str], dict[str, str]]] = {}
        if not self._found:
            prepared[None] = (plain, streaming)
        for name, key in self._found.items():
            auth = self._dialect.auth_headers(key.secret.reveal())
            prepared[name] = ({**plain, **auth}, {**streaming, **auth})
        return prepared


def is_success(status: int) -> bool:
    """Returns true for the statuses of a reply with an answer: some gateways send 201, as for a resource they made."""
    return 200 <= status < 300


def _endpoint_keys(provider: RemoteProviderSpec) -> list[Key]:
    """The key of each address, in their order; none where they share theirs. Raises ConfigError and SetupError."""
    said = provider.endpoint_credentials
    if not said:
        return []
    addresses = (provider.base_url, *provider.endpoints)
    for address in said:
        if address not in addresses:
            raise ConfigError(
                f"provider.endpoint_credentials: {address!r} is none of the addresses; {nearest(address, addresses)}"
            )
    missing = [address for address in addresses if address not in said]
    if missing:
        raise ConfigError(
            f"provider.endpoint_credentials: {missing[0]} has none; name one for each, or use provider.credential"
        )
    found = [(find_keys(said[address], f"{provider.name} at {address}"), address) for address in addresses]
    for keys, address in found:
        if len(keys) != 1:
            raise ConfigError(f"provider.endpoint_credentials: {address} has {len(keys)} keys; it can have one")
    return [keys[0] for keys, _ in found]


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


def _is_page(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").lstrip().lower().startswith("text/html")
