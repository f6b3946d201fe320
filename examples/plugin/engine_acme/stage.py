"""A stage: `policy.stamp.text=…` adds a warning to each result."""

from __future__ import annotations

from typing import ClassVar

from engine.core.pipeline import Layer, Middleware, Stage
from engine.core.request import Context, Request, Result
from engine.middleware.layer_context import LayerContext
from engine.schemas.base import Spec


class StampSpec(Spec):
    """The knobs at `policy.stamp`."""

    text: str = "stamped"
    """The warning."""


class Stamp(Middleware):
    """Adds a warning to each result."""

    spec = StampSpec
    name = "stamp"
    why = "inside the queue, so that only requests that are sent get a stamp"
    wrapped_by: ClassVar[dict[str, str]] = {"queue": "a request that is turned away gets no stamp"}
    wraps: ClassVar[dict[str, str]] = {"breaker": "an open circuit is stamped, too"}

    def __init__(self, next: Stage, text: str, counts: StampCounts) -> None:
        self.next = next
        self._text = text
        self._counts = counts

    async def __call__(self, request: Request, context: Context) -> Result:
        context.warn(self._text)
        self._counts.total += 1
        return await self.next(request, context)

    @staticmethod
    def layer(context: LayerContext) -> Layer:
        """The layer for one target; None would leave the stage out."""
        spec = context.policy.stages["stamp"]
        counts = context.resources.get(("stamp", context.name), StampCounts)
        return Layer(Stamp, {"text": spec.text, "counts": counts}, f"text={spec.text}")


class StampCounts:
    """Shared state. What has `gauges` is in reports, Prometheus and OpenTelemetry, by target."""

    def __init__(self) -> None:
        self.total = 0

    def gauges(self) -> dict[str, float]:
        return {"stamps_total": self.total}
