"""Models in this process: fetches the files, loads them once, and answers on a runtime."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

from engine.artifacts import resolve
from engine.core.errors import Cancelled, Internal, InvalidRequest, SetupError
from engine.core.request import Context, Request, Result
from engine.core.server_info import ServerInfo
from engine.core.stream import Chunk, ChunkStream
from engine.core.usage import Usage
from engine.executors.services import Services
from engine.media.fields import may_hold_media, read_media
from engine.media.reader import MediaReader
from engine.runtimes import devices, replicas
from engine.runtimes.memory import estimate as memory
from engine.schemas import TargetSpec
from engine.schemas.model import ModelSpec
from engine.schemas.provider import TransportSpec
from engine.tasks import chat, completion, embedding, fields, finite, forms, pipelines, similarity
from engine.tasks.local_model import Runtime, RuntimeKind, Sampling
from engine.transports.download import download


class LocalExecutor:
    """Answers with a model in this process. Executors of one engine with the same model and hardware share it."""

    keys: tuple[str, ...] = ()

    def __init__(self, target: TargetSpec, services: Services) -> None:
        """Raises SetupError when the hardware is not here or the model names no files."""
        self._model = target.model
        self._model_id = target.model_id
        self._services = services
        self.hardware = devices.resolve(target.hardware, target.model)
        self.target = target.model_copy(update={"hardware": self.hardware})
        self.tasks = frozenset(target.model.tasks or ("chat", "completion"))
        self.server_info = ServerInfo()
        if not target.model.sources:
            raise SetupError(
                f"model: {target.model.name!r} names no sources, so it can't run in this process. "
                f"Next: choose a model with sources, or a remote provider"
            )
        self._shared = _share(services, self.hardware, target.model)
        self._runtime: Runtime | None = None
        self._closed = False

    async def start(self) -> None:
        """Fetches and loads the model. Raises SetupError."""
        self._runtime = await self._shared.runtime()

    async def check(self) -> str:
        """Loads the model and says where it runs and where it came from."""
        await self.start()
        assert self._runtime is not None
        assert self._shared.artifact is not None
        return f"loaded {self._model.name} on {self._runtime.device} from {self._shared.artifact.source}"

    async def aclose(self) -> None:
        """Gives the model back; the last user of it frees it."""
        if self._closed:
            return
        self._closed, self._runtime = True, None
        await self._shared.leave()

    async def __call__(self, request: Request, context: Context) -> Result:
        """Raises InferenceError, or SetupError when the model can't be loaded."""
        if request.task not in self.tasks:
            raise InvalidRequest(
                f"task: {self._model.name!r} is not for {request.task}; it does: {', '.join(sorted(self.tasks))}"
            )
        runtime = self._runtime
        if runtime is None:
            if self._closed:
                raise Cancelled("the engine was closed while the request was in flight")
            runtime = self._runtime = await self._shared.runtime()
        if request.task == "embedding":
            return await self._embed(runtime, request, context)
        if request.task == "sentence-similarity":
            return await self._compare(runtime, request)
        if request.task in pipelines.PIPELINES:
            if context.stream:
                raise InvalidRequest(f"body.stream: a model in this process answers {request.task} whole; leave it out")
            return await self._infer(runtime, request, context)
        return await self._generate(runtime, request, context)

    async def _embed(self, runtime: Runtime, request: Request, context: Context) -> Result:
        ask = embedding.read(request.body)
        found = await runtime.embed(ask.texts)
        _warn_of_cuts(context, "input", found.cut, f"the {runtime.context_length} tokens")
        body, usage = embedding.reply(ask, found, self._model_id)
        finite.check(body)
        return Result(request.id or "", body, usage=usage)

    async def _compare(self, runtime: Runtime, request: Request) -> Result:
        found = await runtime.embed(similarity.read(request.body))
        body, usage = similarity.reply(found, self._model_id)
        finite.check(body)
        return Result(request.id or "", body, usage=usage)

    async def _infer(self, runtime: Runtime, request: Request, context: Context) -> Result:
        body = request.body
        if may_hold_media(request.task, body):
            body = await read_media(request.task, body, self._media(request))
        ask = forms.read(request.task, body)
        outputs = await runtime.infer(request.task, ask)
        if request.task == "rerank":
            _warn_of_cuts(context, "document", [index for index, each in enumerate(outputs) if each["cut"]], "what")
        created = int(self._services.clock.wall())
        made, usage = forms.reply(request.task, self._model_id, outputs, body, ask, created)
        finite.check(made)
        return Result(request.id or "", made, usage=usage)

    def _media(self, request: Request) -> MediaReader:
        access = self._services.media if request.media is None else request.media
        fetch = partial(download, self._services.transport(TransportSpec())) if access.urls else None
        return MediaReader(access, fetch)

    async def _generate(self, runtime: Runtime, request: Request, context: Context) -> Result:
        created = int(self._services.clock.wall())
        answer: chat.Answer | completion.Answer
        if request.task == "chat":
            messages, sampling = chat.read(request.body, runtime.reads_pictures)
            if runtime.reads_pictures:
                messages = await chat.open_pictures(messages, self._media(request))
            prompt = await runtime.encode_chat(messages)
            answer = chat.Answer(request.id or "", self._model_id, created)
        else:
            text, sampling = completion.read(request.body)
            prompt = await runtime.encode_text(text)
            answer = completion.Answer(request.id or "", self._model_id, created)
        sampling = fields.fit(sampling, len(prompt), runtime.context_length)
        if context.stream:
            await runtime.check(sampling)  # a stream that has begun can't be refused any more
            options = request.body.get("stream_options") or {}
            chunks = _chunks(runtime, prompt, sampling, answer, bool(options.get("include_usage")))
            return Result(request.id or "", stream=ChunkStream(chunks))
        parts: list[str] = []
        usage = Usage(len(prompt))
        reason = None
        async with aclosing(runtime.generate(prompt, sampling, whole=True)) as pieces:
            async for piece in pieces:
                parts.append(piece.text)
                usage.output_tokens += piece.tokens
                reason = piece.finish_reason
        return Result(request.id or "", answer.reply("".join(parts), reason, usage), usage=usage)


def _warn_of_cuts(context: Context, what: str, cut: list[int], limit: str) -> None:
    """Warns of inputs, by their indices, that were longer than the model reads."""
    for index in cut[:8]:
        context.warn(f"{what} {index}: cut to {limit} the model reads")
    if len(cut) > 8:
        context.warn(f"{len(cut) - 8} further {what}s: cut likewise")


async def _chunks(
    runtime: Runtime, prompt: Any, sampling: Sampling, answer: chat.Answer | completion.Answer, totals: bool
) -> AsyncIterator[Chunk]:
    """The answer as chunks; closing it stops the generation. Nothing comes before the first token does."""
    usage = Usage(len(prompt))
    opening = answer.opening()
    reason = None
    async with aclosing(runtime.generate(prompt, sampling)) as pieces:
        async for piece in pieces:
            usage.output_tokens += piece.tokens
            reason = piece.finish_reason
            if opening is not None:
                yield Chunk(opening)
                opening = None
            if piece.text:
                yield Chunk(answer.part(piece.text))
    if reason is None:
        raise Internal("the runtime ended the answer without a reason")
    yield Chunk(answer.closing(reason), None if totals else usage)
    if totals:
        yield Chunk(answer.totals(usage), usage)


class _Shared:
    """A model that several executors use: loaded by the first who needs it, freed by the last who leaves."""

    def __init__(self, services: Services, hardware: devices.Concrete, model: ModelSpec) -> None:
        self._services = services
        self._hardware = hardware
        self._model = model
        self._loading: asyncio.Task[Runtime] | None = None
        self._stop = threading.Event()
        self.artifact: resolve.Artifact | None = None
        self.users = 0

    async def runtime(self) -> Runtime:
        """The loaded model. A load that failed is tried again by the next call. Raises SetupError."""
        if self._loading is None or (self._loading.done() and self._failed(self._loading)):
            self._stop = threading.Event()
            self._loading = asyncio.create_task(self._load())
        # Shielded: others wait for the same load, so a caller who leaves must not stop it.
        return await asyncio.shield(self._loading)

    async def leave(self) -> None:
        self.users -= 1
        if self.users > 0 or self._loading is None:
            return
        loading, self._loading = self._loading, None
        if not loading.done():
            self._stop.set()  # a long download would hold up the end of the program
            await asyncio.wait([loading])
        if not self._failed(loading):
            await loading.result().aclose()

    async def _load(self) -> Runtime:
        kind = devices.runtime_of(self._hardware)
        services = self._services
        self.artifact = await asyncio.to_thread(
            resolve.fetch,
            self._model,
            kind.formats(self._model),
            cache_dir=services.cache_dir,
            notify=services.notify,
            storage=services.storage,
            stop=self._stop,
        )
        if services.notify is not None:
            services.notify(f"loading {self._model.name} from {self.artifact.source} on {self._hardware.kind}")
        if devices.is_own(self._hardware):  # an installed kind knows its own memory
            estimate = await asyncio.to_thread(memory.of, self.artifact, self._model, self._hardware)
            memory.check(estimate, self._hardware, self._model.name)
        runtime = self._made(kind, self.artifact)
        await runtime.start()
        return runtime

    def _made(self, kind: RuntimeKind, artifact: resolve.Artifact) -> Runtime:
        seed = self._services.seed
        if self._hardware.replicas == 1:
            return kind(self._hardware, self._model, artifact, seed)
        each = replicas.spread_hardware(self._hardware)
        return replicas.Replicas([kind(hardware, self._model, artifact, seed) for hardware in each])

    @staticmethod
    def _failed(task: asyncio.Task[Runtime]) -> bool:
        return task.cancelled() or task.exception() is not None


def _share(services: Services, hardware: devices.Concrete, model: ModelSpec) -> _Shared:
    key = f"{hardware.model_dump_json()} {model.model_dump_json()}"
    shared: _Shared = services.runtimes.get(key) or _Shared(services, hardware, model)
    services.runtimes[key] = shared
    shared.users += 1
    return shared
