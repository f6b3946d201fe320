"""What is said of a request before it is made: targets, key, waits, tries, refusals."""

from __future__ import annotations

import pytest

from engine import Engine, Request


def question(**fields: object) -> Request:
    return Request("chat", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}, id="r", **fields)  # type: ignore[arg-type]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-for-tests")
    monkeypatch.setenv("OPENAI_API_KEY_1", "another-key-for-tests")
    words = ["provider=openai", "fallbacks=[{provider: ollama}]", "policy.deadline.total_s=30"]
    return Engine.compose([*words, "policy.rate_limit.requests_per_min=1", "policy.rate_limit.burst_s=60"])


def test_it_names_the_targets_the_key_and_the_tries(engine: Engine) -> None:
    found = engine.explain(question(deadline_s=5.0))
    first, second = found["targets"]
    assert first["target"].startswith("openai/")
    assert (first["key"], first["key_why"]) == ("OPENAI_API_KEY", "round_robin")
    assert first["tries"] == "1, up to 5 more after failures, 5 after throttles"
    assert second["target"].startswith("ollama/")
    assert (found["deadline_s"], found["max_attempts"]) == (5.0, 20)
    assert found["tokens"]["output_at_most"] == 9


def test_asking_takes_nothing(engine: Engine) -> None:
    assert engine.explain(question()) == engine.explain(question())


def test_a_request_that_would_be_refused_is_told_why(engine: Engine) -> None:
    found = engine.explain(Request("chat", {"messages": []}))
    assert found["targets"][0]["refused"].startswith("invalid_request: body.messages")


def test_parked_keys_and_forced_circuits_are_named(engine: Engine) -> None:
    from engine.core.errors import AuthFailed

    engine.resources.find(("keys", engine.targets[0])).park("OPENAI_API_KEY", AuthFailed("no"))
    engine.policy.breaker.mode = "forced_open"
    first = engine.explain(question())["targets"][0]
    assert first["key"] == "OPENAI_API_KEY_1"
    assert "OPENAI_API_KEY is parked: auth" in first["key_why"]
    assert first["circuit"] == "opened by hand"
