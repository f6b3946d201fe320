from __future__ import annotations

from datetime import UTC, datetime
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dialects.common.retry_hints import LONGEST_S, duration_s, rate_hint, retry_after_s, said_s, wait_s

NOW = 1_800_000_000.0


def hint(headers: dict[str, str], message: str = "", throttled: bool = True) -> float | None:
    return retry_after_s(headers, message, NOW, throttled=throttled)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6m0s", 360), ("12ms", 0.012), ("1s", 1), ("2m59.56s", 179.56), ("1h2m3s", 3723), ("1d", 86400), ("7.5", 7.5)],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "-3s", "6m 0s", "s", "1s!", "nan", "inf", "-1"])
def test_what_is_no_duration_is_ignored(text: str) -> None:
    assert duration_s(text) is None


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached. Please try again in 1.2s. Visit …", 1.2),
        ("Please try again in 6m0s.", 360),
        ("Please try again in 20ms.", 0.02),
        ("try again in 1h2m3.5s", 3723.5),
        ("Please retry after 5 seconds.", 5),
        ("Please retry in 250 milliseconds", 0.25),
        ("Please wait for 2 minutes and", 120),
        ("Rate limit is exceeded. Try again in 1 minute 5 seconds", 65),
    ],
)
def test_a_message_says_how_long(message: str, seconds: float) -> None:
    assert said_s(message) == pytest.approx(seconds)


@pytest.mark.parametrize("message", ["", "try again later", "try again in a while", "wait 3 parsecs"])
def test_a_message_without_a_time_says_nothing(message: str) -> None:
    assert said_s(message) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 2),
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90),
        ({"retry-after": formatdate(NOW - 90, usegmt=True)}, 0),
    ],
)
def test_an_explicit_header_is_read(headers: dict[str, str], seconds: float) -> None:
    assert hint(headers, throttled=False) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["-5", "nan", "inf", "soon", "", "Wed, 99 Foo 2026 99:99:99 GMT"])
def test_garbage_in_a_header_is_ignored(value: str) -> None:
    assert hint({"retry-after": value, "retry-after-ms": value}) is None


def test_an_explicit_header_wins_over_resets_and_words() -> None:
    headers = {"retry-after": "2", "x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "0"}
    assert hint(headers, "try again in 9s") == 2


def test_the_longest_reset_of_the_limits_that_are_used_up_counts() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6m0s",
        "x-ratelimit-remaining-requests-day": "99",
        "x-ratelimit-reset-requests-day": "80000",
    }
    assert hint(headers) == 360


def test_the_message_wins_over_resets_of_limits_that_are_not_used_up() -> None:
    assert hint({"x-ratelimit-remaining-tokens": "17", "x-ratelimit-reset-tokens": "6m0s"}, "try again in 4s") == 4


def test_a_reset_counts_when_nothing_else_is_said() -> None:
    assert hint({"x-ratelimit-reset-tokens": "12ms"}) == pytest.approx(0.012)


def test_a_reset_that_is_a_point_in_time_is_counted_from_now() -> None:
    assert hint({"x-ratelimit-reset": str(int((NOW + 30) * 1000))}) == pytest.approx(30)
    assert hint({"x-ratelimit-reset": str(int(NOW + 30))}) == pytest.approx(30)
    assert hint({"x-ratelimit-reset": str(int(NOW - 30))}) == 0


def test_resets_mean_nothing_for_a_call_that_was_not_throttled() -> None:
    assert hint({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9s"}, throttled=False) is None


@given(st.text(), st.text(), st.text())
def test_no_hint_is_ever_negative_or_infinite(explicit: str, reset: str, message: str) -> None:
    seconds = hint({"retry-after": explicit, "x-ratelimit-reset-tokens": reset}, message)
    assert seconds is None or 0 <= seconds < float("inf")


FORMS = {
    "seconds since 1970": lambda moment: str(int(moment)),
    "seconds since 1970 with a fraction": lambda moment: f"{moment:.3f}",
    "milliseconds since 1970": lambda moment: str(int(moment * 1e3)),
    "microseconds since 1970": lambda moment: str(int(moment) * 10**6),
    "nanoseconds since 1970": lambda moment: str(int(moment) * 10**9),
    "an HTTP date": lambda moment: formatdate(moment, usegmt=True),
    "an RFC 3339 time": lambda moment: datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z"),
    "an RFC 3339 time without a zone": lambda moment: datetime.fromtimestamp(moment, UTC).isoformat()[:19],
}
HEADERS = ["retry-after", "retry-after-ms", "x-ratelimit-reset", "x-ratelimit-reset-requests"]


@given(st.sampled_from(sorted(FORMS)), st.sampled_from(HEADERS), st.integers(-86400, 86400))
def test_a_point_in_time_in_any_form_and_header_is_counted_from_now(form: str, header: str, ahead_s: int) -> None:
    assert hint({header: FORMS[form](NOW + ahead_s)}) == pytest.approx(max(0, ahead_s), abs=1e-3)


@given(st.sampled_from(sorted(FORMS)), st.integers(1, 86400))
def test_the_reset_of_a_good_reply_is_read_the_same_way(form: str, ahead_s: int) -> None:
    headers = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59"}
    said = rate_hint({**headers, "x-ratelimit-reset-requests": FORMS[form](NOW + ahead_s)}, "requests", NOW)
    assert said == (60, 59, pytest.approx(ahead_s, abs=1e-3))


def test_a_limit_comes_back_within_a_day_whatever_a_good_reply_says() -> None:
    headers = {"x-ratelimit-limit-tokens": "9", "x-ratelimit-remaining-tokens": "1", "x-ratelimit-reset-tokens": "40d"}
    assert rate_hint(headers, "tokens", NOW) == (9, 1, LONGEST_S)


@given(
    st.text(max_size=30) | st.floats().map(repr) | st.integers().map(str) | st.from_regex(r"\A[0-9]{1,400}[a-z]{0,2}\Z")
)
def test_no_value_is_read_as_a_wait_below_zero_or_without_end(text: str) -> None:
    for unit_s in (1.0, 0.001):
        seconds = wait_s(text, NOW, unit_s)
        assert seconds is None or 0 <= seconds < float("inf")


@pytest.mark.parametrize(("text", "seconds"), [("850µs", 0.00085), ("1m0.5s", 60.5), ("40ns", 4e-8)])
def test_a_duration_as_go_writes_it_is_read(text: str, seconds: float) -> None:
    assert wait_s(text, NOW) == pytest.approx(seconds)
