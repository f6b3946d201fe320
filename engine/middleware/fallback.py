"""The next target, when one has failed for good."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import FAILURES, ConfigError, InferenceError, nearest
from engine.pipeline import Middleware, Stage
from engine.request import Context, Request, Result
from schemas.policy import FallbackSpec


class Fallback(Middleware):
    """Tries the branches in order. Its last branch's error is the request's, the earlier ones are in its attempts."""

    name = "fallback"
    why = "after a target's retries are spent, or at once for a failure that no retry can help"
    wraps = {"retry": "the next target is for what retries could not mend"}

    def __init__(self, branches: Sequence[Stage], spec: FallbackSpec) -> None:
        """Raises ConfigError when `spec.on` has a word that is not in the failure vocabulary."""
        for word in spec.on:
            if word not in FAILURES:
                raise ConfigError(f"policy.fallback.on: {word!r} is not a failure; {nearest(word, FAILURES)}")
        self.branches = tuple(branches)
        self.on = frozenset(spec.on)

    async def __call__(self, request: Request, context: Context) -> Result:
        for branch in self.branches[:-1]:
            try:
                result = await branch(request, context)
                if result.stream is not None:
                    await result.stream.prime()
                return result
            except InferenceError as error:
                if error.kind not in self.on:
                    raise
                context.last_key = None
        return await self.branches[-1](request, context)
