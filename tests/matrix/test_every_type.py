"""Every model type runs on torch, and gives the same on OpenVINO: one test a row of the catalog."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.matrix.catalog import Entry
from engine.matrix.run import Plan, run

pytestmark = pytest.mark.slow
KNOWN: dict[str, str] = {}
"""Rows that do not run on OpenVINO, and why; one that runs after all is taken out."""


def test_a_type_runs_on_torch_and_gives_the_same_on_openvino(entry: Entry, tmp_path: Path) -> None:
    plan = Plan([entry], ("cpu", "openvino"), tmp_path, 1, time_limit_s=300, memory_limit_bytes=5 << 30, resume=False)
    cells = run(plan, lambda row, done, total: None)[entry.name].cells
    if cells["cpu"].status == "unavailable":
        pytest.skip(cells["cpu"].reason)
    assert cells["cpu"].status == "ok", cells["cpu"].reason
    if entry.name in KNOWN:
        assert cells["openvino"].status != "ok", "runs now: take it out of KNOWN"
        assert cells["openvino"].fix
        return
    assert cells["openvino"].status == "ok", cells["openvino"].reason
