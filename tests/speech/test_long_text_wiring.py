"""A long text's segments and what a request fixes for all of them: bounds, references, slots."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from engines.simulator.waveform import expected_pcm
from loadtest.processes import engine_state
from loadtest.prose import prose, sentences
from tests.asking import ABORTED, VOICE, Asked, listen, plan_faults, said, say
from tests.running import Gateway, running_gateway, wait_until

MAX_TOKENS = 100  # 4 s of audio
FADE_BYTES = 240


def runaways(gateway: Gateway) -> float:
    """Generations that were ended as too long."""
    return gateway.metric("gateway_runaway_total", reason="too_long")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("words", [60, 400])
def test_a_client_s_small_max_tokens_bounds_every_generation(
    gateway: Gateway, engine: str, words: int, *, stream: bool
) -> None:
    """The client asked for the cut: it is neither a runaway nor audio that is too short."""
    before = runaways(gateway)
    with Asked(engine) as asked:
        answer = say(gateway, prose(words), max_tokens=MAX_TOKENS, stream=stream)
    assert answer.status_code == 200
    assert {body["max_tokens"] for body in asked.bodies} == {MAX_TOKENS}
    assert len({said(body) for body in asked.bodies}) == len(asked.bodies), "none is made twice"
    if len(asked.bodies) == 1:
        # The last 5 ms are faded: a cut inside a sound clicks.
        heard = answer.content[:-FADE_BYTES]
        assert heard == expected_pcm(said(asked.bodies[0]), VOICE)[: len(heard)]
    seconds = len(answer.content) / 48_000
    assert 3 <= seconds / len(asked.bodies) <= 5
    assert runaways(gateway) == before


def test_a_client_s_large_max_tokens_gives_way_to_the_text_s_own_bound(
    gateway: Gateway, engine: str
) -> None:
    """A runaway must not last longer because a client allowed it."""
    before = runaways(gateway)
    with Asked(engine) as asked:
        assert say(gateway, "Hello there, old friend.").status_code == 200
        plan_faults(engine, "runaway")
        long = say(gateway, "Hello there, old friend.", max_tokens=7000)
    own, bounded = asked.bodies
    assert own["max_tokens"] == bounded["max_tokens"] < 1000
    assert 5 < len(long.content) / 48_000 < 40
    assert runaways(gateway) == before + 1


def references_of(body: dict[str, Any]) -> list[tuple[str, bytes]]:
    """Texts and samples that a generation's prompt holds before its own text."""
    messages = body["messages"][1:-1]
    return [
        (text["content"], base64.b64decode(audio["content"][0]["input_audio"]["data"])[44:])
        for text, audio in zip(messages[::2], messages[1::2], strict=True)
    ]


def test_a_first_segment_that_was_made_again_is_the_others_reference_without_its_broken_try(
    gateway: Gateway, engine: str
) -> None:
    """Audio of the try that broke off would be heard as a stutter in the voice of all others."""
    with Asked(engine) as asked:
        plan_faults(engine, "cut-480000")
        answer = httpx.post(
            gateway.url + "/generate",
            json={"text": prose(400), "system_prompt": "A hall.", "response_format": "pcm"},
            timeout=120,
        )
    assert answer.status_code == 200
    broken, first, *others = asked.bodies
    assert said(broken) == said(first)
    assert others
    for body in others:
        assert references_of(body) == [(said(first), expected_pcm(said(first), ""))]


def test_a_later_turn_that_was_made_again_is_the_next_one_s_reference_alone(
    gateway: Gateway, engine: str
) -> None:
    """A dialogue's generations hear the first one and the one before them, each once."""
    turns = zip(range(32), sentences(), strict=False)
    text = " ".join(f"[SPEAKER{number % 2}] {said}" for number, said in turns)
    with Asked(engine) as asked:
        plan_faults(engine, "slow", "cut-96000")
        answer = httpx.post(
            gateway.url + "/generate", json={"text": text, "response_format": "pcm"}, timeout=120
        )
    assert answer.status_code == 200
    first, broken, second, third, *_ = asked.bodies
    assert said(broken) == said(second)
    assert references_of(broken) == references_of(second)
    assert references_of(third) == [
        (said(body), expected_pcm(said(body), "")) for body in (first, second)
    ]


def test_the_gauge_of_slots_follows_a_long_text(engine: str) -> None:
    """It shows the segments that are made at once, and comes back whatever became of them."""
    with running_gateway(upstreams=engine, max_in_flight=4, idle_timeout_seconds=60) as gateway:

        def gauges() -> tuple[float, float]:
            return (
                gateway.metric("gateway_slots_in_use"),
                gateway.metric("gateway_in_flight_requests"),
            )

        url, body = (
            gateway.url + "/v1/audio/speech",
            {"model": "tts-1", "input": prose(1500), "voice": VOICE},
        )
        plan_faults(engine, always="stall-240000")
        with httpx.stream("POST", url, json=body, timeout=120) as answer:
            parts = answer.iter_raw()  # kept: the stream would be closed with it
            next(parts)
            wait_until(lambda: gauges() == (4, 1), "all slots are in use, by one request")
        wait_until(lambda: gauges() == (0, 0), "a client that left holds none")
        plan_faults(engine)
        assert say(gateway, prose(500)).status_code == 200
        wait_until(lambda: gauges() == (0, 0), "a text that was spoken holds none")
        plan_faults(engine, always="cut-960000")
        assert listen(gateway, prose(500))[0] == ABORTED
        plan_faults(engine)
        wait_until(lambda: gauges() == (0, 0), "a text that broke off holds none")
        assert repr(gateway.runtime.admission) == "<Admission 0/4 in flight, 0/256 queued>"
        assert gateway.runtime.service.look_ahead.segments == 0


def test_behind_the_first_segment_that_fixes_the_voice_the_others_are_made_at_once(
    engine: str,
) -> None:
    """Each of them needs the first one's audio, and none another's."""
    with running_gateway(upstreams=engine, max_in_flight=4, idle_timeout_seconds=60) as gateway:
        body = {
            "model": "tts-1",
            "input": prose(900),
            "response_format": "opus",
            "system_prompt": "A calm voice.",
        }
        url = gateway.url + "/v1/audio/speech"
        plan_faults(engine, "slow", always="stall-240000")
        with httpx.stream("POST", url, json=body, timeout=120) as answer:
            parts = answer.iter_raw()  # kept: the stream would be closed with it
            next(parts)
            wait_until(lambda: engine_state(engine)["running"] == 4, "all slots are in use")
        plan_faults(engine)
        wait_until(lambda: engine_state(engine)["running"] == 0, "the engine is free")
        assert gateway.runtime.service.look_ahead.segments == 0
