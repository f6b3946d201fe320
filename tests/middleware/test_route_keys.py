"""Keys: whose turn it is, who cools, who is parked, and who waits for one."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.core.clock import SystemClock
from engine.core.errors import AuthFailed, ConfigError, InferenceError, QuotaExhausted, Throttled
from engine.core.virtual_time import VirtualClock, VirtualTimeLoop
from engine.middleware.route_keys import KeyRing
from engine.schemas.policy import RouteSpec
from tests.middleware.chain import EXAMPLES, in_virtual_time

ABC = ("A", "B", "C")


def ring_of(clock: VirtualClock, names: tuple[str, ...] = ABC, **fields: Any) -> KeyRing:
    return KeyRing(names, RouteSpec(**fields), clock)


async def take(ring: KeyRing, times: int, avoid: str | None = None) -> str:
    """The keys of so many calls, each of which ends at once."""
    taken = ""
    for _ in range(times):
        key = await ring.acquire(avoid)
        ring.release(key)
        taken += key or "-"
    return taken


def counts(ring: KeyRing) -> tuple[float, ...]:
    gauges = ring.gauges()
    return tuple(gauges[name] for name in ("keys", "keys_parked", "keys_cooling", "keys_waiting"))


# -- whose turn it is -------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_in_turn(clock: VirtualClock) -> None:
    assert await take(ring_of(clock), 7) == "ABCABCA"


@in_virtual_time
async def test_the_one_with_the_fewest_calls_in_flight(clock: VirtualClock) -> None:
    ring = ring_of(clock, keys="least_loaded")
    assert [await ring.acquire() for _ in range(4)] == ["A", "B", "C", "A"]
    ring.release("C")
    assert await ring.acquire() == "C"
    assert ring.in_flight == {"A": 2, "B": 1, "C": 1}


@in_virtual_time
async def test_in_proportion_to_the_weights_and_evenly_spread(clock: VirtualClock) -> None:
    ring = ring_of(clock, keys="weighted", weights={"A": 5.0})
    assert await take(ring, 14) == "AABACAAAABACAA"


@in_virtual_time
async def test_only_the_key_that_was_named(clock: VirtualClock) -> None:
    ring = ring_of(clock, keys="specific", key="B")
    assert await take(ring, 3) == "BBB"
    assert ring.names == ("B",)
    assert await take(ring, 1, avoid="B") == "B"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"keys": "specific", "key": "a"}, "policy.route: no key 'a' at this target; one of: A, B, C"),
        ({"keys": "weighted", "weights": {"D": 2.0}}, "policy.route: no key 'D' at this target"),
        ({"keys": "specific"}, "policy.route.keys=specific needs policy.route.key; one of: A, B, C"),
    ],
)
def test_a_key_that_is_not_there_is_refused(fields: dict[str, Any], said: str) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        with pytest.raises(ConfigError) as caught:
            ring_of(clock, **fields)
        assert said in str(caught.value)
        assert ring_of(clock, (), **fields).names == ()

    scenario()


@in_virtual_time
async def test_a_key_named_for_another_choice_is_nobodys_business(clock: VirtualClock) -> None:
    assert await take(ring_of(clock, key="D"), 3) == "ABC"


@in_virtual_time
async def test_where_no_key_is_needed_there_is_none(clock: VirtualClock) -> None:
    ring = ring_of(clock, ())
    assert await ring.acquire() is None
    ring.release(None)
    assert not ring.exhausted
    assert ring.gauges()["keys"] == 0


@in_virtual_time
async def test_another_one_than_the_key_that_just_failed_where_there_is_one(clock: VirtualClock) -> None:
    ring = ring_of(clock)
    assert "A" not in await take(ring, 6, avoid="A")
    assert await take(ring_of(clock, ("A",)), 2, avoid="A") == "AA"


# -- throttled --------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_throttled_key_is_avoided_until_its_hint_is_over(clock: VirtualClock) -> None:
    ring = ring_of(clock)
    assert ring.throttled("A", clock.monotonic(), 10.0)
    assert ring.state("A") == "cooling 10.0 s"
    assert await take(ring, 4) == "BCBC"
    assert await take(ring, 2, avoid="B") == "CC"
    await asyncio.sleep(10.0)
    assert ring.state("A") == "ready"
    assert sorted(await take(ring, 3)) == ["A", "B", "C"]


@in_virtual_time
async def test_whether_another_key_is_free_is_said_to_the_very_second(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A", "B", "C"))
    ring.throttled("A", 0.0, 10.0)
    await asyncio.sleep(10.0)
    ring.park("C", AuthFailed("no"))
    assert ring.gauges()["keys_cooling"] == 0
    assert ring.throttled("B", 10.0, 10.0)


@in_virtual_time
async def test_a_late_throttle_from_before_a_success_cools_for_a_whole_pause(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A", "B"), cool_s=4.0)
    ring.throttled("A", 0.0, None)
    ring.succeeded("A", 0.0)
    ring.throttled("A", -1.0, None)
    assert ring.state("A") == "cooling 4.0 s"


@in_virtual_time
async def test_a_key_that_cools_is_used_when_there_is_no_other(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A",))
    assert not ring.throttled("A", clock.monotonic(), 10.0)
    assert await take(ring, 1) == "A"
    assert clock.monotonic() == 0.0


@in_virtual_time
async def test_of_keys_that_cool_the_one_that_is_back_first(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A", "B", "C", "D"), key_concurrency=1)
    ring.throttled("B", 0.0, 10.0)
    ring.throttled("A", 0.0, 20.0)
    assert [await ring.acquire() for _ in range(4)] == ["C", "D", "B", "A"]


@in_virtual_time
async def test_the_only_key_is_not_used_while_it_is_parked(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A",))
    ring.park("A", AuthFailed("no"))
    assert ring.try_acquire(None) is None
    with pytest.raises(AuthFailed):
        await ring.acquire()
    ring.unpark()
    assert ring.try_acquire(None) == "A"


@in_virtual_time
async def test_a_key_throttled_again_is_barred_until_its_hint_is_over(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A",))
    ring.throttled("A", 0.0, 10.0)
    await asyncio.sleep(1.0)
    assert not ring.throttled("A", clock.monotonic(), 10.0)
    assert ring.state("A") == "barred 10.0 s"
    assert await take(ring, 1) == "A"
    assert clock.monotonic() == pytest.approx(11.0)


@in_virtual_time
async def test_a_burst_of_throttles_counts_once(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A",))
    await asyncio.sleep(5.0)
    for _ in range(5):
        ring.throttled("A", 1.0, 10.0)
        await asyncio.sleep(0.1)
    assert ring.state("A").startswith("cooling")


@in_virtual_time
async def test_a_long_hint_bars_a_key_at_once(clock: VirtualClock) -> None:
    ring = ring_of(clock, park_after_s=60.0)
    ring.throttled("A", 0.0, 60.0)
    ring.throttled("B", 0.0, 60.5)
    assert ring.state("A").startswith("barred")  # two of three: their account is throttled
    ring = ring_of(clock, ("A", "B", "C", "D", "E"), park_after_s=60.0)
    ring.throttled("A", 0.0, 60.0)
    ring.throttled("B", 0.0, 60.5)
    assert (ring.state("A"), ring.state("B")) == ("cooling 60.0 s", "barred 60.5 s")


@in_virtual_time
async def test_without_a_hint_the_pause_doubles_up_to_a_minute(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A",), cool_s=1.0)
    pauses = []
    for _ in range(8):
        ring.throttled("A", clock.monotonic(), None)
        pauses.append(float(ring.state("A").split()[1]))
        await asyncio.sleep(pauses[-1])
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


@in_virtual_time
async def test_the_pause_does_not_overflow_however_often_it_was_throttled(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A",), cool_s=0.0001)
    for _ in range(2000):
        ring.throttled("A", clock.monotonic(), None)
        await asyncio.sleep(0.001)
    assert ring.state("A") == "barred 6.6 s"


@in_virtual_time
async def test_a_later_shorter_hint_does_not_shorten_the_pause(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A",))
    ring.throttled("A", 0.0, 50.0)
    ring.throttled("A", 0.0, 1.0)
    assert ring.state("A") == "barred 50.0 s"


@in_virtual_time
async def test_a_success_ends_the_pause_unless_its_call_began_before_the_throttle(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A",))
    await asyncio.sleep(5.0)
    ring.throttled("A", 5.0, 50.0)
    ring.succeeded("A", 4.0)
    assert ring.state("A") == "cooling 50.0 s"
    await asyncio.sleep(1.0)
    ring.throttled("A", 6.0, 50.0)
    ring.succeeded("A", 5.5)
    assert ring.state("A") == "barred 50.0 s"
    ring.succeeded("A", 6.0)
    assert ring.state("A") == "ready"
    ring.throttled("A", 6.0, None)
    assert ring.state("A") == "cooling 1.0 s"  # counted from the beginning


@in_virtual_time
async def test_when_most_keys_cool_their_account_is_throttled_and_all_are_barred(clock: VirtualClock) -> None:
    ring = ring_of(clock)
    assert ring.throttled("A", 0.0, 10.0)
    assert not ring.throttled("B", 0.0, 20.0)
    assert [ring.state(name) for name in ABC] == ["barred 20.0 s"] * 3
    assert await take(ring, 1) != ""
    assert clock.monotonic() == pytest.approx(20.0)


@in_virtual_time
async def test_half_of_the_keys_is_not_most_and_parked_ones_do_not_count(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A", "B", "C", "D"))
    ring.throttled("A", 0.0, 10.0)
    ring.throttled("B", 0.0, 10.0)
    assert ring.state("C") == "ready"
    ring.park("D", AuthFailed("no"))
    ring.throttled("A", 0.0, 10.0)
    assert ring.state("C").startswith("barred")
    assert ring.state("D") == "parked: auth"


# -- parked -----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_refused_key_is_parked_until_somebody_brings_it_back(clock: VirtualClock) -> None:
    ring = ring_of(clock)
    error = AuthFailed("bad key", retry_after_s=5.0)
    assert ring.park("A", error)
    await asyncio.sleep(1e6)
    assert await take(ring, 4) == "BCBC"
    assert ring.parked == {"A": error}
    assert ring.state("A") == "parked: auth"
    assert ring.gauges()["keys_parked"] == 1
    ring.unpark("A")
    assert ring.parked == {}
    assert "A" in await take(ring, 3)


@in_virtual_time
async def test_a_used_up_quota_comes_back_at_its_reset(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A", "B"))
    ring.park("A", QuotaExhausted("used up", retry_after_s=100.0))
    ring.park("B", QuotaExhausted("used up"))
    assert ring.exhausted
    await asyncio.sleep(99.0)
    assert ring.exhausted
    await asyncio.sleep(1.0)
    assert list(ring.parked) == list(ring.reasons) == ["B"]
    assert not ring.exhausted
    assert await take(ring, 2) == "AA"
    assert list(ring.parked) == ["B"]
    assert ring.state("A") == "ready"


@in_virtual_time
async def test_a_quota_whose_reset_is_now_is_no_loss(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A",))
    assert ring.park("A", QuotaExhausted("used up", retry_after_s=0.0))
    assert not ring.exhausted
    assert ring.state("A") == "ready"


@in_virtual_time
async def test_why_keys_are_out_of_use_is_said_in_the_providers_words(clock: VirtualClock) -> None:
    ring = ring_of(clock)
    ring.park("B", AuthFailed("bad key"))
    assert ring.reasons == {"B": "auth: bad key"}


@in_virtual_time
async def test_the_last_key_that_is_lost_is_one_clear_error_of_the_key_that_is_back_first(clock: VirtualClock) -> None:
    ring = ring_of(clock)
    assert ring.park("A", AuthFailed("bad key"))
    assert ring.park("B", QuotaExhausted("used up", status=429, retry_after_s=50.0, code="q", provider_request_id="p"))
    assert not ring.park("C", QuotaExhausted("used up too", retry_after_s=90.0))
    caught = []
    for _ in range(2):
        with pytest.raises(QuotaExhausted, match=r"^used up$") as one:
            await ring.acquire()
        caught.append(one.value)
    first, second = caught
    assert first is not second
    assert first.__cause__ is second.__cause__ is ring.parked["B"]
    assert first.as_dict() == {
        "kind": "quota_exhausted",
        "message": "used up",
        "status": 429,
        "code": "q",
        "retry_after_s": 50.0,
        "provider_request_id": "p",
    }


@in_virtual_time
async def test_who_waits_when_the_last_key_is_lost_is_told(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A",), key_concurrency=1)
    await ring.acquire()
    waiters = [asyncio.create_task(ring.acquire()) for _ in range(3)]
    await asyncio.sleep(1.0)
    waiters[0].cancel()
    ring.park("A", AuthFailed("bad key"))
    outcomes = await asyncio.gather(*waiters, return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == ["CancelledError", "AuthFailed", "AuthFailed"]
    assert outcomes[1] is not outcomes[2]
    ring.release("A")
    assert counts(ring) == (1, 1, 0, 0)
    assert ring.in_flight == {"A": 0}


@in_virtual_time
async def test_unpark_brings_all_back_and_ends_their_pauses(clock: VirtualClock) -> None:
    ring = ring_of(clock)
    ring.throttled("A", 0.0, 50.0)
    ring.throttled("A", 0.0, 50.0)
    ring.park("B", AuthFailed("no"))
    ring.unpark()
    assert [ring.state(name) for name in ABC] == ["ready"] * 3
    ring.throttled("A", 0.0, 50.0)
    assert ring.state("A") == "cooling 50.0 s"


@in_virtual_time
async def test_unpark_of_one_leaves_the_others_parked(clock: VirtualClock) -> None:
    ring = ring_of(clock)
    for name in ABC:
        ring.park(name, AuthFailed("no"))
    ring.unpark("B")
    assert list(ring.parked) == ["A", "C"]


# -- waiting ----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_no_key_has_more_calls_than_allowed_and_who_waits_comes_in_order(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A", "B"), key_concurrency=2)
    held = [await ring.acquire() for _ in range(4)]
    assert sorted(str(key) for key in held) == ["A", "A", "B", "B"]
    order: list[str] = []

    async def wait(name: str) -> None:
        order.append(f"{name}{await ring.acquire()}")

    waiters = [asyncio.create_task(wait(name)) for name in "xyz"]
    await asyncio.sleep(0)
    assert ring.gauges()["keys_waiting"] == 3
    for key in "BAB":
        ring.release(key)
    await asyncio.wait(waiters)
    assert order == ["xB", "yA", "zB"]
    assert ring.in_flight == {"A": 2, "B": 2}


@in_virtual_time
async def test_a_newcomer_does_not_overtake_who_waits(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A",), key_concurrency=1)
    await ring.acquire()
    first = asyncio.create_task(ring.acquire())
    await asyncio.sleep(0)
    ring.release("A")
    second = asyncio.create_task(ring.acquire())
    await asyncio.sleep(1.0)
    assert (first.done(), second.done()) == (True, False)


@in_virtual_time
async def test_who_waits_gets_a_barred_key_when_its_time_is_over(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A",))
    key = await ring.acquire()
    ring.throttled("A", 0.0, 10.0)
    ring.throttled("A", 0.0, 10.0)
    ring.release(key)
    waiters = [asyncio.create_task(ring.acquire()) for _ in range(2)]
    await asyncio.sleep(9.5)
    assert not any(waiter.done() for waiter in waiters)
    await asyncio.gather(*waiters)
    assert clock.monotonic() == pytest.approx(10.0)


@in_virtual_time
async def test_who_waits_gets_a_key_whose_quota_is_back(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A", "B"), key_concurrency=1)
    held = [await ring.acquire(), await ring.acquire()]
    waiter = asyncio.create_task(ring.acquire())
    await asyncio.sleep(1.0)
    ring.park("A", QuotaExhausted("used up", retry_after_s=29.0))
    ring.release("A")
    assert await waiter == "A"
    assert clock.monotonic() == pytest.approx(30.0)
    assert held == ["A", "B"]


@in_virtual_time
async def test_who_waits_gets_a_key_that_was_brought_back(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A", "B"), key_concurrency=1)
    await ring.acquire()
    ring.park("B", AuthFailed("no"))
    waiter = asyncio.create_task(ring.acquire())
    await asyncio.sleep(1.0)
    ring.unpark("B")
    assert await waiter == "B"


@in_virtual_time
async def test_who_waits_prefers_another_key_too(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A", "B"))
    for name in "AB":
        ring.throttled(name, 0.0, 10.0)
    waiter = asyncio.create_task(ring.acquire(avoid="A"))
    assert await waiter == "B"


@in_virtual_time
async def test_a_success_lets_the_waiting_use_the_key_at_once(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A",))
    key = await ring.acquire()
    ring.throttled("A", 0.0, 50.0)
    ring.throttled("A", 0.0, 50.0)
    waiter = asyncio.create_task(ring.acquire())
    await asyncio.sleep(1.0)
    ring.succeeded("A", 0.5)
    assert await waiter == "A"
    assert clock.monotonic() == pytest.approx(1.0)
    ring.release(key)


@pytest.mark.parametrize("barred", [1, 2])
def test_on_parked_fail_refuses_only_when_all_are_barred(barred: int) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        ring = ring_of(clock, ("A", "B"), on_parked="fail", key_concurrency=1)
        for name in ("A", "B")[:barred]:
            ring.throttled(name, clock.monotonic(), 100.0)
        await asyncio.sleep(10.0)
        if barred == 1:
            assert await ring.acquire() == "B"
            waiter = asyncio.create_task(ring.acquire())
            await asyncio.sleep(1.0)
            assert not waiter.done()
            return
        with pytest.raises(Throttled, match=r"every key .* is throttled; the first comes back in 90\.0 s") as caught:
            await ring.acquire()
        assert caught.value.retry_after_s == pytest.approx(90.0)
        await asyncio.sleep(90.0)
        assert await ring.acquire() is not None

    scenario()


@in_virtual_time
async def test_who_stops_waiting_leaves_no_gap(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A",), key_concurrency=1)
    await ring.acquire()
    waiters = [asyncio.create_task(ring.acquire()) for _ in range(3)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    ring.release("A")
    waiters[1].cancel()  # in the instant in which it was given the key
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [waiter.done() for waiter in waiters] == [True, True, True]
    assert waiters[2].result() == "A"
    ring.release("A")
    assert (ring.in_flight, ring.gauges()["keys_waiting"]) == ({"A": 0}, 0)


@in_virtual_time
async def test_told_of_the_loss_in_the_instant_of_its_cancellation_it_holds_nothing(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A",), key_concurrency=1)
    await ring.acquire()
    waiter = asyncio.create_task(ring.acquire())
    await asyncio.sleep(0)
    ring.park("A", AuthFailed("no"))
    waiter.cancel()
    await asyncio.wait([waiter])
    assert waiter.cancelled()
    assert ring.in_flight == {"A": 1}


@in_virtual_time
async def test_the_gauges_count_what_there_is(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A", "B", "C", "D", "E"))
    ring.throttled("A", 0.0, 50.0)
    ring.park("B", AuthFailed("no"))
    await ring.acquire()
    assert counts(ring) == (5, 1, 1, 0)


@in_virtual_time
async def test_who_waits_gets_the_key_that_is_back_first_and_at_once(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A", "B"))
    ring.park("B", QuotaExhausted("used up", retry_after_s=50.0))
    ring.throttled("A", 0.0, 0.5)
    ring.throttled("A", 0.0, 0.5)
    assert await ring.acquire() == "A"
    assert clock.monotonic() == pytest.approx(0.5)


@in_virtual_time
async def test_on_parked_fail_still_waits_for_a_key_that_is_busy_or_only_cools(clock: VirtualClock) -> None:
    ring = ring_of(clock, ("A",), on_parked="fail", key_concurrency=1)
    await ring.acquire()
    ring.throttled("A", 0.0, 50.0)
    waiters = [asyncio.create_task(ring.acquire())]
    await asyncio.sleep(1.0)
    ring.throttled("A", 1.0, 9.0)
    assert ring.state("A").startswith("barred")
    await asyncio.sleep(49.0)
    assert ring.state("A") == "ready"  # to the very second
    waiters.append(asyncio.create_task(ring.acquire()))
    await asyncio.sleep(1.0)
    assert not any(waiter.done() for waiter in waiters)


# -- what the next call would get -------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_preview_says_which_key_is_next_and_takes_nothing(clock: VirtualClock) -> None:
    for keys in ("round_robin", "weighted"):
        ring = ring_of(clock, keys=keys, weights={"A": 2.0})
        expected = "ABC" if keys == "round_robin" else "ABCA"
        for name in expected:
            for _ in range(3):
                assert ring.preview() == (name, keys)
            assert await take(ring, 1) == name
    assert set(ring.in_flight.values()) == {0}


@in_virtual_time
async def test_a_preview_says_what_is_the_matter_with_the_others(clock: VirtualClock) -> None:
    ring = ring_of(clock, key_concurrency=1)
    ring.throttled("A", 0.0, 5.0)
    ring.park("B", AuthFailed("no"))
    assert ring.preview() == ("C", "round_robin; A is cooling 5.0 s; B is parked: auth")
    assert await ring.acquire() == "C"
    assert await ring.acquire() == "A"
    assert ring.preview() == (None, "A is cooling 5.0 s; B is parked: auth")
    assert ring_of(clock, ("A", "B")).preview() == ("A", "round_robin")
    ring = ring_of(clock, ("A",), key_concurrency=1)
    assert ring.preview() == ("A", "the only one")
    await ring.acquire()
    assert ring.preview() == (None, "every key is at its limit (policy.route.key_concurrency)")


# -- against a naive model --------------------------------------------------------------------------------------------


class Model:
    """What is known of one key."""

    def __init__(self) -> None:
        self.strikes = 0
        self.throttled_at = float("-inf")
        self.cool_until = float("-inf")
        self.barred = False
        self.parked_until: float | None = None

    def usable(self, now: float) -> bool:
        return self.parked_until is None or now >= self.parked_until

    def open(self, now: float) -> bool:
        return self.usable(now) and not (self.barred and now < self.cool_until)


class AgainstNaiveKeys(RuleBasedStateMachine):
    """The ring against a plain list of what happened to each key: who may be given out, and that nobody waits idly."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.clock = VirtualClock(self.loop)
        self.names = count()
        self.tasks: dict[int, asyncio.Task[str | None]] = {}
        self.held: dict[int, tuple[str, float]] = {}

    @initialize(
        size=st.integers(1, 4),
        limit=st.sampled_from([None, 1, 2]),
        keys=st.sampled_from(["round_robin", "least_loaded", "weighted"]),
    )
    def begin(self, size: int, limit: int | None, keys: str) -> None:
        names = ("A", "B", "C", "D")[:size]
        spec = RouteSpec(keys=keys, key_concurrency=limit, cool_s=2.0, park_after_s=20.0)  # type: ignore[arg-type]
        self.ring = KeyRing(names, spec, self.clock)
        self.model = {name: Model() for name in names}
        self.limit = limit or 10**6

    # -- what may happen ---------------------------------------------------------------------------------------

    @rule(avoid=st.sampled_from([None, "A", "B"]))
    def come(self, avoid: str | None) -> None:
        self.tasks[next(self.names)] = self.loop.create_task(self.ring.acquire(avoid))
        self._settle()

    @rule(
        data=st.data(),
        fate=st.sampled_from(["ok", "ok", "throttled", "throttled", "auth", "quota", "other"]),
        hint=st.sampled_from([None, 3.0, 30.0]),
    )
    def end(self, data: st.DataObject, fate: str, hint: float | None) -> None:
        if not self.held:
            return
        number = data.draw(st.sampled_from(sorted(self.held)))
        name, started = self.held.pop(number)
        key, now = self.model[name], self.clock.monotonic()
        if fate == "ok":
            if key.strikes and started >= key.throttled_at:
                key.strikes, key.barred, key.cool_until = 0, False, float("-inf")
            self._do(self.ring.succeeded, name, started)
        elif fate == "throttled":
            others = self._throttle(key, now, started, hint)
            assert self._do(self.ring.throttled, name, started, hint) == others
        elif fate in ("auth", "quota"):
            error: InferenceError = (AuthFailed if fate == "auth" else QuotaExhausted)("no", retry_after_s=hint)
            key.parked_until = now + hint if fate == "quota" and hint is not None else float("inf")
            left = any(each.usable(now) for each in self.model.values())
            assert self._do(self.ring.park, name, error) == left
        self._do(self.ring.release, name)
        self._settle()

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        waiting = [number for number, task in self.tasks.items() if not task.done()]
        if waiting:
            self.tasks[data.draw(st.sampled_from(waiting))].cancel()
            self._settle()

    @rule(data=st.data())
    def bring_back(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        self.model[name].parked_until = None
        self.model[name].strikes, self.model[name].barred = 0, False
        self.model[name].cool_until = float("-inf")
        self._do(self.ring.unpark, name)
        self._settle()

    @rule(seconds=st.sampled_from([0.5, 2.5, 7.0, 40.0]))
    def pass_time(self, seconds: float) -> None:
        # In small steps, so that whoever gets a key in between gets it within sight.
        for _ in range(int(seconds / 0.5)):
            self.loop.run_until_complete(asyncio.sleep(0.5))
            self._settle()

    # -- the model ---------------------------------------------------------------------------------------------

    def _throttle(self, key: Model, now: float, started: float, hint: float | None) -> bool:
        if started >= key.throttled_at:
            key.strikes, key.throttled_at = key.strikes + 1, now
        pause = min(60.0, 2.0 * 2 ** (key.strikes - 1)) if hint is None else hint
        key.cool_until = max(key.cool_until, now + pause)
        key.barred = key.strikes > 1 or pause > 20.0
        usable = [each for each in self.model.values() if each.usable(now)]
        cooling = [each for each in usable if each.cool_until > now]
        if len(usable) > 1 and len(cooling) > len(usable) / 2:
            latest = max(each.cool_until for each in cooling)
            for each in usable:
                each.cool_until, each.barred = latest, True
        return any(each is not key and each.cool_until <= now for each in usable)

    def _do(self, what: Any, *arguments: Any) -> Any:
        """A plain call, on the loop."""

        async def act() -> Any:
            return what(*arguments)

        return self.loop.run_until_complete(act())

    def _settle(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.run_until_complete(asyncio.sleep(0))
        now = self.clock.monotonic()
        for number, task in list(self.tasks.items()):
            if not task.done():
                continue
            del self.tasks[number]
            if task.cancelled():
                continue
            if task.exception() is not None:
                assert isinstance(task.exception(), InferenceError)
                assert not any(key.usable(now) for key in self.model.values())
                continue
            name = task.result()
            assert name is not None
            assert self.model[name].open(now)
            self.held[number] = name, now

    @invariant()
    def nobody_waits_idly_and_no_key_is_overused(self) -> None:
        if not hasattr(self, "ring"):
            return
        now = self.clock.monotonic()
        flying = {name: sum(held == name for held, _ in self.held.values()) for name in self.model}
        assert self.ring.in_flight == flying
        assert max(flying.values()) <= self.limit
        assert self.ring.gauges()["keys_parked"] == sum(not key.usable(now) for key in self.model.values())
        if self.tasks:
            assert not any(key.open(now) and flying[name] < self.limit for name, key in self.model.items())
            assert any(key.usable(now) for key in self.model.values())

    def teardown(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0.01))
        self.loop.close()


AgainstNaiveKeys.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=30, deadline=None)
TestAgainstNaiveKeys = pytest.mark.slow(AgainstNaiveKeys.TestCase)


def doubted(names: tuple[str, ...]) -> KeyRing:
    """A ring whose keys have all worked."""
    ring = KeyRing(names, RouteSpec(), SystemClock())
    for name in names:
        ring.succeeded(name, 0.0)
    return ring


def test_one_request_does_not_cost_a_key_that_has_worked() -> None:
    ring = doubted(("a", "b", "c"))
    assert ring.refused("a", AuthFailed("403"), "row-1") is True  # one more key is tried
    assert ring.refused("b", AuthFailed("403"), "row-1") is False  # and no third: the fault is the row's
    assert ring.parked == {}
    assert ring.refused("c", AuthFailed("403"), "row-2") is True
    assert ring.parked == {}


def test_a_second_request_decides() -> None:
    ring = doubted(("a", "b"))
    assert ring.refused("a", AuthFailed("401"), "row-1") is True
    ring.succeeded("b", 0.0)
    assert ring.refused("a", AuthFailed("401"), "row-2") is True
    assert list(ring.parked) == ["a"]


def test_a_success_between_two_refusals_clears_the_doubt() -> None:
    ring = doubted(("a",))
    assert ring.refused("a", AuthFailed("403"), "row-1") is False
    ring.succeeded("a", 0.0)
    assert ring.refused("a", AuthFailed("403"), "row-2") is False
    assert ring.parked == {}
    assert ring.refused("a", AuthFailed("403"), "row-3") is False
    assert list(ring.parked) == ["a"]


def test_a_key_that_never_worked_is_parked_at_once() -> None:
    ring = KeyRing(("a", "b"), RouteSpec(), SystemClock())
    assert ring.refused("a", AuthFailed("401"), "row-1") is True
    assert list(ring.parked) == ["a"]


def test_a_used_up_quota_needs_no_second_request() -> None:
    ring = doubted(("a", "b"))
    assert ring.refused("a", QuotaExhausted("402"), "row-1") is True
    assert list(ring.parked) == ["a"]
