"""The canonical chat body → the body of Gemini's `generateContent`.

What the wire can't say is refused, or dropped with a warning where the provider's config says so; nothing is lost in
silence. Source: the Gemini API's reference, "Generating content" (GenerationConfig, ThinkingConfig), "Caching" (Tool,
ToolConfig, FunctionDeclaration); its guides "Structured outputs", "Thinking" and "OpenAI compatibility", which has the
table of efforts and the fields of `extra_body.google`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.core.errors import InvalidRequest, nearest
from engine.dialects.common.unsupported import Unsupported
from engine.dialects.gemini.messages import has_levels, samples, wire_messages

SAME = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "n": "candidateCount",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
"""Fields of `generationConfig` that say the same, by their canonical name."""
BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
"""Tokens of thoughts by effort, for models before Gemini 3."""
LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "XHIGH"}
TIERS = {"default": "standard", "flex": "flex", "priority": "priority"}
_ELSEWHERE = frozenset(
    {
        "audio",
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
_THINKING = {
    "thinking_budget": "thinkingBudget",
    "thinking_level": "thinkingLevel",
    "include_thoughts": "includeThoughts",
}
_SAMPLING = ("temperature", "top_p", "top_k")
_FUNCTION = frozenset(("name", "description", "parameters", "strict"))
_CHOICES = {"none": "NONE", "auto": "AUTO", "required": "ANY"}

Field = Callable[[Any, dict[str, Any], dict[str, Any], str, Unsupported], None]


def wire_body(body: dict[str, Any], model: str, unsupported: Unsupported) -> dict[str, Any]:
    """The wire's body. Raises InvalidRequest."""
    wire: dict[str, Any] = {}
    config: dict[str, Any] = {}
    wire_messages(body.get("messages"), wire, model, unsupported)
    for name, value in body.items():
        if value is None or name in _ELSEWHERE:
            continue
        same = SAME.get(name)
        if same is not None:
            config[same] = value
        elif name in _FIELDS:
            _FIELDS[name](value, wire, config, model, unsupported)
        else:
            unsupported.lose_field(name, value)
    if not samples(model):
        for name in _SAMPLING:
            if body.get(name) is not None:
                unsupported.warnings.append(f"body.{name} has no effect: {model} samples in a way of its own")
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit is not None:
        config["maxOutputTokens"] = limit
    if body.get("audio") is not None:
        _audio(body, config, unsupported)
    if config:
        wire["generationConfig"] = config
    if "tools" in wire:
        _choose(body, wire, unsupported)
    else:
        unsupported.lose_field("tool_choice", body.get("tool_choice"))
    unsupported.lose_field("parallel_tool_calls", body.get("parallel_tool_calls"))
    return wire


def _stop(value: Any, wire: dict[str, Any], config: dict[str, Any], model: str, unsupported: Unsupported) -> None:
    if value:
        config["stopSequences"] = [value] if isinstance(value, str) else value


def _effort(value: Any, wire: dict[str, Any], config: dict[str, Any], model: str, unsupported: Unsupported) -> None:
    where = "body.reasoning_effort"
    thinking = config.setdefault("thinkingConfig", {})
    if has_levels(model):
        if value == "none":
            unsupported.lose(where, "this Gemini model always thinks; minimal is the least")
        elif value in LEVELS:
            # Who requests an effort needs to see what it was for: thoughts come only when they are requested.
            config["thinkingConfig"] = {"thinkingLevel": LEVELS[value], "includeThoughts": True, **thinking}
        else:
            unsupported.lose(where, f"{value!r} is not an effort here; {nearest(value, LEVELS)}")
    elif value in BUDGETS:
        said: dict[str, Any] = {"thinkingBudget": BUDGETS[value]}
        if said["thinkingBudget"]:
            said["includeThoughts"] = True
        config["thinkingConfig"] = {**said, **thinking}
    else:
        unsupported.lose(where, f"{value!r} is not an effort of this model; {nearest(value, BUDGETS)}")
    if not config["thinkingConfig"]:
        del config["thinkingConfig"]


def _response_format(
    value: Any, wire: dict[str, Any], config: dict[str, Any], model: str, unsupported: Unsupported
) -> None:
    kind = value.get("type") if type(value) is dict else None
    if kind == "text":
        config["responseMimeType"] = "text/plain"
    elif kind == "json_object":
        config["responseMimeType"] = "application/json"
    elif kind == "json_schema":
        said = value.get("json_schema")
        schema = said.get("schema") if type(said) is dict else None
        if type(schema) is not dict:
            raise InvalidRequest("body.response_format.json_schema.schema: expected a JSON schema, an object")
        if said.get("description"):
            if schema.get("description"):
                unsupported.lose("body.response_format.json_schema.description", "the schema has a description already")
            else:
                schema = {**schema, "description": said["description"]}
        config["responseMimeType"] = "application/json"
        # The schema's `name` is a label that no model sees there; `strict` is how this wire always works.
        config["responseJsonSchema"] = schema
    else:
        unsupported.lose("body.response_format", f"Gemini knows text, json_object and json_schema, not {kind!r}")


def _service_tier(
    value: Any, wire: dict[str, Any], config: dict[str, Any], model: str, unsupported: Unsupported
) -> None:
    tier = TIERS.get(value)
    if tier is not None:
        wire["serviceTier"] = tier
    else:
        unsupported.lose_field("service_tier", value)


def _modalities(value: Any, wire: dict[str, Any], config: dict[str, Any], model: str, unsupported: Unsupported) -> None:
    if type(value) is not list or not all(each in ("text", "audio", "image") for each in value):
        unsupported.lose("body.modalities", "Gemini answers in text, audio and image")
    elif value != ["text"]:
        config["responseModalities"] = [each.upper() for each in value]


def _audio(body: dict[str, Any], config: dict[str, Any], unsupported: Unsupported) -> None:
    """The voice of an answer in audio."""
    audio = body["audio"]
    voice = audio.get("voice") if type(audio) is dict else None
    if type(voice) is not str:
        raise InvalidRequest("body.audio.voice: expected the name of a voice, such as Kore")
    if audio.get("format") not in (None, "pcm16"):
        unsupported.lose("body.audio.format", f"Gemini speaks pcm16 at 24 kHz only, not {audio['format']!r}")
    config["speechConfig"] = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": voice}}}


def _google(value: Any, wire: dict[str, Any], config: dict[str, Any], model: str, unsupported: Unsupported) -> None:
    """`extra_body.google`: what only Gemini has, as Google's own OpenAI wire takes it."""
    google = value.get("google") if type(value) is dict else None
    if type(google) is not dict or len(value) != 1:
        unsupported.lose("body.extra_body", "Gemini reads extra_body.google only")
        return
    for name, said in google.items():
        if name == "thinking_config" and type(said) is dict:
            thinking = config.setdefault("thinkingConfig", {})
            thinking.update({_THINKING.get(key, key): each for key, each in said.items()})
        elif name == "cached_content":
            wire["cachedContent"] = said
        elif name == "safety_settings":
            wire["safetySettings"] = said
        else:
            unsupported.lose(
                f"body.extra_body.google.{name}",
                "Gemini takes thinking_config, cached_content and safety_settings here",
            )


def _tools(value: Any, wire: dict[str, Any], config: dict[str, Any], model: str, unsupported: Unsupported) -> None:
    if type(value) is not list:
        raise InvalidRequest(f"body.tools: expected a list, got {type(value).__name__}")
    declared: list[dict[str, Any]] = []
    for index, tool in enumerate(value):
        where = f"body.tools.{index}"
        function = tool.get("function") if type(tool) is dict else None
        if type(function) is not dict or type(function.get("name")) is not str:
            unsupported.lose(where, "Gemini takes tools of type function, with a name")
            continue
        for key in function.keys() - _FUNCTION:
            unsupported.lose(f"{where}.function.{key}")
        said: dict[str, Any] = {"name": function["name"]}
        if function.get("description") is not None:
            said["description"] = function["description"]
        if function.get("parameters") is not None:
            said["parametersJsonSchema"] = function["parameters"]
        declared.append(said)
        if function.get("strict"):
            # Calls or words, and the calls as their schemas have them.
            wire["toolConfig"] = {"functionCallingConfig": {"mode": "VALIDATED"}}
    if declared:
        wire["tools"] = [{"functionDeclarations": declared}]


def _choose(body: dict[str, Any], wire: dict[str, Any], unsupported: Unsupported) -> None:
    """`tool_choice`, which with `strict` of the functions is the mode of calling on this wire."""
    said = body.get("tool_choice")
    calling: dict[str, Any] | None = None
    if said is None or (said == "auto" and "toolConfig" in wire):
        return
    if type(said) is str and said in _CHOICES:
        calling = {"mode": _CHOICES[said]}
    elif type(said) is dict and type(said.get("function")) is dict:
        calling = {"mode": "ANY", "allowedFunctionNames": [said["function"].get("name")]}
    elif type(said) is dict and type(said.get("allowed_tools")) is dict:
        allowed = said["allowed_tools"]
        names = [(tool.get("function") or {}).get("name") for tool in allowed.get("tools") or ()]
        mode = "ANY" if allowed.get("mode") == "required" else "VALIDATED"
        calling = {"mode": mode, "allowedFunctionNames": names}
    else:
        unsupported.lose("body.tool_choice", "Gemini takes auto, none, required, one function or allowed_tools")
    if calling is not None:
        wire["toolConfig"] = {"functionCallingConfig": calling}


_FIELDS: dict[str, Field] = {
    "extra_body": _google,
    "modalities": _modalities,
    "reasoning_effort": _effort,
    "response_format": _response_format,
    "service_tier": _service_tier,
    "stop": _stop,
    "tools": _tools,
}
