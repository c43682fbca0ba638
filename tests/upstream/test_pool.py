"""The choice of an upstream: a pure function, tested as a table."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import NoHealthyUpstream
from gateway.upstream.capabilities import told_capabilities
from gateway.upstream.known_servers import VLLM_OMNI
from gateway.upstream.pool import Pool, Upstream, choose
from gateway.upstream.probes import pause_before_probe


def upstream(
    name: str, *, healthy: bool = True, in_flight: int = 0, spoken: bool = True
) -> Upstream:
    """An upstream in a given state that lists two voices."""
    return Upstream(
        name, healthy=healthy, in_flight=in_flight, spoken=spoken, voices=("belinda", name)
    )


def test_the_one_with_the_least_in_flight_is_chosen() -> None:
    """Load is spread by what runs now."""
    busy, idle = upstream("a", in_flight=2), upstream("b", in_flight=1)
    assert choose([busy, idle], "belinda") is idle


def test_an_engine_with_room_comes_before_one_whose_requests_would_wait() -> None:
    """Its row or its own `/capabilities` tells how many it makes at once."""
    higgs_v2 = VLLM_OMNI.serving(["bosonai/higgs-audio-v2-generation-3B-base"]).capabilities
    small, large = upstream("a", in_flight=3), upstream("b", in_flight=9)
    small.capabilities = higgs_v2
    large.capabilities = told_capabilities({"slots": 10})
    assert choose([small, large], "belinda") is small
    small.in_flight = 4
    assert choose([small, large], "belinda") is large
    large.in_flight = 10
    assert choose([small, large], "belinda") is small
    for odd in (None, 0, -1, "9", [9]):
        assert told_capabilities({"slots": odd}).concurrency is None


def test_equals_are_taken_in_the_order_of_the_settings() -> None:
    """The choice is deterministic."""
    first, second = upstream("a"), upstream("b")
    assert choose([first, second], "belinda") is first


def test_an_upstream_that_was_tried_is_avoided_while_there_is_another() -> None:
    """A retry goes elsewhere first, and comes back when there is nowhere else."""
    first, second = upstream("a"), upstream("b", in_flight=9)
    assert choose([first, second], "belinda", avoid=[first]) is second
    assert choose([first, second], "belinda", avoid=[first, second]) is first


def test_an_ejected_upstream_is_passed_over() -> None:
    """Healthy ones come first, however busy."""
    ejected, healthy = upstream("a", healthy=False), upstream("b", in_flight=60)
    assert choose([ejected, healthy], "belinda") is healthy


def test_when_all_are_ejected_all_stand_in() -> None:
    """Envoy's panic rule: a pool that is all ejected more likely has a wrong probe."""
    first, second = upstream("a", healthy=False), upstream("b", healthy=False)
    assert choose([first, second], "belinda") is first
    assert choose([first, second], "belinda", avoid=[first]) is second


def test_one_that_has_never_spoken_is_never_chosen() -> None:
    """An engine that still loads its model would block."""
    assert choose([upstream("a", spoken=False, healthy=False)], "belinda") is None


def test_a_voice_is_only_asked_of_an_upstream_that_lists_it() -> None:
    """The container answers an unknown voice with its first preset and says nothing."""
    first, second = upstream("a"), upstream("b", in_flight=5)
    assert choose([first, second], "b") is second
    assert choose([first, second], "nobody") is None


def test_a_lease_counts_while_it_runs_and_not_after_an_error() -> None:
    """And once, however often its lease is closed."""
    pool = Pool(["http://a"])
    only = pool.upstreams[0]
    only.spoken = only.healthy = True
    only.voices = ("belinda",)
    lease = pool.lease("belinda")
    assert only.in_flight == 1
    lease.close()
    lease.close()
    assert only.in_flight == 0


def test_a_pool_that_has_never_spoken_says_so() -> None:
    """503 with a hint when to come back, not a hang."""
    pool = Pool(["http://a"])
    assert not pool.ready
    with pytest.raises(NoHealthyUpstream) as refused:
        pool.lease("belinda")
    assert refused.value.retry_after_seconds


def test_lists_are_the_union_of_all_that_have_spoken() -> None:
    """They do not change while an upstream is away: a voice is then busy (503), not unknown."""
    pool = Pool(["http://a", "http://b", "http://c"])
    for member, voice in zip(pool.upstreams, ("x", "y", "z"), strict=True):
        member.spoken = member.healthy = True
        member.voices, member.models = (voice, "both"), (voice, "m")
    pool.upstreams[2].spoken = pool.upstreams[2].healthy = False
    assert list(pool.voices) == ["x", "both", "y"]
    assert list(pool.models) == ["x", "m", "y"]
    pool.upstreams[1].healthy = False
    assert list(pool.voices) == ["x", "both", "y"]
    pool.drain(pool.upstreams[0], drain=True)
    assert list(pool.models) == ["x", "m", "y"]


@pytest.mark.parametrize(
    ("states", "chosen"),
    [
        # healthy before ejected, untried before tried, sure before doubtful, idle before busy
        ([{"in_flight": 1}, {}], 1),
        ([{"suspect": True}, {"in_flight": 60}], 1),
        ([{"tried": True}, {"suspect": True, "in_flight": 60}], 1),
        ([{"healthy": False}, {"tried": True, "suspect": True, "in_flight": 60}], 1),
        ([{"healthy": False, "tried": True}, {"healthy": False, "in_flight": 60}], 1),
        # doubt alone keeps nobody away
        ([{"suspect": True, "in_flight": 2}, {"suspect": True, "in_flight": 1}], 1),
        ([{"suspect": True}, {"spoken": False, "healthy": False}], 0),
    ],
)
def test_the_best_of_what_there_is(states: list[dict[str, Any]], chosen: int) -> None:
    """One order of preference, and somebody is always chosen."""
    tried = [state.pop("tried", False) for state in states]
    members = [
        Upstream(str(place), **{"spoken": True, "healthy": True, "voices": ("belinda",), **state})
        for place, state in enumerate(states)
    ]
    avoid = [member for member, was_tried in zip(members, tried, strict=True) if was_tried]
    assert choose(members, "belinda", avoid) is members[chosen]


def test_an_answer_that_has_begun_goes_on_upon_a_draining_upstream_if_need_be() -> None:
    """A long text is many generations: a drain must not cut it between two of them."""
    pool = Pool(["http://a", "http://b"])
    first, second = pool.upstreams
    for each in pool.upstreams:
        each.spoken = each.healthy = True
        each.voices = ("belinda",)
    pool.drain(first, drain=True)
    assert choose(pool.upstreams, "belinda", goes_on=True) is second
    second.healthy = False
    assert choose(pool.upstreams, "belinda", goes_on=True) is first
    assert choose(pool.upstreams, "belinda") is second
    pool.drain(second, drain=True)
    assert pool.lease("belinda", goes_on=True).upstream is first
    with pytest.raises(NoHealthyUpstream):
        pool.lease("belinda")


def test_a_drain_is_logged_when_it_changes_something(caplog: pytest.LogCaptureFixture) -> None:
    """Who reads the log next week sees when it was, once."""
    pool = Pool(["http://a"])
    with caplog.at_level("INFO", "gateway.pool"):
        for drain in (False, True, True, False, False):
            pool.drain(pool.upstreams[0], drain=drain)
    assert [record.getMessage() for record in caplog.records] == [
        "upstream http://a drains",
        "upstream http://a takes part",
    ]


def test_a_model_is_only_asked_of_an_upstream_that_lists_it() -> None:
    """Two engines with two models stand behind one address."""
    first, second = upstream("a"), upstream("b", in_flight=5)
    first.models, second.models = ("small",), ("small", "large")
    assert choose([first, second], "belinda", model="large") is second
    assert choose([first, second], "belinda", model="small") is first
    assert choose([first, second], "belinda", model="none") is None


def test_a_draining_upstream_gets_nothing_new_even_when_it_is_the_last() -> None:
    """Whoever replaces an engine wants it to come to rest."""
    pool = Pool(["http://a", "http://b"])
    for each in pool.upstreams:
        each.spoken = each.healthy = True
        each.voices = ("belinda",)
    first, second = pool.upstreams
    pool.drain(first, drain=True)
    assert first.state == "draining"
    assert choose(pool.upstreams, "belinda") is second
    assert pool.ready
    pool.drain(second, drain=True)
    assert choose(pool.upstreams, "belinda") is None
    assert not pool.ready
    with pytest.raises(NoHealthyUpstream, match="drained"):
        pool.lease("belinda")
    pool.drain(first, drain=False)
    assert choose(pool.upstreams, "belinda") is first


@pytest.mark.parametrize(
    ("failures", "least", "most"),
    [(0, 0.08, 0.12), (1, 0.16, 0.24), (4, 1.28, 1.92), (9, 4.0, 6.0), (10_000, 4.0, 6.0)],
)
def test_the_pause_before_a_probe_doubles_up_to_the_interval(
    failures: int, least: float, most: float
) -> None:
    """A sick engine is not knocked on all the time, and gateways do not probe together."""
    assert pause_before_probe(failures, 5.0, 0.0) == pytest.approx(least)
    assert pause_before_probe(failures, 5.0, 1.0) == pytest.approx(most)
