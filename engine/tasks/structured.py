"""The kinds of `response_format`: text, any JSON object, or JSON that a schema describes.

OpenAI's form (API reference, "Create chat completion", `response_format`).
"""

from __future__ import annotations

import json
from typing import Any

from engine.core.errors import InvalidRequest, nearest

WHERE = "body.response_format"
SCHEMA = f"{WHERE}.json_schema.schema"
"""The path of a request's schema; messages of a runtime that refuses it begin with this path."""
MOST_CHARACTERS = 100_000
"""Of a schema as JSON. A grammar's size grows with it, and everybody waits while one is made."""
DEEPEST = 64
"""Objects and lists inside each other; deeper ones would exhaust the stack of what reads them."""

_ANY_OBJECT = '{"type":"object"}'
_FIELDS = {
    "text": frozenset(("type",)),
    "json_object": frozenset(("type",)),
    "json_schema": frozenset(("type", "json_schema")),
}
_SCHEMA_FIELDS = frozenset(("name", "description", "schema", "strict"))


def schema_of(value: Any) -> str | None:
    """The schema's JSON text, None for plain text. `strict` makes no difference: the schema always holds.

    Raises InvalidRequest with the field's path.
    """
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise InvalidRequest(f"{WHERE}: expected an object with type, one of: {', '.join(_FIELDS)}")
    _known(value, _FIELDS[kind], WHERE)
    if kind == "json_schema":
        return _schema(value.get("json_schema"))
    return _ANY_OBJECT if kind == "json_object" else None


def _schema(value: Any) -> str:
    where = f"{WHERE}.json_schema"
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where}: expected an object with name and schema")
    _known(value, _SCHEMA_FIELDS, where)
    for name, kind in (("name", str), ("description", str), ("strict", bool)):
        if value.get(name) is not None and not isinstance(value[name], kind):
            raise InvalidRequest(f"{where}.{name}: expected {'text' if kind is str else 'true or false'}")
    schema = value.get("schema")
    if not isinstance(schema, dict):
        raise InvalidRequest(f"{SCHEMA}: expected a JSON schema, an object")
    if _too_deep(schema):
        raise InvalidRequest(f"{SCHEMA}: more than {DEEPEST} objects and lists inside each other")
    written = json.dumps(schema, separators=(",", ":"))
    if len(written) > MOST_CHARACTERS:
        raise InvalidRequest(f"{SCHEMA}: {len(written):,} characters of JSON; the most is {MOST_CHARACTERS:,}")
    return written


def _known(value: dict[str, Any], names: frozenset[str], where: str) -> None:
    for name in value:
        if name not in names:
            raise InvalidRequest(f"{where}.{name}: not a field of this format; {nearest(name, names)}")


def _too_deep(schema: dict[str, Any]) -> bool:
    level: list[Any] = [schema]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
    return bool(level)


def _inside(outer: Any) -> list[Any]:
    """The objects and lists directly in this one."""
    inner = outer.values() if isinstance(outer, dict) else outer
    return [value for value in inner if isinstance(value, dict | list)]
