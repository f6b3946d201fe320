"""engine/runs/fingerprint.py."""

from __future__ import annotations

import pytest

from engine.config.compose import compose
from engine.core.request import Request
from engine.runs.fingerprint import EXCLUDED, diff, plain_spec, request_fingerprint, spec_fingerprint
from tests.runs.child_run import spec_of


def test_what_does_not_change_an_answer_does_not_change_the_fingerprint() -> None:
    base = spec_of("x", "out")
    assert spec_fingerprint(base) == spec_fingerprint(spec_of("x", "elsewhere", concurrency=3, window=9))
    assert spec_fingerprint(base) != spec_fingerprint(spec_of("y", "out"))


def test_every_excluded_key_exists_in_the_spec() -> None:
    plain = plain_spec(compose(["provider=openai"]).spec)
    for path in EXCLUDED:
        value = plain
        for key in path.split("."):
            value = value[key]


def test_the_difference_has_a_line_a_field() -> None:
    old, new = plain_spec(spec_of("x", "out")), plain_spec(spec_of("y", "other", rows={"limit": 3}))
    assert diff(old, new) == ["workload.limit: null -> 3", "workload.path: x -> y"]
    assert "output.root: out -> other" in diff(old, new, excluded=True)


@pytest.mark.parametrize("change", [{"id": "b"}, {"priority": "high"}, {"deadline_s": 3}, {"metadata": {"k": 1}}])
def test_who_asks_is_not_part_of_what_is_asked(change: dict[str, object]) -> None:
    body = {"messages": [{"role": "user", "content": "x"}]}
    plain = {"task": "chat", "body": body, "id": "a"}
    assert request_fingerprint(Request(**{**plain, **change})) == request_fingerprint(Request(**plain))  # type: ignore[arg-type]
