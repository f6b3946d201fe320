"""engine/core/atomic_file.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.core.atomic_file import replacing, write_atomic
from engine.core.errors import OutputError


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
