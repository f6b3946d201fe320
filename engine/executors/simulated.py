"""Calls the simulated provider: for trying pipelines and policies without a key. Every reply says that it is
simulated."""

from __future__ import annotations

import asyncio
from functools import partial

from engine.core.errors import FAILURES, InferenceError, InvalidRequest
from engine.core.request import Context, RateHints, Request, Result
from engine.core.server_info import ServerInfo
from engine.core.stream import Chunk, ChunkStream
from engine.core.usage import Usage
from engine.executors.services import Services
from engine.schemas import TargetSpec
from engine.simulation import answers
from engine.simulation.counters import Counters
from engine.simulation.openai import code_of
from engine.simulation.provider import Failure, Plan, SimulatedProvider
from engine.tasks.usage import openai_usage


class SimulatedExecutor:
    """Does what its provider decides, with nothing but `asyncio.sleep`, so that it is exact in virtual time."""

    tasks = answers.TASKS

    def __init__(self, target: TargetSpec, services: Services) -> None:
        assert target.provider.kind == "simulated"
        self.target = target
        self.spec = target.provider
        self.model = target.model_id
        self.server_info = ServerInfo()
        self.clock = services.clock
        self.keys: tuple[str, ...] = self.spec.key_names if self.spec.keys else ()
        self.provider = SimulatedProvider(self.spec, services.clock, services.seed)
        capacity = self.spec.capacity
        self._limited = capacity.requests_per_min is not None or capacity.tokens_per_min is not None

    @property
    def counters(self) -> Counters:
        """Returns what truly happened so far."""
        return self.provider.counters

    async def start(self) -> None:
        return

    async def check(self) -> str:
        return "simulated: always there, answers are not real"

    async def aclose(self) -> None:
        return

    async def __call__(self, request: Request, context: Context) -> Result:
        task, body = request.task, request.body
        if task not in self.tasks:
            raise InvalidRequest(
                f"task: the simulated provider can't do {task}; it does: {', '.join(sorted(self.tasks))}"
            )
        computed = task in answers.COMPUTED
        if computed:
            answers.check(task, body)
        attempt = context.attempt
        plan = self.provider.admit(
            attempt.key if attempt is not None else None,
            answers.input_tokens(task, body),
            answers.output_limit(task, body),
            begun=answers.begun(task, body),
            stream=context.stream,
        )
        failure = plan.failure
        if failure is not None and not failure.in_answer:
            await _pause(failure.delay_s)
            raise error_of(failure)
        if self._limited and attempt is not None and (failure is None or failure.kind != "silent"):
            attempt.hints = partial(self._hints, plan.key)
        if context.stream and not computed:
            return Result(request.id or "", stream=ChunkStream(_Chunks(self, request, plan)))
        answered = False
        try:
            if failure is not None and failure.kind == "silent":
                await _for_ever()
            await _pause(plan.whole_s)
            if failure is not None:
                raise error_of(failure)
            answered = True
        finally:
            self.provider.leave(plan, answered=answered)
        usage = Usage(plan.input_tokens, plan.tokens)
        if computed:
            reply = answers.computed(task, body, self.spec.dimensions, self.model, usage)
        else:
            created = int(self.clock.wall())
            reply = answers.whole(
                task,
                f"simulated-{request.id}",
                created,
                self.model,
                answers.text(plan.tokens, plan.begun),
                plan.finish_reason,
                usage,
            )
        return Result(request.id or "", reply, usage=usage)

    def _hints(self, key: str) -> RateHints:
        """Returns what the headers of a served call would say of its key's rates."""
        levels = self.provider.levels(key)
        said = {unit: (float(level.limit), float(level.remaining), level.reset_s) for unit, level in levels.items()}
        return RateHints(said.get("requests"), said.get("tokens"))


class _Chunks:
    """The chunks of one answer. A class and not a generator: one that never started must give its place back, too."""

    __slots__ = ("_created", "_done", "_executor", "_index", "_plan", "_request")

    def __init__(self, executor: SimulatedExecutor, request: Request, plan: Plan) -> None:
        self._executor = executor
        self._request = request
        self._plan = plan
        self._created = int(executor.clock.wall())
        self._index = 0
        self._done = False

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> Chunk:
        if self._done:
            raise StopAsyncIteration
        plan, index = self._plan, self._index
        failure = plan.failure
        try:
            if failure is not None and failure.kind == "silent":
                await _for_ever()
            await _pause(plan.pause_s(index))
            if failure is not None and index == plan.broken_at:
                raise error_of(failure, begun=index > 0)
        except BaseException:
            self._settle(answered=False)
            raise
        self._index += 1
        base = (self._request.task, f"simulated-{self._request.id}", self._created, self._executor.model)
        if index < plan.tokens:
            return Chunk(answers.chunk(*base, answers.word(plan.begun + index)))
        self._settle(answered=True)
        usage = Usage(plan.input_tokens, plan.tokens)
        end = answers.chunk(*base, None, plan.finish_reason)
        end["usage"] = openai_usage(usage)
        return Chunk(end, usage)

    async def aclose(self) -> None:
        self._settle(answered=False)

    def _settle(self, answered: bool) -> None:
        if not self._done:
            self._done = True
            self._executor.provider.leave(self._plan, answered=answered)


def error_of(failure: Failure, *, begun: bool = False) -> InferenceError:
    """Returns what a caller over a socket would find for it; `begun`: after the first pieces of a stream."""
    # Whatever broke it: what has come so far is an answer without its end.
    word = "truncated" if begun and failure.word == "malformed" else failure.word
    return FAILURES[word](
        f"simulated: {failure.message}", status=failure.status, retry_after_s=failure.wait_s, code=code_of(failure)
    )


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


async def _for_ever() -> None:
    """Until the caller leaves."""
    await asyncio.get_running_loop().create_future()
