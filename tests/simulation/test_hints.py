from __future__ import annotations

import pytest

from engine.dialects.common.retry_hints import retry_after_s
from engine.schemas.simulated import Hint
from engine.simulation import hints

NOW_S = 1_700_000_000.25


def test_each_hint_stands_where_its_provider_puts_it() -> None:
    def said(hint: Hint, wait_s: float) -> dict[str, str]:
        return hints.headers(hint, hints.said_s(hint, wait_s, NOW_S), NOW_S, "requests")

    assert said("none", 90) == {}
    assert said("retry_after", 1.2) == {"retry-after": "2"}
    assert said("retry_after_float", 1.2345) == {"retry-after": "1.235"}
    assert said("retry_after_date", 60) == {"retry-after": "Tue, 14 Nov 2023 22:14:21 GMT"}
    assert said("retry_after_ms", 1.2345) == {"retry-after-ms": "1235"}
    assert said("x_ratelimit", 360) == {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}
    assert said("anthropic", 60) == {
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2023-11-14T22:14:21Z",
    }
    assert said("gemini", 60) == said("message", 60) == {}
    assert hints.details("gemini", 1.5) == [
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.500s"}
    ]
    assert hints.sentence("message", 1.5) == " Please try again in 1.500s."


@pytest.mark.parametrize(
    "hint", ["retry_after", "retry_after_float", "retry_after_date", "retry_after_ms", "x_ratelimit", "message"]
)
@pytest.mark.parametrize("wait_s", [0.012, 0.9999, 1.0, 59.9996, 61.2345, 3600.0, 86_400.5])
def test_what_is_said_is_what_our_own_dialect_reads(hint: Hint, wait_s: float) -> None:
    said_s = hints.said_s(hint, wait_s, NOW_S)
    headers = hints.headers(hint, said_s, NOW_S, "tokens")
    read_s = retry_after_s(headers, "no." + hints.sentence(hint, said_s), NOW_S, throttled=True)
    assert read_s == pytest.approx(said_s, abs=1e-9)
    assert said_s is not None
    assert wait_s - 1e-9 <= said_s < wait_s + 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0ms"),
        (0.012, "12ms"),
        (1.0, "1s"),
        (6.5, "6.5s"),
        (360.0, "6m0s"),
        (3723.5, "1h2m3.5s"),
        (7200, "2h0m0s"),
    ],
)
def test_durations_read_as_openai_writes_them(seconds: float, text: str) -> None:
    assert hints.duration(seconds) == text
