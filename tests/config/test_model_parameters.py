"""`model.parameters` are checked before a run begins: types, slips of the pen, and what YAML reads as true or false."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cli.main import main
from engine.schemas.model_parameters import problem_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("stop", [False, True], "quotes around it: YAML reads no, off"),
        ("stop", ["a", 7], "a list with 7"),
        ("stop", False, "quotes around it"),
        ("temperature", "0.7", "write it without quotes"),
        ("temperature", "hot", "expected a number"),
        ("temperature", True, "expected a number"),
        ("temperature", float("nan"), "expected a number"),
        ("max_tokens", 1.5, "expected a whole number"),
        ("max_tokens", "12", "write it without quotes"),
        ("max_tokens", True, "expected a whole number"),
        ("seed", [1], "expected a whole number"),
        ("user", 42, "expected text"),
        ("tools", {}, "expected a list"),
        ("response_format", ["json"], "expected an object or text"),
        ("temprature", 1, "write temperature"),
        ("max-tokens", 5, "write max_tokens"),
        ("Max_Tokens", 5, "write max_tokens"),
        ("dimension", 5, "write dimensions"),
    ],
)
def test_what_would_fail_every_row_is_told(name: str, value: Any, told: str) -> None:
    problem = problem_of({name: value})
    assert problem is not None
    assert problem.startswith(f"{name}: got ")
    assert told in problem


@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature": 0, "top_p": 0.9, "max_tokens": 5, "stop": "END", "logprobs": True, "tools": []},
        {"stop": ["a", "b"], "logprobs": 3, "response_format": {"type": "json_object"}, "tool_choice": "auto"},
        {"temperature": None, "stop": None},
        {"guided_json": {}, "num_ctx": 4096, "thinking": {"type": "enabled"}, "mirostat": 2, "top_a": 0.1},
        {"parameters": {"candidate_labels": ["a"]}, "voice": "alloy", "truncate_prompt_tokens": 5, "format": "json"},
    ],
)
def test_what_may_be_meant_passes(parameters: dict[str, Any]) -> None:
    assert problem_of(parameters) is None


@given(st.dictionaries(st.sampled_from(["temperature", "stop", "tools", "seed", "x"]) | st.text(max_size=5), JSON))
def test_any_json_is_judged(parameters: dict[str, Any]) -> None:
    assert problem_of(parameters) is None or ": got " in str(problem_of(parameters))


def test_a_run_refuses_it_before_anything_is_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("name: m\nparameters:\n  stop: [no, on]\n")
    words = ["provider=simulated", "model=mine", "--config-dir", str(tmp_path), f"output.dir={tmp_path / 'run'}"]
    for verb in ("plan", "run"):
        assert main([verb, *words]) == 2
        assert "model.parameters.stop: got a list with false; expected text" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
