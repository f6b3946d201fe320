"""What of a schema OpenVINO GenAI would leave out is refused by its place."""

from __future__ import annotations

import re
from typing import Any

import pytest

from engine.core.errors import InvalidRequest
from engine.runtimes.openvino.schema import check

NUMBER = {"type": "number"}


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"not": NUMBER}, "not"),
        ({"type": "integer", "multipleOf": 3}, "multipleOf"),
        ({"type": "number", "minimum": 3}, "minimum"),
        ({"type": ["number", "null"], "maximum": 3}, "maximum"),
        ({"type": "array", "items": NUMBER, "uniqueItems": True}, "uniqueItems"),
        ({"items": NUMBER, "contains": NUMBER}, "contains"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"minLength": 3}, "minLength"),
        ({"required": ["a"]}, "required"),
        ({"anyOf": [NUMBER], "type": "number"}, "type"),
        ({"$ref": "#/$defs/a", "minimum": 3, "$defs": {"a": NUMBER}}, "minimum"),
        ({"$ref": "schema.json"}, "$ref"),
        ({"enum": ["a", "bc"], "minLength": 2}, "minLength"),
        ({"allOf": [NUMBER, {"type": "integer"}]}, "allOf"),
        ({"type": "string", "format": "colour"}, "format"),
        ({"type": "string", "pattern": "^a", "minLength": 3}, "minLength"),
        ({"type": "string", "maxLength": 10_001}, "maxLength"),
        ({"type": "string", "pattern": "((a{1,300}){2}){40}"}, "pattern"),
        (
            {"type": "object", "properties": {"a": {"type": "array", "items": {"not": NUMBER}}}},
            "properties.a.items.not",
        ),
        ({"anyOf": [NUMBER, {"$ref": "x"}]}, "anyOf[1].$ref"),
        ({"$defs": {"a": {"type": "array", "prefixItems": [{"if": {}}]}}}, "$defs.a.prefixItems[0].if"),
    ],
)
def test_what_would_have_no_effect_is_refused(schema: Any, place: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^schema\.{re.escape(place)}: "):
        check(schema, "schema")


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$schema": "x", "title": "t", "description": "d", "default": 1, "examples": [], **NUMBER},
        {"type": "object", "properties": {"not": NUMBER, "type": {"type": "string"}}, "required": ["not"]},
        {"type": "object", "additionalProperties": {"type": "integer", "exclusiveMinimum": 0, "maximum": 9}},
        {"type": "array", "prefixItems": [NUMBER], "items": False, "minItems": 1},
        {"type": "string", "minLength": 1, "maxLength": 10_000},
        {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$"},
        {"type": "string", "format": "date-time"},
        {"type": "string", "enum": ["a", "b"]},
        {"$ref": "#/$defs/tree", "description": "d", "$defs": {"tree": {"anyOf": [{"type": "null"}, NUMBER]}}},
    ],
)
def test_what_is_read_is_let_through(schema: Any) -> None:
    check(schema, "schema")
