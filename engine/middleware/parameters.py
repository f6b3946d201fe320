"""Fills a request's body with its target's model and parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.core.errors import InvalidRequest
from engine.core.pipeline import Layer, Middleware, Stage
from engine.core.request import Context, Request, Result
from engine.middleware.layer_context import LayerContext
from engine.schemas import TargetSpec


class Parameters(Middleware):
    """Sets `model.parameters` where the request does not set them, and the model's id at this provider.

    A remote request that names another model keeps it, unless the model is pinned. A target in this process has one
    model, and a fallback is chosen with its model: there the request's `model` is replaced, with a warning.
    """

    name = "parameters"
    why = "per target, because each model has its own; before the batch, whose members must be alike"
    wraps = {"batch": "requests are alike only when their parameters are filled in"}

    def __init__(self, next: Stage, target: TargetSpec, open: bool) -> None:
        """`open`: a request's own model is kept."""
        self.next = next
        self.defaults = target.model.parameters
        self.model = target.model_id
        self.own_names = frozenset({target.model.name, target.model_id, *target.model.ids.values()})
        self.prefill = target.provider.prefill if target.provider.kind == "remote" else "none"
        self.open = open

    async def __call__(self, request: Request, context: Context) -> Result:
        body = request.body
        wanted = body.get("model")
        model = self.model
        if wanted is not None and not isinstance(wanted, str):
            raise InvalidRequest(f"body.model: expected a model's name, got {type(wanted).__name__}")
        if wanted is not None and wanted not in self.own_names:
            if self.open:
                model = wanted
            else:
                context.warn(f"body.model {wanted!r} gave way to {model!r}")
        if self.defaults or wanted != model:
            request = replace(request, body={**self.defaults, **body, "model": model})
        context.prefilled = context.prefill is not None and self._continues(request)
        if context.prefilled:
            request = replace(request, body=_continued(request, context, self.prefill))
        return await self.next(request, context)

    def _continues(self, request: Request) -> bool:
        """Returns True if the target accepts the beginning of an answer. A prompt in tokens can't be extended."""
        if request.task == "completion":
            return isinstance(request.body.get("prompt", ""), str)
        return self.prefill != "none"


def _continued(request: Request, context: Context, how: str) -> dict[str, Any]:
    """Returns a body that requests the rest of an answer: its beginning is included, its length limit reduced by it."""
    body, beginning = dict(request.body), context.prefill or ""
    for limit in ("max_tokens", "max_completion_tokens"):
        if isinstance(body.get(limit), int):
            body[limit] = max(1, body[limit] - context.prefill_tokens)
    if request.task == "completion":
        return {**body, "prompt": f"{body.get('prompt', '')}{beginning}"}
    turn: dict[str, Any] = {"role": "assistant", "content": beginning}
    if how == "prefix":
        turn["prefix"] = True
    body["messages"] = [*body["messages"], turn]
    if how == "continue_final_message":
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return body


def follows(context: LayerContext) -> bool:
    """Returns True if a request's own model is kept at this target."""
    target = context.target
    return context.primary and target.provider.kind == "remote" and not target.model.pin


def layer(context: LayerContext) -> Layer:
    model = context.target.model
    settings = f"model={context.target.model_id}"
    if model.parameters:
        settings += " " + " ".join(f"{name}={value}" for name, value in model.parameters.items())
    return Layer(Parameters, {"target": context.target, "open": follows(context)}, settings)
