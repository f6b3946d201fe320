"""Gemini's `Schema`, a part of OpenAPI 3.0's, → JSON Schema.

Source: the Gemini API's reference, "Caching" (Schema).
"""

from __future__ import annotations

from typing import Any

from engine.core.errors import InvalidRequest
from engine.dialects.gemini.server_messages import named

_COUNTS = frozenset(("maxItems", "minItems", "maxProperties", "minProperties", "maxLength", "minLength"))
_SAME = frozenset(
    ("title", "description", "format", "pattern", "enum", "required", "default", "minimum", "maximum", "example")
)


def json_schema(schema: Any, where: str) -> dict[str, Any]:
    """The JSON Schema that says the same; only the order of properties has no place there. Raises InvalidRequest."""
    made: dict[str, Any] = {}
    for name, value in named(schema, where).items():
        if name == "type":
            kind = str(value).lower()
            if kind != "type_unspecified":
                made["type"] = kind
        elif name in _SAME:
            made["examples" if name == "example" else name] = [value] if name == "example" else value
        elif name in _COUNTS:
            made[name] = int(value)  # A 64-bit number is a text in protobuf's JSON.
        elif name == "properties":
            made[name] = {key: json_schema(each, f"{where}.{name}.{key}") for key, each in value.items()}
        elif name == "items":
            made[name] = json_schema(value, f"{where}.items")
        elif name == "anyOf":
            made[name] = [json_schema(each, f"{where}.anyOf.{index}") for index, each in enumerate(value)]
        elif name == "additionalProperties":
            made[name] = value if type(value) is bool else json_schema(value, f"{where}.{name}")
        elif name in ("defs", "ref"):
            key = f"${name}"
            made[key] = (
                {each: json_schema(said, f"{where}.{name}.{each}") for each, said in value.items()}
                if (name == "defs")
                else value
            )
        elif name not in ("nullable", "propertyOrdering"):
            raise InvalidRequest(f"{where}.{name}: not a field of a schema")
    if schema.get("nullable"):
        _allow_null(made)
    return made


def _allow_null(made: dict[str, Any]) -> None:
    if "type" in made:
        made["type"] = [made["type"], "null"]
    if "anyOf" in made:
        made["anyOf"] = [*made["anyOf"], {"type": "null"}]
    if "enum" in made:
        made["enum"] = [*made["enum"], None]
