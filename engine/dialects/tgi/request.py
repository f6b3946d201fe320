"""Canonical bodies in the words of Text Generation Inference: /generate, /v1/chat/completions.

Source: the server's OpenAPI document (huggingface.github.io/text-generation-inference) and its router
(router/src/lib.rs, validation.rs).
"""

from __future__ import annotations

from typing import Any

from engine.core.errors import InvalidRequest
from engine.dialects.common.allowed_tools import narrowed
from engine.dialects.common.unsupported import Unsupported
from engine.dialects.tgi import messages

PARAMETERS = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repetition_penalty",
    "best_of": "best_of",
    "echo": "return_full_text",
}
"""Canonical field → the name in `parameters`."""
OWN = ("typical_p", "truncate", "watermark", "adapter_id", "do_sample")
"""The server's own parameters; a body that names them means this server."""
_READ = frozenset(("model", "stream", "stream_options", "prompt"))
_CHAT = frozenset(
    (
        "model", "stream", "stream_options", "frequency_penalty", "presence_penalty", "logprobs", "top_logprobs",
        "seed", "temperature", "top_p", "tool_choice", "tool_prompt",
    )
)  # fmt: skip
"""The fields that the chat takes as OpenAI has them; the server ignores every other field."""


def completion(body: dict[str, Any], stream: bool, unsupported: Unsupported) -> dict[str, Any]:
    """The body for /generate and /generate_stream. Raises InvalidRequest.

    As on the server's own OpenAI path, tokens are sampled unless the temperature is 0, for the native path's default
    is to take the likeliest. `details` are always requested: the finish reason and the usage are there.
    """
    prompt = body.get("prompt")
    if type(prompt) is list and len(prompt) == 1:
        prompt = prompt[0]
    if type(prompt) is not str or not prompt:
        raise InvalidRequest("body.prompt: this server takes one text that is not empty; send one request per prompt")
    parameters: dict[str, Any] = {"details": True, "do_sample": True}
    for name, value in body.items():
        if value is None or name in _READ:
            continue
        if name in PARAMETERS:
            parameters[PARAMETERS[name]] = value
        elif name in OWN:
            parameters[name] = value
        elif name == "stop":
            parameters["stop"] = [value] if type(value) is str else value
        elif name == "logprobs" and type(value) is int:
            # One at least: the reply says the tokens' own only with details, which are requested in any case.
            parameters["top_n_tokens"] = max(value, 1)
        elif name == "response_format":
            grammar = _grammar(value)
            if grammar is not None:
                parameters["grammar"] = grammar
        else:
            unsupported.lose_field(name, value)
    _fit(parameters, stream, unsupported)
    return {"inputs": prompt, "parameters": parameters}


def chat(body: dict[str, Any], unsupported: Unsupported) -> dict[str, Any]:
    """The body for the server's OpenAI path, in the few things that it says otherwise. Raises InvalidRequest."""
    wire: dict[str, Any] = {}
    body = narrowed(body)
    for name, value in body.items():
        if name == "messages":
            wire[name] = messages.messages(value, unsupported)
        elif name == "tools":
            wire[name] = messages.tools(value)
        elif name in _CHAT:
            wire[name] = value
        elif name == "max_tokens" or name == "max_completion_tokens":
            if value is not None and (name != "max_tokens" or body.get("max_completion_tokens") is None):
                wire["max_tokens"] = value
        elif name == "stop":
            wire["stop"] = [value] if type(value) is str else value
        elif name == "response_format":
            form = _grammar(value, chat=True)
            if form is not None:
                wire["response_format"] = form
        else:
            unsupported.lose_field(name, value)
    if wire.get("response_format") and wire.get("tools"):
        unsupported.lose("body.response_format", "this server holds an answer to a form, or offers tools, but not both")
        del wire["response_format"]
    if wire.get("top_p") == 1:
        del wire["top_p"]  # refused by the server, and says nothing
    if wire.get("presence_penalty") == 0:
        del wire["presence_penalty"]  # the server makes a repetition penalty of 2 of it
    return wire


def _fit(parameters: dict[str, Any], stream: bool, unsupported: Unsupported) -> None:
    """The meaning of values at the ends of their ranges, which the server refuses."""
    if parameters.get("temperature") == 0:
        del parameters["temperature"]
        parameters["do_sample"] = False
    if parameters.get("top_p") == 1:
        del parameters["top_p"]
    if not parameters.get("return_full_text"):
        parameters.pop("return_full_text", None)
    elif stream:
        unsupported.lose("body.echo", "a stream of this server's has the answer alone")
        del parameters["return_full_text"]
    if parameters.get("best_of") == 1:
        del parameters["best_of"]
    elif parameters.get("best_of") and stream:
        unsupported.lose("body.best_of", "this server can't stream the best of several answers")
        del parameters["best_of"]


def _grammar(form: Any, *, chat: bool = False) -> dict[str, Any] | None:
    """Returns what holds the answer to a form; None for plain text. Raises InvalidRequest."""
    kind = form.get("type") if type(form) is dict else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json", "value": {"type": "object"}}
    if kind != "json_schema":
        raise InvalidRequest(f"body.response_format.type: {kind!r} is not one of: text, json_object, json_schema")
    named = form.get("json_schema")
    schema = named.get("schema") if type(named) is dict else None
    if type(schema) is not dict:
        raise InvalidRequest("body.response_format.json_schema.schema: expected a JSON schema")
    if chat and named.get("name"):
        return {"type": "json_schema", "value": {"name": named["name"], "schema": schema}}
    return {"type": "json", "value": schema}
