"""The canonical chat body → the body of Anthropic's Messages API.

What the wire can't say is refused, or dropped with a warning where the provider's config says so; nothing is lost in
silence. Source: Anthropic's API reference, "Create a Message" (versions 2026-10-21 and 2023-06-01), and the guides
"Effort", "Thinking", "Structured outputs" and "Define tools".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.core.errors import InvalidRequest, nearest
from engine.dialects.anthropic.messages import Unsupported, wire_messages
from engine.dialects.anthropic.schema import rewritten
from engine.dialects.common.allowed_tools import narrowed

DEFAULT_MAX_TOKENS = 8192
"""Tokens of the answer where the body sets no limit: the wire demands one. Every current model gives as many, and a
whole reply of this length comes within the ten minutes after which Anthropic's own clients give up."""
SAMPLING = ("temperature", "top_p", "top_k")
"""Gone from version 2026-10-21 of the API; 2023-06-01 still takes them, for the models that do."""

_PASSED = frozenset({"cache_control", "inference_geo", "thinking", "top_k", "top_p"})
"""The same on both wires, or fields of Anthropic's own that a body may carry as they are."""
_ELSEWHERE = frozenset(
    {
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "parallel_tool_calls",
        "stream",
        "stream_options",
        "tool_choice",
    }
)
"""Read where they are needed, or set by the engine."""
_DEFAULTS: dict[str, tuple[Any, ...]] = {
    # Values without effect.
    "frequency_penalty": (0,),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "metadata": ({},),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "store": (False,),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
}
_STEPS = {
    "audio": "Claude answers in text",
    "function_call": "use tool_choice",
    "functions": "use tools",
    "metadata": "name the user with body.user",
    "modalities": "Claude answers in text",
    "n": "send the request n times",
}
"""The advice for a field."""
_EFFORTS = ("none", "low", "medium", "high", "xhigh", "max")
_TIERS = {"auto": "auto", "default": "standard_only"}
_FUNCTION = frozenset({"name", "description", "parameters", "strict"})
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def wire_body(body: dict[str, Any], model: str, unsupported: Unsupported) -> dict[str, Any]:
    """The wire's body, without `stream`. Raises InvalidRequest."""
    body = narrowed(body)
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_MAX_TOKENS
    wire: dict[str, Any] = {"model": model, "max_tokens": limit}
    wire_messages(body.get("messages"), wire, unsupported)
    for name, value in body.items():
        if value is None or name in _ELSEWHERE:
            continue
        if name in _PASSED:
            wire[name] = value
        elif name in _FIELDS:
            _FIELDS[name](value, wire, unsupported)
        elif value not in _DEFAULTS.get(name, ()):
            unsupported.add(f"body.{name}", "the Messages API can't express it", _STEPS.get(name))
    if "tools" in wire:
        _choose(body, wire, unsupported)
    if wire.get("thinking", {}).get("type") in ("adaptive", "enabled"):
        _fit_thinking(wire, unsupported)
    return wire


def _fit_thinking(wire: dict[str, Any], unsupported: Unsupported) -> None:
    """Takes out what the API refuses while a model thinks: sampling, and a tool that must be used."""
    limits: dict[str, Callable[[float], bool]] = {
        "temperature": lambda value: value == 1,
        "top_p": lambda value: value >= 0.95,
        "top_k": lambda value: False,
    }
    for name, holds in limits.items():
        value = wire.get(name)
        if value is not None and not (isinstance(value, int | float) and holds(value)):
            del wire[name]
            unsupported.add(
                f"body.{name}",
                f"Claude takes no {name} of {value!r} while it thinks",
                "leave it or reasoning_effort out",
            )
    choice = wire.get("tool_choice", {}).get("type")
    if choice in ("any", "tool"):
        unsupported.add(
            "body.tool_choice", "Claude can't be made to use a tool while it thinks", "leave it or reasoning_effort out"
        )
        wire["tool_choice"] = {**wire["tool_choice"], "type": "auto"}
        wire["tool_choice"].pop("name", None)


def _temperature(value: Any, wire: dict[str, Any], unsupported: Unsupported) -> None:
    if isinstance(value, int | float) and not 0 <= value <= 1:
        unsupported.add("body.temperature", f"the Messages API takes 0 … 1, got {value}")
    else:
        wire["temperature"] = value


def _stop(value: Any, wire: dict[str, Any], unsupported: Unsupported) -> None:
    stops = [value] if isinstance(value, str) else value
    if stops:
        wire["stop_sequences"] = stops


def _user(value: Any, wire: dict[str, Any], unsupported: Unsupported) -> None:
    known = wire.setdefault("metadata", {"user_id": value})
    if known["user_id"] != value:
        unsupported.add("body.user", "the Messages API takes one id of a user, and body.safety_identifier is another")


def _service_tier(value: Any, wire: dict[str, Any], unsupported: Unsupported) -> None:
    tier = _TIERS.get(value)
    if tier is None:
        unsupported.add("body.service_tier", f"the Messages API knows auto and default, not {value!r}")
    else:
        wire["service_tier"] = tier


def _effort(value: Any, wire: dict[str, Any], unsupported: Unsupported) -> None:
    if value == "none":
        wire.setdefault("thinking", {"type": "disabled"})
    elif value in _EFFORTS:
        wire.setdefault("output_config", {})["effort"] = value
        # Without it, models up to Opus 4.8 don't think at all, whatever the effort.
        wire.setdefault("thinking", {"type": "adaptive"})
    else:
        unsupported.add("body.reasoning_effort", f"{value!r} is not an effort here; {nearest(value, _EFFORTS)}")


def _response_format(value: Any, wire: dict[str, Any], unsupported: Unsupported) -> None:
    kind = value.get("type") if type(value) is dict else None
    if kind == "text":
        return
    if kind != "json_schema":
        unsupported.add(
            "body.response_format", "the Messages API promises JSON only for a schema", "use json_schema with a schema"
        )
        return
    said = value.get("json_schema")
    schema = said.get("schema") if type(said) is dict else None
    if type(schema) is not dict:
        raise InvalidRequest("body.response_format.json_schema.schema: expected a JSON schema, an object")
    if said.get("description"):
        unsupported.add(
            "body.response_format.json_schema.description",
            "the Messages API has no place for it",
            "put it into the schema's own description",
        )
    schema, described = rewritten(schema, "body.response_format.json_schema.schema")
    if described:
        unsupported.warnings.append(
            f"body.response_format.json_schema.schema: {', '.join(described)}: described to the model, not enforced"
        )
    # The schema's `name` is a label that no model sees there; `strict` is how this wire always works.
    wire.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": schema}


def _tools(value: Any, wire: dict[str, Any], unsupported: Unsupported) -> None:
    if type(value) is not list:
        raise InvalidRequest(f"body.tools: expected a list, got {type(value).__name__}")
    tools: list[dict[str, Any]] = []
    for index, tool in enumerate(value):
        function = tool.get("function") if type(tool) is dict else None
        if type(function) is not dict or type(function.get("name")) is not str:
            kind = tool.get("type") if type(tool) is dict else tool
            unsupported.add(f"body.tools.{index}", f"the Messages API takes functions with a name here, not {kind!r}")
            continue
        for name in function.keys() - _FUNCTION:
            unsupported.add(f"body.tools.{index}.function.{name}", "the Messages API has no place for it")
        said: dict[str, Any] = {"name": function["name"]}
        if function.get("description") is not None:
            said["description"] = function["description"]
        said["input_schema"] = function.get("parameters") or {"type": "object", "properties": {}}
        if function.get("strict") is not None:
            said["strict"] = function["strict"]
        if "cache_control" in tool:
            said["cache_control"] = tool["cache_control"]
        tools.append(said)
    if tools:
        wire["tools"] = tools


def _choose(body: dict[str, Any], wire: dict[str, Any], unsupported: Unsupported) -> None:
    """`tool_choice` and `parallel_tool_calls`, which are one field on this wire."""
    said = body.get("tool_choice")
    choice: dict[str, Any] | None = None
    if type(said) is str and said in _CHOICES:
        choice = {"type": _CHOICES[said]}
    elif type(said) is dict and type(said.get("function")) is dict:
        choice = {"type": "tool", "name": said["function"].get("name")}
    elif said is not None:
        unsupported.add("body.tool_choice", "the Messages API takes auto, none, required or one function")
    if body.get("parallel_tool_calls") is False and (choice is None or choice["type"] != "none"):
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    if choice is not None:
        wire["tool_choice"] = choice


_FIELDS: dict[str, Callable[[Any, dict[str, Any], Unsupported], None]] = {
    "reasoning_effort": _effort,
    "response_format": _response_format,
    "safety_identifier": _user,
    "service_tier": _service_tier,
    "stop": _stop,
    "temperature": _temperature,
    "tools": _tools,
    "user": _user,
}
