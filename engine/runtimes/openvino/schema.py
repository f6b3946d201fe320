"""The part of JSON Schema that OpenVINO GenAI's grammar engine (xgrammar) reads; it would leave out the rest silently.

Each keyword was tried on OpenVINO GenAI 2026.4: an answer that the schema forbids was offered token by token, and these
keywords let it pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from engine.core.errors import InvalidRequest

_NEVER = ("not", "if", "then", "else")
_LEFT_OUT = {
    "integer": ("multipleOf",),
    "number": ("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "string": (),
    "array": ("uniqueItems", "contains", "minContains", "maxContains", "additionalItems"),
    "object": ("dependentRequired", "dependentSchemas", "dependencies"),
}
"""Keywords that are not read, by their type."""
_READ = {
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "number": (),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "object": ("properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties",
               "maxProperties"),
}  # fmt: skip
_KEYWORDS = {name for table in (_LEFT_OUT, _READ) for names in table.values() for name in names}
_CHOICES = ("$ref", "const", "enum", "anyOf", "oneOf", "allOf")
"""Only the first of these in a schema is read, and nothing next to it."""
_FORMATS = frozenset(
    (
        "email", "date", "time", "date-time", "duration", "ipv4", "ipv6", "hostname", "uuid", "uri", "uri-reference",
        "uri-template", "json-pointer", "relative-json-pointer",
    )
)  # fmt: skip
MOST_REPEATS = 10_000
"""Of a length, and of the counts in a pattern multiplied: a grammar with 100,000 takes 6 seconds, and each further
request with it again one."""

_NEXT = "OpenVINO GenAI would not hold the answer to it. Next: write the schema without it, or choose hardware=cpu"


def check(schema: Any, where: str) -> None:
    """Raises InvalidRequest, with the path below `where`, for keywords without effect."""
    if not isinstance(schema, dict):
        return
    for name in _NEVER:
        if name in schema:
            raise InvalidRequest(f"{where}.{name}: {_NEXT}")
    choice = next((name for name in _CHOICES if name in schema), None)
    if choice is not None:
        _check_choice(schema, choice, where)
    else:
        _check_types(schema, where)
    _check_text(schema, where)
    for place, inner in _schemas(schema):
        check(inner, f"{where}.{place}")


def _check_choice(schema: dict[str, Any], choice: str, where: str) -> None:
    beside = _KEYWORDS.union(_CHOICES, ("type",)) - {choice}
    if choice in ("const", "enum"):
        beside -= {"type"}  # repeats the type of the values
    dropped = [name for name in schema if name in beside]
    if dropped:
        raise InvalidRequest(
            f"{where}.{dropped[0]}: not read next to {choice}. Next: put it into what {choice} names, or hardware=cpu"
        )
    if choice == "$ref" and not str(schema["$ref"]).startswith("#"):
        raise InvalidRequest(f"{where}.$ref: only places in this schema (#/$defs/…) are read")
    if choice == "allOf" and isinstance(schema["allOf"], list) and len(schema["allOf"]) > 1:
        raise InvalidRequest(f"{where}.allOf: with more than one schema, {_NEXT}")


def _check_types(schema: dict[str, Any], where: str) -> None:
    given = schema.get("type")
    types = given if isinstance(given, list) else [given] if given is not None else _meant(schema)
    for name in schema:
        if any(name in _LEFT_OUT.get(str(kind), ()) for kind in types):
            raise InvalidRequest(f"{where}.{name}: {_NEXT}")
        if not types and name in _KEYWORDS:
            raise InvalidRequest(f"{where}.{name}: has no effect without a type next to it. Next: add type")


def _meant(schema: dict[str, Any]) -> list[str]:
    """Returns the type that the engine assumes if none is given."""
    if "properties" in schema or "additionalProperties" in schema:
        return ["object"]
    return ["array"] if "items" in schema or "prefixItems" in schema else []


def _check_text(schema: dict[str, Any], where: str) -> None:
    told = [name for name in ("format", "pattern", "minLength", "maxLength") if name in schema]
    if len(told) > 1 and told != ["minLength", "maxLength"]:
        raise InvalidRequest(f"{where}.{told[1]}: not read next to {told[0]}. Next: leave one out, or hardware=cpu")
    kind = schema.get("format")
    if kind is not None and kind not in _FORMATS:
        raise InvalidRequest(f"{where}.format: {kind!r} is not read; one of: {', '.join(sorted(_FORMATS))}")
    for name in ("minLength", "maxLength", "pattern"):
        value = schema.get(name)
        if (_repeats(value) if isinstance(value, str) else isinstance(value, int) and value) > MOST_REPEATS:
            raise InvalidRequest(f"{where}.{name}: repeats more than {MOST_REPEATS:,} times, the most that is read")


def _repeats(pattern: str) -> int:
    """Returns the product of all counts: the repeats of the innermost part if all were nested."""
    counts = re.findall(r"\{(\d{1,9})(?:,(\d{0,9}))?\}", pattern)
    return math.prod(max(int(least), int(most or 0), 1) for least, most in counts)


def _schemas(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields the schemas in this one, with their paths."""
    for name in ("properties", "patternProperties", "$defs", "definitions"):
        if isinstance(schema.get(name), dict):
            for key, inner in schema[name].items():
                yield f"{name}.{key}", inner
    for name in ("prefixItems", "anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(name), list):
            for place, inner in enumerate(schema[name]):
                yield f"{name}[{place}]", inner
    for name in ("items", "additionalProperties", "propertyNames"):
        yield name, schema.get(name)
