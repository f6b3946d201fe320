"""Reads an Ollama client's request in canonical words. Source: Ollama's docs, "API Reference", and its api/types.go."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.core.errors import InvalidRequest
from engine.dialects.ollama.request import EFFORTS, OPTIONS

_FLAT = {wire: canonical for canonical, wire in OPTIONS.items()} | {"num_predict": "max_tokens", "stop": "stop"}
"""Name in `options` → canonical field."""
_RUNNER = frozenset(
    (
        "num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "use_mlock", "num_thread", "numa", "low_vram",
        "f16_kv", "logits_all", "vocab_only", "embedding_only", "num_keep", "draft_num_predict",
    )
)  # fmt: skip
"""Fields of loading a model: never a file that another user's request names."""
_UNSAID = ("keep_alive", "template", "context", "shift", "width", "height", "steps")
"""Fields with nothing like them in the canonical form."""
_EFFORTS: dict[Any, str] = {think: effort for effort, think in EFFORTS.items() if effort not in ("minimal", "max")}
_THINK_DEFAULT = "medium"
"""Ollama's level for `think: true` (api/types.go, `ThinkValue.String`)."""
_MEDIA = (
    ("iVBORw0KGgo", "image/png"),
    ("/9j/", "image/jpeg"),
    ("R0lGOD", "image/gif"),
    ("UklGR", "RIFF"),
)
"""The beginning of the base64 of each kind of file."""
_encode = msgspec.json.Encoder().encode


def read_messages(messages: Any) -> list[dict[str, Any]]:
    """The canonical messages. Raises InvalidRequest."""
    if type(messages) is not list or not messages:
        raise InvalidRequest("body.messages: expected at least one message; models are loaded at their first request")
    canonical: list[dict[str, Any]] = []
    calls: list[tuple[str, str]] = []
    """Id and name of the calls whose answers have not come yet: clients may name neither id nor order."""
    made = 0
    for index, message in enumerate(messages):
        where = f"body.messages[{index}]"
        role = message.get("role") if type(message) is dict else None
        content = message.get("content") or "" if type(message) is dict else None
        if type(role) is not str or type(content) is not str:
            raise InvalidRequest(f"{where}: expected a role and a text as content")
        role = role.lower()
        if role == "tool":
            canonical.append({"role": role, "tool_call_id": _answered(message, calls, where), "content": content})
            continue
        written: dict[str, Any] = {"role": role, "content": _content(content, message.get("images"), where)}
        if message.get("thinking"):
            written["reasoning_content"] = message["thinking"]
        if message.get("tool_calls"):
            written["tool_calls"] = _calls(message["tool_calls"], made, where)
            written["content"] = written["content"] or None
            made += len(written["tool_calls"])
            calls += [(call["id"], call["function"]["name"]) for call in written["tool_calls"]]
        canonical.append(written)
    return canonical


def read_prompt(wire: dict[str, Any], body: dict[str, Any]) -> str:
    """Puts what /api/generate is about into the canonical body; the task that it is. Raises InvalidRequest."""
    prompt = wire.get("prompt") or ""
    if type(prompt) is not str or not (prompt or wire.get("images")):
        raise InvalidRequest("body.prompt: expected a text; models are loaded at their first request")
    if wire.get("raw") or wire.get("suffix"):
        for name in ("system", "images", "think"):
            if wire.get(name):
                raise InvalidRequest(f"body.{name}: does not go together with a raw prompt or a suffix; leave one out")
        body["prompt"] = prompt
        if wire.get("suffix"):
            body["suffix"] = wire["suffix"]
        return "completion"
    system = [{"role": "system", "content": wire["system"]}] if wire.get("system") else []
    body["messages"] = [*system, {"role": "user", "content": _content(prompt, wire.get("images"), "body")}]
    return "chat"


def read_fields(wire: dict[str, Any], body: dict[str, Any], task: str) -> list[str]:
    """Puts everything else into the canonical body; warnings for what it can't say. Raises InvalidRequest."""
    warnings = [f"body.{name} has no effect here" for name in _UNSAID if wire.get(name) is not None]
    options = wire.get("options") or {}
    if type(options) is not dict:
        raise InvalidRequest("body.options: expected an object")
    own: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        if name in _FLAT:
            body[_FLAT[name]] = value
        elif name in _RUNNER:
            warnings.append(f"body.options.{name} has no effect here")
        else:
            own[name] = value
    if own:
        body["options"] = own  # more ways to choose tokens: the target knows them or refuses them
    if task == "embedding":
        if wire.get("dimensions"):
            body["dimensions"] = wire["dimensions"]
        if wire.get("truncate"):
            # Not where it is left out, though it is Ollama's default: an input that is cut without a word is not an
            # answer.
            body["truncate"] = True
        return warnings
    if wire.get("truncate") is not None:
        warnings.append("body.truncate has no effect here")
    _read_shape(wire, body, task)
    return warnings


def _read_shape(wire: dict[str, Any], body: dict[str, Any], task: str) -> None:
    """Tools, the answer's form, thinking and log probabilities."""
    if wire.get("tools"):
        body["tools"] = wire["tools"]
    form = wire.get("format")
    if form == "json":
        body["response_format"] = {"type": "json_object"}
    elif type(form) is dict:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "response", "schema": form}}
    elif form:
        raise InvalidRequest('body.format: expected "json" or a JSON schema')
    think = wire.get("think")
    if think is not None:
        effort = _THINK_DEFAULT if think is True else _EFFORTS.get(think) if isinstance(think, bool | str) else None
        if effort is None:
            raise InvalidRequest("body.think: expected true, false, low, medium, high or max")
        body["reasoning_effort"] = effort
    if wire.get("logprobs"):
        if task == "completion":
            body["logprobs"] = wire.get("top_logprobs") or 0
        else:
            body["logprobs"] = True
            if wire.get("top_logprobs"):
                body["top_logprobs"] = wire["top_logprobs"]


def _content(text: str, images: Any, where: str) -> Any:
    if not images:
        return text
    if type(images) is not list:
        raise InvalidRequest(f"{where}.images: expected a list of base64 texts")
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    return parts + [_media(image, f"{where}.images[{index}]") for index, image in enumerate(images)]


def _media(data: Any, where: str) -> dict[str, Any]:
    """A part for an image or an audio: Ollama has one list for both and tells them apart by their first bytes."""
    kind = next((kind for start, kind in _MEDIA if data.startswith(start)), None) if type(data) is str else None
    if kind == "RIFF":
        # Base64 characters 11 to 15 hold the last bytes of the word WEBP or WAVE, which is at byte 8 of the file.
        kind = {"XRUJQ": "image/webp", "XQVZF": "audio/wav"}.get(data[11:16])
    if kind is None:
        raise InvalidRequest(f"{where}: expected the base64 of a PNG, JPEG, GIF, WebP or WAV file")
    if kind == "audio/wav":
        return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}


def _calls(calls: Any, made: int, where: str) -> list[dict[str, Any]]:
    written = []
    for index, call in enumerate(calls if type(calls) is list else [None]):
        function = call.get("function") if type(call) is dict else None
        if type(function) is not dict or type(function.get("name")) is not str:
            raise InvalidRequest(f"{where}.tool_calls[{index}].function.name: expected the name of the tool")
        arguments = _encode(function.get("arguments") or {}).decode()
        written.append(
            {
                "id": call.get("id") or f"call_{made + index}",
                "type": "function",
                "function": {"name": function["name"], "arguments": arguments},
            }
        )
    return written


def _answered(message: dict[str, Any], calls: list[tuple[str, str]], where: str) -> str:
    """The id of the call that a tool's message answers: as it says, else by the tool's name, else the oldest."""
    said, tool = message.get("tool_call_id"), message.get("tool_name")
    matching = [call for call in calls if (call[0] == said if said else not tool or call[1] == tool)]
    if not matching:
        if type(said) is str and said:
            return said
        raise InvalidRequest(
            f"{where}: a tool's answer to no call before it; add the assistant's message with the call"
        )
    calls.remove(matching[0])
    return matching[0][0]
