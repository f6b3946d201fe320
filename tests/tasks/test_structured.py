"""Which response formats are understood."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.core.errors import InvalidRequest
from engine.tasks import chat, completion
from engine.tasks.structured import schema_of

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize("value", [None, {"type": "text"}])
def test_text_needs_no_schema(value: Any) -> None:
    assert schema_of(value) is None


def test_any_object_is_a_schema_too() -> None:
    assert schema_of({"type": "json_object"}) == '{"type":"object"}'


@pytest.mark.parametrize("more", [{}, {"name": "n", "strict": True}, {"description": "d", "strict": None}])
def test_a_schema_is_read(more: dict[str, Any]) -> None:
    written = schema_of({"type": "json_schema", "json_schema": {"schema": SCHEMA, **more}})
    assert json.loads(written or "") == SCHEMA


def test_chats_and_completions_have_it() -> None:
    asked = {"response_format": {"type": "json_object"}}
    assert chat.read({"messages": [{"role": "user", "content": "x"}], **asked})[1].schema is not None
    assert completion.read({"prompt": "x", **asked})[1].schema is not None


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("json", ""), ([], ""), ({}, ""), ({"type": "xml"}, ""), ({"type": ["text"]}, ""),
        ({"type": "json_object", "schema": {}}, r"\.schema"), ({"type": "json_schema"}, r"\.json_schema"),
        ({"type": "json_schema", "json_schema": {"name": "n"}}, r"\.json_schema\.schema"),
        ({"type": "json_schema", "json_schema": {"schema": "{}"}}, r"\.json_schema\.schema"),
        ({"type": "json_schema", "json_schema": {"schema": {}, "name": 5}}, r"\.json_schema\.name"),
        ({"type": "json_schema", "json_schema": {"schema": {}, "strict": "yes"}}, r"\.json_schema\.strict"),
        ({"type": "json_schema", "json_schema": {"shema": {}}}, r"\.json_schema\.shema"),
        ({"type": "json_schema", "json_schema": {"schema": {"enum": ["x" * 100_000]}}}, r"\.json_schema\.schema"),
        ({"type": "json_schema", "json_schema": {"schema": nested(65)}}, r"\.json_schema\.schema"),
        ({"type": "json_schema", "json_schema": {"schema": nested(5000)}}, r"\.json_schema\.schema"),
    ],
)  # fmt: skip
def test_another_format_is_refused_by_its_place(value: Any, place: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^body\.response_format{place}: "):
        schema_of(value)


def test_the_deepest_schema_is_read() -> None:
    assert schema_of({"type": "json_schema", "json_schema": {"schema": nested(64)}})
