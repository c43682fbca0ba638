"""Where the attempts of a generation go, when, and how often each of them counts."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest

from engines.simulator.waveform import expected_pcm
from gateway.api.schemas import SpeechBody
from gateway.upstream.dialect import Generation
from gateway.upstream.wait_limit import WaitLimit
from loadtest.processes import engine_state
from tests.asking import PAGE, TEXT, VOICE, Asked, listen, plan_faults, say
from tests.running import Gateway, running_engine, running_gateway, wait_until

FOREVER_SECONDS = 600  # between probes: what happens before is not their doing


@pytest.fixture(scope="module")
def other() -> Iterator[str]:
    """Another engine."""
    with running_engine("--voice", "simulated", "--tokens-per-second", "5000") as supervisor:
        yield supervisor.address


@pytest.fixture(scope="module")
def pair(engine: str, other: str) -> Iterator[Gateway]:
    """A gateway in front of both."""
    with running_gateway(
        upstreams=f"{engine},{other}",
        probe_interval_seconds=FOREVER_SECONDS,
        # No timer that a request leaves behind ends while a test looks for it.
        first_audio_timeout_seconds=FOREVER_SECONDS,
        body_timeout_seconds=FOREVER_SECONDS,
    ) as running:
        wait_until(lambda: all(u.healthy for u in running.runtime.pool.upstreams), "both are ready")
        yield running


@pytest.fixture(autouse=True)
def no_fault_is_left(engine: str) -> Iterator[None]:
    """Each test leaves an engine without planned faults."""
    yield
    plan_faults(engine)


def attempts(gateway: Gateway, address: str, outcome: str) -> float:
    """Attempts on an upstream that ended so."""
    return gateway.metric("gateway_upstream_requests_total", upstream=address, outcome=outcome)


@pytest.mark.parametrize("fault", ["raise", "error", "empty", "reset"])
def test_a_retry_goes_to_the_upstream_that_has_not_failed(
    pair: Gateway, engine: str, other: str, fault: str
) -> None:
    """The first one is preferred while both are idle, so nothing but its failure moves it."""
    wait_until(lambda: all(u.healthy for u in pair.runtime.pool.upstreams), "both are ready")
    with Asked(engine) as first, Asked(other) as second:
        plan_faults(engine, always=fault)
        answer = say(pair)
        plan_faults(engine)
    assert answer.content == expected_pcm(TEXT, VOICE)
    assert [len(first.bodies), len(second.bodies)] == [1, 1]


def test_each_attempt_is_counted_once(pair: Gateway, engine: str, other: str) -> None:
    """Failures before the first audio, behind it, and generations that ended well."""
    wait_until(lambda: all(u.healthy for u in pair.runtime.pool.upstreams), "both are ready")
    code = "upstream_protocol_error"
    before = attempts(pair, engine, code), attempts(pair, engine, "ok"), attempts(pair, other, "ok")
    plan_faults(engine, "raise", "cut-960000")
    assert say(pair).status_code == 200
    assert listen(pair, PAGE)[0] == "aborted"
    assert say(pair).status_code == 200
    after = attempts(pair, engine, code), attempts(pair, engine, "ok"), attempts(pair, other, "ok")
    assert after == (before[0] + 2, before[1] + 1, before[2] + 1)
    assert [upstream.in_flight for upstream in pair.runtime.pool.upstreams] == [0, 0]
    for upstream in (engine, other):
        assert pair.metric("gateway_upstream_in_flight_requests", upstream=upstream) == 0


def test_a_request_that_is_over_keeps_nothing(pair: Gateway, engine: str, other: str) -> None:
    """Recordings, bodies and timers go with it, not when garbage is next collected, or later."""
    wait_until(lambda: all(u.healthy for u in pair.runtime.pool.upstreams), "both are ready")
    gc.collect()
    gc.disable()
    try:
        plan_faults(engine, always="raise")
        assert say(pair).status_code == 200
        assert say(pair, voice="nobody").status_code == 404
        plan_faults(other, always="raise")
        assert say(pair).status_code == 502
        plan_faults(other, always="error")
        assert say(pair).status_code == 502
        assert say(pair, PAGE * 3).status_code == 502
        plan_faults(engine)
        plan_faults(other)
        assert say(pair, stream=False).status_code == 200
        wait_until(lambda: not kept(), "nothing is kept")
    finally:
        plan_faults(other)
        gc.enable()


def kept() -> list[object]:
    """What is in memory of requests."""
    # By type: to ask some objects of other packages for their class is to warn of them.
    of_requests = {Generation, SpeechBody, WaitLimit}
    return [each for each in gc.get_objects() if type(each) in of_requests]


def test_a_single_upstream_is_given_a_pause_before_each_retry(engine: str) -> None:
    """0.1 s, then 0.2 s; three attempts in all, each counted, two of them as retries."""
    with running_gateway(upstreams=engine, probe_interval_seconds=FOREVER_SECONDS) as gateway:
        with Asked(engine) as asked:
            plan_faults(engine, always="raise")
            began = time.monotonic()
            answer = say(gateway)
            took = time.monotonic() - began
        assert answer.status_code == 502
        assert took >= 0.3
        assert len(asked.bodies) == 3
        code = "upstream_protocol_error"
        assert attempts(gateway, engine, code) == 3
        assert gateway.metric("gateway_upstream_retries_total", reason=code) == 2


def test_a_failure_wakes_the_probe_of_its_upstream_at_once(engine: str) -> None:
    """However long the pause between two probes is: here the next one would come in minutes."""
    with running_gateway(upstreams=engine, probe_interval_seconds=FOREVER_SECONDS) as gateway:
        (upstream,) = gateway.runtime.pool.upstreams
        plan_faults(engine, "reset", match=TEXT)
        assert say(gateway).content == expected_pcm(TEXT, VOICE)
        assert gateway.metric("gateway_upstream_retries_total", reason="upstream_unreachable") == 1
        wait_until(lambda: upstream.healthy, "a warm-up brings it back")
        assert upstream.failures == 1
        # All that ran on it fails at once: one failure, one ejection.
        plan_faults(engine, "slow", always="reset")
        warm_ups = engine_state(engine)["requests_total"]
        assert say(gateway).status_code == 200
        assert say(gateway).status_code == 503
        assert not gateway.runtime.pool.ready
        plan_faults(engine)
        wait_until(lambda: upstream.healthy, "it is tried until it speaks")
        assert engine_state(engine)["requests_total"] > warm_ups


def test_a_hang_has_its_upstream_looked_at_closely_at_once(engine: str) -> None:
    """A warm-up tells a request that hung from an engine that does."""
    with running_gateway(
        upstreams=engine, probe_interval_seconds=FOREVER_SECONDS, first_audio_timeout_seconds=0.5
    ) as gateway:
        (upstream,) = gateway.runtime.pool.upstreams
        spoken = engine_state(engine)["requests_total"]
        plan_faults(engine, "hang", match=TEXT)
        assert say(gateway).status_code == 200
        wait_until(lambda: not upstream.suspect, "a warm-up has cleared it")
        # The request that hung, its second attempt, and the warm-up.
        assert engine_state(engine)["requests_total"] == spoken + 3
        assert upstream.healthy


def test_each_attempt_has_a_request_id_of_its_own(pair: Gateway, engine: str) -> None:
    """The container takes it for its own id, and two alike collide."""
    plan_faults(engine, *["slow"] * 4)
    for _ in range(4):
        assert say(pair, text=PAGE, max_tokens=40).status_code == 200
    seen = [r["headers"].get("x-request-id") for r in engine_state(engine)["requests"]]
    assert None not in seen
    assert len(set(seen)) == len(seen) >= 4


@pytest.mark.parametrize("fields", [{}, {"stream": False}], ids=["stream", "whole"])
@pytest.mark.parametrize("fault", ["raise", "cut-960000"])
def test_nothing_is_made_again_once_the_retry_budget_is_spent(
    pair: Gateway, engine: str, fault: str, fields: dict[str, Any]
) -> None:
    """A failure before the first audio, and one inside of a whole answer, cost one attempt each."""
    budget = pair.runtime.service._attempts.budget
    budget._clock, clock = lambda: budget._filled_at, budget._clock  # nothing trickles in
    budget._balance, balance = 0.0, budget._balance
    exhausted = pair.metric("gateway_retry_budget_exhausted_total")
    try:
        with Asked(engine) as asked:
            plan_faults(engine, always=fault)
            ending, _ = listen(pair, PAGE, **fields)
        assert ending == ("aborted" if fault.startswith("cut") and not fields else "502")
        assert len(asked.bodies) == 1
        expected = 0 if ending == "aborted" else 1
        assert pair.metric("gateway_retry_budget_exhausted_total") == exhausted + expected
    finally:
        budget._clock, budget._balance = clock, balance


def test_five_generations_earn_one_that_is_made_again(pair: Gateway, engine: str) -> None:
    """A fifth of the load may be made again, and no more."""
    budget = pair.runtime.service._attempts.budget
    budget._clock, clock = lambda: budget._filled_at, budget._clock
    budget._balance, balance = 0.0, budget._balance
    try:
        for _ in range(5):
            assert say(pair).status_code == 200
        for status in (200, 502):
            plan_faults(engine, "raise")
            assert say(pair).status_code == status
    finally:
        budget._clock, budget._balance = clock, balance
