"""A stream that breaks after its first chunk continues elsewhere; its caller sees one stream."""

from __future__ import annotations

from engine.core.errors import InferenceError, InvalidRequest
from engine.core.pipeline import Layer, Middleware
from engine.core.request import Context, Request, Result
from engine.core.stream import Chunk, ChunkStream
from engine.middleware.fallback import Fallback
from engine.middleware.layer_context import LayerContext
from engine.middleware.rescue_splice import Splice
from engine.schemas.policy import StreamSpec


class Rescue(Middleware):
    """Requests the rest of an answer whose stream broke from another target, or from the same one.

    If the target can continue from a given beginning, it gets the delivered text, and any part that it repeats is
    dropped. If it can't, or refuses, the answer is requested again from its start: the part equal to the delivered text
    is dropped, and at the first difference a marked chunk (`Chunk.restarted`) comes first. Each is an attempt like any
    other, with its own permits, record and usage.
    """

    name = "rescue"
    why = "outside the targets, so that one can continue the answer of another"
    wraps = {"fallback": "the rest of an answer may come from another target"}
    wrapped_by = {"deadline": "one deadline over the whole stream, however often it was rescued"}

    next: Fallback

    def __init__(self, next: Fallback, spec: StreamSpec) -> None:
        self.next = next
        self.spec = spec

    async def __call__(self, request: Request, context: Context) -> Result:
        result = await self.next(request, context)
        if result.stream is None:
            return result
        stream = ChunkStream(_Rescued(self, request, context, result.stream))
        await stream.prime()
        return Result(result.id, stream=stream)


class _Rescued:
    """The chunks of one stream after another."""

    __slots__ = ("_context", "_left", "_request", "_rescue", "_splice", "_stream")

    def __init__(self, rescue: Rescue, request: Request, context: Context, stream: ChunkStream) -> None:
        self._rescue = rescue
        self._request = request
        self._context = context
        self._stream = stream
        self._splice = Splice()
        self._left = rescue.spec.max_rescues

    def __aiter__(self) -> _Rescued:
        return self

    async def __anext__(self) -> Chunk:
        splice = self._splice
        while True:
            ready = splice.take()
            if ready is not None:
                return ready
            try:
                chunk = await self._stream.__anext__()
            except StopAsyncIteration:
                splice.end()
                ready = splice.take()
                if ready is None:
                    raise
                return ready
            except InferenceError as error:
                await self._go_on(error)
                continue
            if splice.passes(chunk):
                return chunk

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def _go_on(self, error: InferenceError) -> None:
        """Replaces the broken stream by another one. Raises `error` if there is no other."""
        context, broken = self._context, self._context.attempt
        if not error.retryable or not self._left or context.spent or broken is None:
            raise error
        self._left -= 1
        context.order = self._rescue.next.after(broken.target)
        splice = self._splice
        continues = self._rescue.spec.rescue == "continue" and splice.plain and not splice.finished
        context.prefill = splice.text or None if continues else None
        context.prefill_tokens = splice.chunks
        context.next_attempt("rescue", f"{broken.target} broke after {splice.chunks} chunks: {error.kind}")
        try:
            self._stream = await self._ask()
        except InferenceError as another:
            error.message += f"; and it could not be rescued: {another.kind}: {another.message}"
            error.args = (error.message,)
            raise error from another
        splice.join(context.attempt.target if context.attempt else "", continued=context.prefilled)

    async def _ask(self) -> ChunkStream:
        context = self._context
        try:
            result = await self._rescue.next(self._request, context)
        except InvalidRequest:
            refused = context.attempt
            if not context.prefilled or refused is None or context.spent:
                raise
            # It does not take the beginning of an answer: restart.
            context.prefill = None
            context.order = self._rescue.next.starting(refused.target)
            context.next_attempt("rescue", f"{refused.target} refused to continue from a beginning")
            result = await self._rescue.next(self._request, context)
        assert result.stream is not None
        await result.stream.prime()
        return result.stream


def layer(context: LayerContext) -> Layer | None:
    spec = context.policy.stream
    if spec.rescue == "off":
        return None
    return Layer(Rescue, {"spec": spec}, f"streams: {spec.rescue}, ≤{spec.max_rescues} times")
