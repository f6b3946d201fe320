"""Cells of tables that hold lists and mappings."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.schemas.workload import ParquetWorkloadSpec
from engine.workloads.open import open_source
from engine.workloads.rows import Form
from engine.workloads.table import object_of, without_nulls

TEXT_PART = {"type": "text", "text": "look"}
PICTURE_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}
TOOLS = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
MESSAGES: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": [TEXT_PART, PICTURE_PART]}],
    [{"role": "user", "content": [TEXT_PART]}, {"role": "assistant", "tool_calls": TOOLS}],
    [{"role": "tool", "tool_call_id": "c", "content": [TEXT_PART]}, {"role": "user", "content": [PICTURE_PART]}],
]


def test_keys_without_a_value_are_not_in_the_body(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "in.parquet"
    parquet.write_table(arrow.Table.from_pylist([{"messages": turns} for turns in MESSAGES]), path)
    rows = list(open_source(ParquetWorkloadSpec(kind="parquet", path=str(path)), ("chat",), 0))
    assert [row.request.body["messages"] for row in rows if row.request] == MESSAGES


VALUES = st.recursive(
    st.sampled_from([1, 0, "", "x", False]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
)


@given(VALUES)
def test_what_a_parquet_file_adds_is_taken_away(value: Any) -> None:
    assert without_nulls(_filled(value)) == value


def _filled(value: Any) -> Any:
    """Returns a value with every key in every mapping, as Parquet has it."""
    if isinstance(value, list):
        return [_filled(item) for item in value]
    if isinstance(value, dict):
        return {"null": None, "nothing": {"null": None}} | {key: _filled(item) for key, item in value.items()}
    return value


def test_null_in_json_text_and_in_metadata_is_kept() -> None:
    cells = {"messages": '[{"role": "user", "content": null}]', "label": {"a": None}}
    assert object_of(cells, None, Form()) == {
        "messages": [{"role": "user", "content": None}],
        "metadata": {"label": {"a": None}},
    }
