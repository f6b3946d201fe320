"""engine/runs/atomic.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import OutputError
from engine.runs.atomic import replacing, write_atomic


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"old")
    with pytest.raises(ValueError, match="midway"), replacing(tmp_path / "a", tmp_path / "b") as (a, _):
        a.write(b"new")
        raise ValueError("midway")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_what_the_file_system_refuses_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="can't be written: No such file or directory"):
        write_atomic(tmp_path / "gone" / "a", b"")
