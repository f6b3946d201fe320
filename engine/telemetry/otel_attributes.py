"""The attributes of OpenTelemetry's GenAI conventions, from a target, a request, a reply and an attempt.

Source: open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-spans.md. Attributes outside the conventions are
under `engine.`. Nothing here is content: neither prompts nor answers, nor messages that may quote them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from engine.core.request import Attempt, EngineRecord, Request
from engine.core.task_table import having
from engine.core.usage import Usage
from engine.schemas import TargetSpec

Value = str | bool | int | float | list[str]
Attributes = dict[str, Value]

OPERATIONS: dict[str, str] = having("operation")
"""gen_ai.operation.name by task; a task outside the conventions keeps its own name."""
_PROVIDERS = {
    "azure_openai": "azure.ai.openai",
    "claude": "anthropic",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "xai": "x_ai",
}
"""gen_ai.provider.name where it differs from the provider's name here."""
_PARAMETERS: dict[str, tuple[str, type]] = {
    "max_completion_tokens": ("gen_ai.request.max_tokens", int),
    "max_tokens": ("gen_ai.request.max_tokens", int),
    "max_output_tokens": ("gen_ai.request.max_tokens", int),
    "temperature": ("gen_ai.request.temperature", float),
    "top_p": ("gen_ai.request.top_p", float),
    "top_k": ("gen_ai.request.top_k", float),
    "frequency_penalty": ("gen_ai.request.frequency_penalty", float),
    "presence_penalty": ("gen_ai.request.presence_penalty", float),
    "seed": ("gen_ai.request.seed", int),
    "dimensions": ("gen_ai.embeddings.dimension.count", int),
}
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Place:
    """The attributes that are the same for every attempt at a target."""

    attributes: Attributes
    model: str
    aliases: frozenset[str]
    """Names in a request that mean this model."""
    open: bool
    """A request's own model is kept (engine/middleware/parameters.py)."""
    in_process: bool

    def model_for(self, request: Request) -> str:
        """Returns the model of an attempt at this target."""
        wanted = request.body.get("model")
        return wanted if self.open and isinstance(wanted, str) and wanted not in self.aliases else self.model


def place_of(target: TargetSpec, primary: bool) -> Place:
    """`primary`: the target is the run's own, not a fallback."""
    provider, model = target.provider, target.model
    attributes: Attributes = {"gen_ai.provider.name": _PROVIDERS.get(provider.name, provider.name)}
    if provider.kind == "remote":
        attributes |= server(provider.base_url)
    return Place(
        attributes,
        target.model_id,
        frozenset({model.name, target.model_id, *model.ids.values()}),
        open=primary and provider.kind == "remote" and not model.pin,
        in_process=provider.kind != "remote",
    )


def server(url: str) -> Attributes:
    """The host and port of a URL."""
    parts = urlsplit(url)
    port = parts.port or _PORTS.get(parts.scheme)
    if not parts.hostname or port is None:
        return {}
    return {"server.address": parts.hostname, "server.port": port}


def asked(request: Request) -> Attributes:
    """The parameters of a request."""
    body = request.body
    attributes: Attributes = {}
    for name, (attribute, kind) in _PARAMETERS.items():
        value = body.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            attributes.setdefault(attribute, kind(value))
    choices = body.get("n")
    if isinstance(choices, int) and choices != 1:
        attributes["gen_ai.request.choice.count"] = choices
    stop = body.get("stop")
    if stop:
        attributes["gen_ai.request.stop_sequences"] = [stop] if isinstance(stop, str) else [str(text) for text in stop]
    form = body.get("response_format")
    if isinstance(form, dict):
        attributes["gen_ai.output.type"] = "text" if form.get("type") == "text" else "json"
    return attributes


def replied(body: dict[str, Any] | None) -> Attributes:
    """Returns the attributes of a reply."""
    if body is None:
        return {}
    attributes: Attributes = {}
    for name, attribute in (("id", "gen_ai.response.id"), ("model", "gen_ai.response.model")):
        if isinstance(body.get(name), str):
            attributes[attribute] = body[name]
    reasons = [str(choice["finish_reason"]) for choice in body.get("choices") or () if choice.get("finish_reason")]
    if reasons:
        attributes["gen_ai.response.finish_reasons"] = reasons
    return attributes


def spent(usage: Usage) -> Attributes:
    """Returns the tokens of an attempt; cached and reasoning tokens are part of the others."""
    attributes: Attributes = {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
    }
    if usage.cached_tokens:
        attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
    if usage.cache_write_tokens:
        attributes["gen_ai.usage.cache_creation.input_tokens"] = usage.cache_write_tokens
    if usage.reasoning_tokens:
        attributes["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning_tokens
    if usage.estimated:
        attributes["engine.usage.estimated"] = True
    return attributes


def tried(attempt: Attempt) -> Attributes:
    """Returns the outcome of an attempt."""
    attributes: Attributes = {"engine.target": attempt.target, "engine.attempt.role": attempt.role}
    if attempt.endpoint is not None:
        attributes |= server(attempt.endpoint)
    for attribute, value in (
        ("engine.key", attempt.key),
        ("http.response.status_code", attempt.status),
        ("engine.provider_request_id", attempt.provider_request_id),
        ("engine.cost_usd", attempt.cost),
        ("gen_ai.response.time_to_first_chunk", attempt.first_token_s),
    ):
        if value is not None:
            attributes[attribute] = value
    if attempt.outcome != "ok":
        attributes["error.type"] = attempt.outcome
    return attributes


def served(request: Request, record: EngineRecord) -> Attributes:
    """Returns the outcome of a whole request."""
    attributes: Attributes = {
        "engine.request.id": request.id or "",
        "engine.priority": record.priority,
        "engine.attempts": len(record.attempts),
        "engine.queued_s": record.queued_s,
    }
    for attribute, value in (
        ("engine.target", record.target),
        ("engine.cache", record.cache),
        ("engine.cost_usd", record.cost),
    ):
        if value is not None:
            attributes[attribute] = value
    if record.cost_estimated:
        attributes["engine.cost_estimated"] = True
    return attributes
