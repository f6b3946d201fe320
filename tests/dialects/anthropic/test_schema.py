"""Schemas for Claude, against the rewriting of Anthropic's own SDK."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from anthropic.lib._parse._transform import transform_schema
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import InvalidRequest
from engine.dialects.anthropic.schema import rewritten

NAMES = st.sampled_from(["a", "b", "c"])
NOTES = st.fixed_dictionaries(
    {}, optional={"description": st.text(max_size=5), "title": st.just("T"), "default": st.none()}
)
NUMBERS = st.fixed_dictionaries(
    {"type": st.sampled_from(["integer", "number"])}, optional={"minimum": st.integers(0, 3), "multipleOf": st.just(2)}
)
STRINGS = st.fixed_dictionaries(
    {"type": st.just("string")},
    optional={
        "format": st.sampled_from(["date", "uuid", "regex"]),
        "maxLength": st.integers(1, 9),
        "pattern": st.just("x"),
    },
)
LITERALS = st.one_of(
    st.fixed_dictionaries(
        {"enum": st.lists(st.sampled_from(["x", "y", 1, None]), min_size=1)}, optional={"type": st.just("string")}
    ),
    st.fixed_dictionaries({"const": st.sampled_from(["x", 2, True])}),
)
PLAIN = st.fixed_dictionaries({"type": st.sampled_from(["boolean", "null"])})


def composed(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    objects = st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(NAMES, inner, max_size=2)},
        optional={
            "required": st.just(["a"]),
            "additionalProperties": st.booleans(),
            "minProperties": st.integers(0, 2),
            "$defs": st.dictionaries(NAMES, inner, max_size=1),
        },
    )
    arrays = st.fixed_dictionaries(
        {"type": st.just("array")},
        optional={"items": inner, "minItems": st.integers(0, 3), "uniqueItems": st.just(True)},
    )
    choices = st.one_of(
        *(
            st.fixed_dictionaries({name: st.lists(inner, min_size=1, max_size=2)})
            for name in ("anyOf", "oneOf", "allOf")
        )
    )
    return st.one_of(objects, arrays, choices, st.just({"$ref": "#/$defs/a"}))


SCHEMAS = st.recursive(
    st.tuples(st.one_of(NUMBERS, STRINGS, LITERALS, PLAIN), NOTES).map(lambda parts: {**parts[0], **parts[1]}),
    composed,
    max_leaves=6,
)


@given(SCHEMAS)
def test_a_schema_becomes_what_the_sdk_makes_of_it(schema: dict[str, Any]) -> None:
    before = copy.deepcopy(schema)
    assert rewritten(schema, "schema")[0] == transform_schema(copy.deepcopy(schema))
    assert schema == before


def test_what_is_not_enforced_is_named() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "description": "A number"}}}
    made, described = rewritten(schema, "schema")
    assert made["properties"]["n"] == {"type": "integer", "description": "A number\n\n{minimum: 1}"}
    assert made["additionalProperties"] is False
    assert described == ["minimum"]


def test_further_properties_that_a_schema_asks_for_are_named() -> None:
    assert rewritten({"type": "object", "additionalProperties": {"type": "string"}}, "schema")[1] == [
        "additionalProperties"
    ]


def test_several_types_are_a_choice() -> None:
    """The SDK fails on them; pydantic writes anyOf, other tools a list."""
    made, _ = rewritten({"type": ["string", "null"], "description": "d", "maxLength": 3}, "schema")
    assert made == {
        "anyOf": [{"type": "string", "description": "{maxLength: 3}"}, {"type": "null"}],
        "description": "d",
    }


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ({}, "schema.type: got None"),
        ({"type": "objekt"}, "schema.type: got 'objekt'"),
        ({"type": "object", "properties": {"a": {}}}, "schema.properties.a.type: got None"),
        ({"type": "object", "properties": []}, "schema.properties: got list"),
        ({"type": "array", "items": "x"}, "schema.items: got str"),
        ({"anyOf": {"type": "string"}}, "schema.anyOf: got dict"),
        ({"$defs": [], "type": "string"}, r"schema.\$defs: got list"),
    ],
)
def test_a_schema_that_claude_can_not_take_is_refused_with_its_path(schema: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidRequest, match=where):
        rewritten(schema, "schema")
