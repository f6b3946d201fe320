"""`engine plan`: requests as they will be sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.cli import main


def test_the_first_rows_of_the_run_are_shown_as_they_will_be_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.csv").write_text("review\nGreat\nBad\nFine\nFourth\n")
    words = ["workload=csv", f"workload.path={tmp_path / 'rows.csv'}", "prompt.template=Rate: {{ review }}"]
    assert main(["plan", "provider=simulated", *words, "--request"]) == 0
    said = capsys.readouterr().out
    assert 'chat: {"messages": [{"role": "user", "content": "Rate: Great"}]}' in said
    assert "Rate: Fine" in said
    assert "Fourth" not in said
    assert main(["plan", "--request", "provider=simulated", *words, "--json"]) == 0
    bodies = [each["body"]["messages"][0]["content"] for each in json.loads(capsys.readouterr().out)["requests"]]
    assert bodies == ["Rate: Great", "Rate: Bad", "Rate: Fine"]
