"""examples/telemetry.py runs as docs/telemetry.md says, with a simulated provider."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_telemetry_example_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "telemetry.py"), "provider=simulated"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "outcomes: {'ok': 3} cost: None unknown: 3" in done.stdout
    assert done.stdout.count("engine_requests_total{") == 3
