"""JSON Schemas as Claude's structured outputs take them.

Objects are closed; a keyword that the wire refuses moves into the description, where the model reads it and nothing
enforces it. Source: Anthropic's guide "Structured outputs" ("JSON Schema limitations"), and the rewriting in its SDK.
"""

from __future__ import annotations

from typing import Any

from engine.core.errors import InvalidRequest

_FORMATS = frozenset(
    {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"}
)  # fmt: skip
_CHOICES = ("anyOf", "oneOf", "allOf")
_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})


def rewritten(schema: dict[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """Returns the schema for the wire, and the keywords that became descriptions. Raises InvalidRequest for a part
    without a type; `where` is the schema's path in messages."""
    described: dict[str, None] = {}
    return _rewritten(schema, where, described), list(described)


def _rewritten(schema: Any, where: str, described: dict[str, None]) -> dict[str, Any]:
    if type(schema) is not dict:
        raise InvalidRequest(f"{where}: got {type(schema).__name__}; expected a JSON Schema, an object")
    left = dict(schema)
    made: dict[str, Any] = {}
    if "$defs" in left:
        parts = _object(left.pop("$defs"), f"{where}.$defs")
        made["$defs"] = {name: _rewritten(part, f"{where}.$defs.{name}", described) for name, part in parts.items()}
    if "$ref" in left:  # nothing next to it counts
        return {**made, "$ref": left["$ref"]}
    kind = left.pop("type", None)
    kinds = kind if isinstance(kind, list) else [kind]
    choices = {name: left.pop(name) for name in _CHOICES if name in left}
    if isinstance(kind, list) and not choices:  # the wire has one type a schema
        keys = {"title", "description", "$defs"}
        plain = {name: left.pop(name) for name in keys & left.keys()}
        variants = [{"type": each, **_meant_for(each, left)} for each in kinds]
        made |= {"anyOf": [_rewritten(each, where, described) for each in variants]}
        made |= {name: plain[name] for name in ("description", "title") if name in plain}
        return made
    enum = left.get("enum")
    literal = False
    if isinstance(enum, list) and enum and all(map(_primitive, enum)):
        made["enum"], literal = left.pop("enum"), True
    if "const" in left and _primitive(left["const"]):
        made["const"], literal = left.pop("const"), True
    name = next(iter(choices), None)
    if name is not None:
        variants = choices[name]
        if not isinstance(variants, list):
            raise InvalidRequest(f"{where}.{name}: got {type(variants).__name__}; expected a list of schemas")
        made["allOf" if name == "allOf" else "anyOf"] = [
            _rewritten(each, f"{where}.{name}.{index}", described) for index, each in enumerate(variants)
        ]
    elif not literal:
        if kind not in _TYPES:
            raise InvalidRequest(
                f"{where}.type: got {kind!r}; expected one of {', '.join(sorted(_TYPES))}, for Claude needs a type, a "
                "choice of schemas, or a list of values"
            )
        made["type"] = kind
    made |= {name: left.pop(name) for name in ("description", "title") if left.get(name) is not None}
    if made.get("type") == "object":
        _close(made, left, where, described)
    elif made.get("type") == "string" and left.get("format"):
        form = left.pop("format")
        (made if form in _FORMATS else left)["format"] = form
    elif made.get("type") == "array":
        if left.get("items") is not None:
            made["items"] = _rewritten(left.pop("items"), f"{where}.items", described)
        if left.get("minItems") is not None:
            least = left.pop("minItems")
            (made if least in (0, 1) else left)["minItems"] = least
    if left:
        described |= dict.fromkeys(left)
        text = "{" + ", ".join(f"{name}: {value}" for name, value in left.items()) + "}"
        made["description"] = f"{made['description']}\n\n{text}" if "description" in made else text
    return made


def _close(made: dict[str, Any], left: dict[str, Any], where: str, described: dict[str, None]) -> None:
    """Moves an object's keywords from `left` to `made`, without further properties."""
    fields = _object(left.pop("properties", {}), f"{where}.properties")
    made["properties"] = {
        name: _rewritten(part, f"{where}.properties.{name}", described) for name, part in fields.items()
    }
    if left.get("additionalProperties") not in (None, False):
        described["additionalProperties"] = None
    left.pop("additionalProperties", None)
    made["additionalProperties"] = False
    if left.get("required") is not None:
        made["required"] = left.pop("required")


_OF_TYPE = {
    "array": ("items", "minItems", "maxItems", "uniqueItems"),
    "object": ("properties", "required", "additionalProperties"),
    "string": ("format", "pattern", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}


def _meant_for(kind: Any, keywords: dict[str, Any]) -> dict[str, Any]:
    """Returns the keywords that say something of a type, of a schema with several types."""
    named = {each for names in _OF_TYPE.values() for each in names}
    return {name: value for name, value in keywords.items() if name in _OF_TYPE.get(kind, ()) or name not in named}


def _object(value: Any, where: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise InvalidRequest(f"{where}: got {type(value).__name__}; expected an object")
    return value


def _primitive(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
