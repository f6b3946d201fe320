"""A client's `generateContent` or `embedContent` request → the canonical body.

What changes the meaning of a request and has no canonical form is refused; what is a hint is left out with a warning.
Paths are those of the client's own body. Source: as in `engine.dialects.gemini.request`.
"""

from __future__ import annotations

from typing import Any

from engine.core.errors import InvalidRequest
from engine.dialects.gemini.request import BUDGETS, LEVELS, SAME, TIERS
from engine.dialects.gemini.schema import json_schema
from engine.dialects.gemini.server_messages import canonical_messages, named

_CANONICAL = {wire: canonical for canonical, wire in SAME.items()}
_EFFORTS = {level: effort for effort, level in LEVELS.items()}
_CANONICAL_TIERS = {wire: canonical for canonical, wire in TIERS.items()}
_FIELDS = frozenset(
    ("contents", "systemInstruction", "generationConfig", "tools", "toolConfig", "serviceTier", "model", "stream")
)
_HINTS = ("safetySettings", "labels", "store")
"""Fields that change the serving or checking of an answer, not the request."""
_CONFIG_HINTS = ("mediaResolution", "enableEnhancedCivicAnswers", "audioTimestamp")
_CHOICES = {"AUTO": "auto", "NONE": "none", "ANY": "required"}


def canonical_chat(source: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    """The canonical body, without its model. Raises InvalidRequest."""
    wire = named(source, "the body")
    for name in wire.keys() - _FIELDS:
        if name not in _HINTS:
            raise InvalidRequest(f"{name}: this server can't do what it requests; leave it out")
        warnings.append(f"{name} was left out: it is a hint that only Google's own servers take")
    body: dict[str, Any] = {"messages": canonical_messages(wire, warnings)}
    if wire.get("generationConfig") is not None:
        _read_config(named(wire["generationConfig"], "generationConfig"), body, warnings)
    if wire.get("serviceTier") in _CANONICAL_TIERS:
        body["service_tier"] = _CANONICAL_TIERS[wire["serviceTier"]]
    if wire.get("tools"):
        _read_tools(wire, body)
    return body


def _read_config(config: dict[str, Any], body: dict[str, Any], warnings: list[str]) -> None:
    for name, value in config.items():
        canonical = _CANONICAL.get(name)
        if canonical is not None:
            body[canonical] = value
        elif name == "maxOutputTokens":
            body["max_completion_tokens"] = value
        elif name == "stopSequences":
            if value:
                body["stop"] = value
        elif name == "thinkingConfig":
            _read_thinking(named(value, "generationConfig.thinkingConfig"), body, warnings)
        elif name == "responseModalities":
            body["modalities"] = [str(each).lower() for each in value]
        elif name == "speechConfig":
            body["audio"] = _voice(value)
        elif name in _CONFIG_HINTS:
            warnings.append(f"generationConfig.{name} was left out: it is a hint that only Google's own servers take")
        elif name not in ("responseMimeType", "responseSchema", "responseJsonSchema", "_responseJsonSchema"):
            raise InvalidRequest(f"generationConfig.{name}: this server can't do what it requests; leave it out")
    _read_format(config, body)


def _read_format(config: dict[str, Any], body: dict[str, Any]) -> None:
    where, schema = "generationConfig.responseSchema", config.get("responseSchema")
    if schema is not None:
        schema = json_schema(schema, where)
    else:
        schema = config.get("responseJsonSchema", config.get("_responseJsonSchema"))
    kind = config.get("responseMimeType")
    if schema is not None:
        if type(schema) is not dict or kind != "application/json":
            raise InvalidRequest("generationConfig.responseMimeType: a schema needs application/json")
        name = schema.get("title")
        name = name if type(name) is str and name.replace("_", "").replace("-", "").isalnum() else "response"
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": name[:64], "schema": schema}}
    elif kind == "application/json":
        body["response_format"] = {"type": "json_object"}
    elif kind == "text/plain":
        body["response_format"] = {"type": "text"}
    elif kind is not None:
        raise InvalidRequest(f"generationConfig.responseMimeType: {kind!r} is not text/plain or application/json")


def _read_thinking(thinking: dict[str, Any], body: dict[str, Any], warnings: list[str]) -> None:
    """An effort; `includeThoughts` needs none, for thoughts are part of every canonical reply that has some."""
    level, budget = thinking.get("thinkingLevel"), thinking.get("thinkingBudget")
    if level is not None:
        effort = _EFFORTS.get(str(level).upper())
        if effort is None:
            raise InvalidRequest(f"generationConfig.thinkingConfig.thinkingLevel: {level!r} is not a level")
        body["reasoning_effort"] = effort
    elif budget is not None and budget != -1:  # -1 is the model's own choice
        efforts = [effort for effort, tokens in BUDGETS.items() if effort != "minimal" and tokens >= budget]
        body["reasoning_effort"] = effort = efforts[0] if efforts else "high"
        if BUDGETS[effort] != budget:
            warnings.append(
                f"generationConfig.thinkingConfig.thinkingBudget was read as reasoning_effort {effort}: "
                "there are no budgets in between"
            )


def _voice(value: Any) -> dict[str, Any]:
    where = "generationConfig.speechConfig"
    voice = named(named(value, where).get("voiceConfig", {}), where).get("prebuiltVoiceConfig", {})
    name = named(voice, where).get("voiceName")
    if type(name) is not str:
        raise InvalidRequest(f"{where}.voiceConfig.prebuiltVoiceConfig.voiceName: expected the name of a voice")
    return {"voice": name, "format": "pcm16"}


def _read_tools(wire: dict[str, Any], body: dict[str, Any]) -> None:
    tools: list[dict[str, Any]] = []
    said = wire["tools"]
    for index, tool in enumerate(said if type(said) is list else [said]):
        tool = named(tool, f"tools.{index}")
        for name in tool.keys() - {"functionDeclarations"}:
            raise InvalidRequest(f"tools.{index}.{name}: this server has no such tool; it takes functionDeclarations")
        for place, function in enumerate(tool.get("functionDeclarations") or ()):
            where = f"tools.{index}.functionDeclarations.{place}"
            tools.append({"type": "function", "function": _function(named(function, where), where)})
    if not tools:
        return
    body["tools"] = tools
    config = named(wire.get("toolConfig") or {}, "toolConfig").get("functionCallingConfig")
    if config is not None:
        _read_choice(named(config, "toolConfig.functionCallingConfig"), body)


def _function(said: dict[str, Any], where: str) -> dict[str, Any]:
    if type(said.get("name")) is not str:
        raise InvalidRequest(f"{where}.name: expected the name of a function")
    function: dict[str, Any] = {"name": said["name"]}
    if "description" in said:
        function["description"] = said["description"]
    if "parametersJsonSchema" in said:
        function["parameters"] = said["parametersJsonSchema"]
    elif "parameters" in said:
        function["parameters"] = json_schema(said["parameters"], f"{where}.parameters")
    return function


def _read_choice(config: dict[str, Any], body: dict[str, Any]) -> None:
    mode, names = config.get("mode", "AUTO"), config.get("allowedFunctionNames") or []
    mode = str(mode).upper()
    if mode == "MODE_UNSPECIFIED":
        return
    functions = [{"type": "function", "function": {"name": name}} for name in names]
    if mode == "VALIDATED" and not names:
        for tool in body["tools"]:
            tool["function"]["strict"] = True
    elif mode == "ANY" and len(names) == 1:
        body["tool_choice"] = functions[0]
    elif mode in ("ANY", "VALIDATED") and names:
        allowed = {"mode": "required" if mode == "ANY" else "auto", "tools": functions}
        body["tool_choice"] = {"type": "allowed_tools", "allowed_tools": allowed}
    elif mode in _CHOICES:
        body["tool_choice"] = _CHOICES[mode]
    else:
        raise InvalidRequest(f"toolConfig.functionCallingConfig.mode: {mode!r} is not a mode")


def canonical_embedding(source: dict[str, Any], many: bool, warnings: list[str]) -> dict[str, Any]:
    """The canonical body of `batchEmbedContents` (`many`) or `embedContent`, without its model. Raises
    InvalidRequest."""
    wire = named(source, "the body")
    if not many:
        text, options = _embedded(wire, "the body", warnings)
        return {"input": text, **options}
    requests = wire.get("requests")
    if type(requests) is not list or not requests:
        raise InvalidRequest("requests: expected a list with at least one request")
    read = [
        _embedded(named(each, f"requests.{index}"), f"requests.{index}", warnings)
        for index, each in enumerate(requests)
    ]
    if any(options != read[0][1] for _, options in read):
        raise InvalidRequest("requests: outputDimensionality has to be the same in all; send them apart")
    return {"input": [text for text, _ in read], **read[0][1]}


def _embedded(wire: dict[str, Any], where: str, warnings: list[str]) -> tuple[str, dict[str, Any]]:
    content = named(wire.get("content"), f"{where}.content")
    parts = content.get("parts")
    parts = parts if type(parts) is list else []
    texts = [part["text"] for part in parts if type(part.get("text")) is str]
    if not texts or len(texts) < len(parts):
        raise InvalidRequest(f"{where}.content.parts: this server embeds texts")
    for name in ("taskType", "title"):
        if name in wire:
            warnings.append(f"{where}.{name} was left out: it is a hint that only Google's own servers take")
    for name in wire.keys() - {"model", "content", "taskType", "title", "outputDimensionality"}:
        raise InvalidRequest(f"{where}.{name}: this server can't do what it requests; leave it out")
    options = {"dimensions": wire["outputDimensionality"]} if "outputDimensionality" in wire else {}
    return "\n".join(texts), options
