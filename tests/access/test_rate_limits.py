"""Limits a minute: what is let in, what is refused, and what is charged in the end."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.rate_limits import ANONYMOUS, Bucket, Callers, Limits, charge_audio
from gateway.errors import RateLimited
from gateway.telemetry.metrics import Metrics
from tests.access.test_keys import Clock


@pytest.fixture
def clock() -> Clock:
    """A clock that goes when it is told."""
    return Clock()


def callers(clock: Clock, *, replicas: int = 1, **limits: float) -> Callers:
    """Callers who all have the same limits."""
    return Callers(Limits(**limits), Metrics(), replicas=replicas, now=clock)


def refused(ask: Callable[[], object]) -> float:
    """When a refusal says to come back, in seconds."""
    with pytest.raises(RateLimited) as caught:
        ask()
    seconds = caught.value.retry_after_seconds
    assert seconds is not None
    return seconds


def test_a_minutes_requests_may_come_at_once_and_then_evenly(clock: Clock) -> None:
    """Who waits as long as the refusal says is let in; a moment earlier is too early."""
    caller = callers(clock, requests_per_minute=3).get("alice")
    for _ in range(3):
        caller.charge_request()
    assert refused(caller.charge_request) == pytest.approx(20)
    clock.seconds += 19
    assert refused(caller.charge_request) == pytest.approx(1)
    clock.seconds += 1.001
    caller.charge_request()
    assert refused(caller.charge_request) > 19


def test_one_callers_refusal_is_not_anothers(clock: Clock) -> None:
    """Everybody has their own minute."""
    all_callers = callers(clock, requests_per_minute=1)
    all_callers.get("alice").charge_request()
    refused(all_callers.get("alice").charge_request)
    all_callers.get("bob").charge_request()
    all_callers.get().charge_request()
    refused(all_callers.get(ANONYMOUS).charge_request)


def test_without_limits_nothing_is_refused_and_no_header_is_sent(clock: Clock) -> None:
    """0 is no limit."""
    caller = callers(clock).get("alice")
    for _ in range(10_000):
        caller.charge_request()
    caller.charge_audio(1e9)
    assert caller.headers() == {}


def test_a_keys_own_limit_goes_before_everybodys(clock: Clock) -> None:
    """More, fewer, or 0 for none; what it does not say is as for everybody."""
    all_callers = callers(clock, requests_per_minute=5, audio_seconds_per_minute=30)
    assert all_callers.get("a", Limits(requests_per_minute=9)).limits == Limits(9, 30)
    assert all_callers.get("b", Limits(0, 1)).limits == Limits(0, 1)


def test_replicas_share_a_limit(clock: Clock) -> None:
    """N replicas together let in no more than one would, even where each has less than one."""
    allowed = 0
    for _ in range(4):
        caller = callers(clock, replicas=4, requests_per_minute=8).get("alice")
        for _ in range(8):
            try:
                caller.charge_request()
            except RateLimited:
                break
            allowed += 1
    assert allowed == 8
    caller = callers(clock, replicas=4, requests_per_minute=1).get("alice")
    caller.charge_request()
    assert refused(caller.charge_request) == pytest.approx(240)


def test_audio_is_held_by_estimate_and_charged_as_it_was_made(clock: Clock) -> None:
    """What was not made is given back: a client that leaves early keeps the rest."""
    caller = callers(clock, audio_seconds_per_minute=60).get("alice")
    settle = caller.charge_audio(50)
    assert caller.headers()["x-ratelimit-remaining-audio-seconds"] == "10"
    settle(20.0)
    assert caller.headers()["x-ratelimit-remaining-audio-seconds"] == "40"


def test_requests_at_once_cannot_overdraw_together(clock: Clock) -> None:
    """Each holds its estimate while it runs; the next is told when to come back."""
    caller = callers(clock, audio_seconds_per_minute=60).get("alice")
    settle = caller.charge_audio(40)
    assert refused(lambda: caller.charge_audio(30)) == pytest.approx(10)
    settle(0.0)
    caller.charge_audio(30)


def test_a_text_longer_than_the_limit_is_spoken_and_paid_off(clock: Clock) -> None:
    """It would otherwise never be: it needs a full minute, and what is owed is waited for."""
    caller = callers(clock, audio_seconds_per_minute=60).get("alice")
    caller.charge_audio(300)(240.0)
    assert refused(lambda: caller.charge_audio(1)) == pytest.approx(181)
    clock.seconds += 182
    caller.charge_audio(1)


def test_a_request_that_fails_is_charged_no_audio(clock: Clock) -> None:
    """Nobody pays for an engine's failure."""
    caller = callers(clock, audio_seconds_per_minute=60).get("alice")
    caller.charge_audio(50)(0.0)
    assert caller.headers()["x-ratelimit-remaining-audio-seconds"] == "60"


def test_headers_tell_what_is_left_under_openais_names(clock: Clock) -> None:
    """SDKs and dashboards know these."""
    caller = callers(clock, requests_per_minute=60).get("alice")
    caller.charge_request()
    caller.charge_request()
    assert caller.headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "58",
        "x-ratelimit-reset-requests": "2000ms",
    }
    caller.charge_more_requests(100)
    assert caller.headers()["x-ratelimit-remaining-requests"] == "0"


def test_a_changed_limit_holds_at_once_and_an_unchanged_one_is_not_begun_anew(
    clock: Clock,
) -> None:
    """Reading the keys file again is no way to a fresh minute."""
    all_callers = callers(clock, requests_per_minute=1)
    all_callers.get("alice").charge_request()
    all_callers.keep(frozenset({"alice"}))
    refused(all_callers.get("alice").charge_request)
    all_callers.get("alice", Limits(requests_per_minute=2)).charge_request()


def test_callers_whose_keys_are_gone_are_forgotten(clock: Clock) -> None:
    """Memory is bounded by the keys there are."""
    all_callers = callers(clock, requests_per_minute=1)
    gone, stays = (weakref.ref(all_callers.get(name)) for name in ("alice", "bob"))
    all_callers.keep(frozenset({"bob"}))
    gc.collect()
    assert gone() is None
    assert stays() is all_callers.get("bob")


def test_where_there_is_no_caller_nobody_is_charged() -> None:
    """The straight line runs without a door, too."""
    charge_audio(1e9)(5.0)


@given(
    per_minute=st.floats(0.01, 1e6),
    steps=st.lists(st.tuples(st.floats(0, 300), st.floats(0, 1e5)), max_size=40),
)
def test_no_more_is_let_in_than_the_rate_allows(
    per_minute: float, steps: list[tuple[float, float]]
) -> None:
    """Over any time: a full bucket, what came in since, and at most one thing too large."""
    clock = Clock()
    bucket = Bucket(per_minute, clock)
    start, taken, largest = clock.seconds, 0.0, 0.0
    for pause, amount in steps:
        clock.seconds += pause
        if bucket.wait_seconds(amount) == 0:
            bucket.take(amount)
            taken, largest = taken + amount, max(largest, amount)
        assert bucket.level <= per_minute
        came = per_minute * (1 + (clock.seconds - start) / 60)
        assert taken <= (came + largest) * (1 + 1e-9) + 1e-6
