"""Canonical bodies in Ollama's words: /api/chat, /api/generate, /api/embed.

Source: Ollama's docs, "API Reference" (openapi.yaml), and its types (api/types.go).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.core.errors import InvalidRequest
from engine.dialects.common.unsupported import Unsupported
from engine.dialects.ollama.messages import write_messages

OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repetition_penalty": "repeat_penalty",
}
"""Canonical field → the name in `options`. Others of Ollama's own are said in `body.options`."""
EFFORTS: dict[str, bool | str] = {
    "none": False, "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "max", "max": "max",
}  # fmt: skip
"""`reasoning_effort` → `think`, as Ollama's own OpenAI wire maps them (openai/openai.go)."""
_READ = frozenset(("model", "stream", "stream_options", "options"))

Write = Callable[[dict[str, Any], dict[str, Any], Any, Unsupported], None]
"""Puts a field's value into the wire's body; gets also the canonical body and where to note a loss."""


def chat(body: dict[str, Any], model: str, stream: bool, unsupported: Unsupported) -> dict[str, Any]:
    """The body for /api/chat. Raises InvalidRequest."""
    wire = {"model": model, "messages": write_messages(body.get("messages"), unsupported), "stream": stream}
    _write_fields(wire, body, _CHAT, unsupported)
    return wire


def completion(body: dict[str, Any], model: str, stream: bool, unsupported: Unsupported) -> dict[str, Any]:
    """The body for /api/generate. Raw, for a completion continues from its prompt: the model's chat template would make
    a question of it. A suffix or an image needs the template, so it is not raw. Raises InvalidRequest."""
    prompt = body.get("prompt")
    if type(prompt) is list and len(prompt) == 1:
        prompt = prompt[0]
    if type(prompt) is not str or not prompt:
        raise InvalidRequest("body.prompt: Ollama takes one text that is not empty; send one request for each prompt")
    wire: dict[str, Any] = {"model": model, "prompt": prompt, "stream": stream}
    if not body.get("suffix") and not body.get("images"):
        wire["raw"] = True
    _write_fields(wire, body, _COMPLETION, unsupported)
    return wire


def embedding(body: dict[str, Any], model: str, unsupported: Unsupported) -> dict[str, Any]:
    """The body for /api/embed. An input that is too long is an error, as in the canonical form, unless the body says
    `truncate`: left to itself, Ollama would cut it without a word. Raises InvalidRequest."""
    texts = body.get("input")
    if not isinstance(texts, str | list) or not texts:
        raise InvalidRequest("body.input: expected a text or a list of texts")
    if type(texts) is list:
        for index, text in enumerate(texts):
            if type(text) is not str:
                raise InvalidRequest(f"body.input[{index}]: Ollama embeds text, not tokens; send the text itself")
    wire: dict[str, Any] = {"model": model, "input": texts, "truncate": False}
    _write_fields(wire, body, _EMBEDDING, unsupported)
    return wire


def _write_fields(
    wire: dict[str, Any], body: dict[str, Any], writes: dict[str, Write], unsupported: Unsupported
) -> None:
    """Everything but what the task itself is about."""
    given = body.get("options")
    if given is not None and type(given) is not dict:
        raise InvalidRequest(f"body.options: expected an object of Ollama's options, got {type(given).__name__}")
    options: dict[str, Any] = dict(given) if given else {}
    for name, value in body.items():
        if value is None or name in _READ:
            continue
        write = writes.get(name)
        if write is not None:
            write(wire, body, value, unsupported)
        elif name in OPTIONS:
            options[OPTIONS[name]] = value
        elif name in ("max_tokens", "max_completion_tokens"):
            if name == "max_tokens" and body.get("max_completion_tokens") is not None:
                continue
            options["num_predict"] = value
        elif name == "stop":
            if value:
                options["stop"] = [value] if type(value) is str else value
        else:
            unsupported.lose_field(name, value)
    if options:
        wire["options"] = options


def _skip(wire: dict[str, Any], body: dict[str, Any], value: Any, unsupported: Unsupported) -> None:
    """Already in place."""


def _keep(name: str) -> Write:
    def write(wire: dict[str, Any], body: dict[str, Any], value: Any, unsupported: Unsupported) -> None:
        wire[name] = value

    return write


def _tools(wire: dict[str, Any], body: dict[str, Any], value: Any, unsupported: Unsupported) -> None:
    if type(value) is not list:
        raise InvalidRequest("body.tools: expected a list")
    if not value or body.get("tool_choice") == "none":
        return  # not offered, so not called: what "none" requests
    wire["tools"] = [_tool(tool, f"body.tools[{index}]", unsupported) for index, tool in enumerate(value)]


def _tool(tool: Any, where: str, unsupported: Unsupported) -> dict[str, Any]:
    function = tool.get("function") if type(tool) is dict else None
    if type(function) is not dict or tool.get("type", "function") != "function":
        raise InvalidRequest(f'{where}: Ollama takes tools of the form {{"type": "function", "function": {{…}}}} only')
    if function.get("strict"):
        unsupported.lose(f"{where}.function.strict", "Ollama does not hold a tool's arguments to their schema")
    kept = {name: value for name, value in function.items() if name != "strict" and value is not None}
    kept.setdefault("parameters", {"type": "object", "properties": {}})
    return {"type": "function", "function": kept}


def _tool_choice(wire: dict[str, Any], body: dict[str, Any], value: Any, unsupported: Unsupported) -> None:
    if value not in ("auto", "none"):
        unsupported.lose("body.tool_choice", "Ollama leaves it to the model whether it calls a tool")


def _format(wire: dict[str, Any], body: dict[str, Any], value: Any, unsupported: Unsupported) -> None:
    kind = value.get("type") if type(value) is dict else None
    if kind == "json_object":
        wire["format"] = "json"
    elif kind == "json_schema":
        named = value.get("json_schema")
        schema = named.get("schema") if type(named) is dict else None
        if type(schema) is not dict:
            raise InvalidRequest("body.response_format.json_schema.schema: expected a JSON schema")
        if named.get("description"):
            unsupported.lose("body.response_format.json_schema.description", "Ollama takes the schema alone")
        wire["format"] = schema
    elif kind != "text":
        unsupported.lose("body.response_format", f"{kind!r} is not text, json_object or json_schema")


def _effort(wire: dict[str, Any], body: dict[str, Any], value: Any, unsupported: Unsupported) -> None:
    if body.get("think") is not None:
        unsupported.lose("body.reasoning_effort", "body.think says the same thing")
    elif type(value) not in (str, bool) or value not in EFFORTS:
        unsupported.lose("body.reasoning_effort", f"{value!r} is not one of: {', '.join(EFFORTS)}")
    else:
        wire["think"] = EFFORTS[value]


def _images(wire: dict[str, Any], body: dict[str, Any], value: Any, unsupported: Unsupported) -> None:
    """Of a completion: images as base64 or data: URLs; a chat has them in its messages."""
    if type(value) is not list or not all(type(each) is str for each in value):
        raise InvalidRequest("body.images: expected a list of base64 texts or data: URLs")
    wire["images"] = [each.partition(",")[2] if each.startswith("data:") else each for each in value]


def _logprobs(wire: dict[str, Any], body: dict[str, Any], value: Any, unsupported: Unsupported) -> None:
    if value:
        wire["logprobs"] = True


def _legacy_logprobs(wire: dict[str, Any], body: dict[str, Any], value: Any, unsupported: Unsupported) -> None:
    """Of a completion: the number of alternatives, 0 for those of the tokens themselves only."""
    if type(value) is not int:
        raise InvalidRequest("body.logprobs: expected a number of alternatives")
    wire["logprobs"] = True
    if value:
        wire["top_logprobs"] = value


def _vector_format(wire: dict[str, Any], body: dict[str, Any], value: Any, unsupported: Unsupported) -> None:
    if value not in ("float", "base64"):
        raise InvalidRequest(f"body.encoding_format: {value!r} is not a format; one of: float, base64")


_OWN: dict[str, Write] = {name: _keep(name) for name in ("keep_alive", "think", "truncate", "shift")}
"""Ollama's own fields; a body that names them means Ollama."""
_CHAT: dict[str, Write] = {
    **_OWN,
    "messages": _skip,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "response_format": _format,
    "reasoning_effort": _effort,
    "logprobs": _logprobs,
    "top_logprobs": _keep("top_logprobs"),
}
_COMPLETION: dict[str, Write] = {
    **_OWN,
    "prompt": _skip,
    "raw": _keep("raw"),
    "suffix": _keep("suffix"),
    "images": _images,
    "response_format": _format,
    "reasoning_effort": _effort,
    "logprobs": _legacy_logprobs,
}
_EMBEDDING: dict[str, Write] = {
    "keep_alive": _keep("keep_alive"),
    "truncate": _keep("truncate"),
    "input": _skip,
    "dimensions": _keep("dimensions"),
    "encoding_format": _vector_format,
}
