"""A client that leaves is counted once, as cancelled, wherever its request is at that moment."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from engines.simulator.waveform import expected_pcm
from loadtest.processes import engine_state
from tests.asking import PAGE, TEXT, VOICE, plan_faults, say
from tests.running import Gateway, running_gateway, wait_until
from tests.sockets import connected, post

SPEECH, GENERATE, BATCH, TTS = "/v1/audio/speech", "/generate", "/generate/batch", "/tts"
ITEMS = 3
# For each way to ask: path, body, the requests that it counts as.
CALLS: dict[str, tuple[str, Any, int]] = {
    "stream": (SPEECH, {"model": "tts-1", "input": PAGE}, 1),
    "events": (SPEECH, {"model": "tts-1", "input": PAGE, "stream_format": "sse"}, 1),
    "whole": (SPEECH, {"model": "tts-1", "input": PAGE, "stream": False}, 1),
    "long": (SPEECH, {"model": "tts-1", "input": f"{PAGE}\n\n{PAGE}\n\n{PAGE}"}, 1),
    "generate": (GENERATE, {"text": PAGE}, 1),
    "batch": (BATCH, [{"text": f"{PAGE} {number}"} for number in range(ITEMS)], ITEMS),
    "tts": (TTS, {"text": PAGE, "predefined_voice_id": "Belinda.wav"}, 1),
}


@pytest.fixture(autouse=True)
def no_fault_is_left(engine: str) -> Iterator[None]:
    """Each test leaves an idle engine without planned faults."""
    yield
    plan_faults(engine)
    wait_until(lambda: engine_state(engine)["running"] == 0, "nothing runs")


def outcomes(gateway: Gateway) -> Counter[str]:
    """Requests of all surfaces by how they ended."""
    counts: Counter[str] = Counter()
    for family in gateway.runtime.metrics.registry.collect():
        for sample in family.samples:
            if sample.name == "gateway_requests_total":
                counts[sample.labels["outcome"]] += int(sample.value)
    return counts


@pytest.mark.parametrize("fault", ["hang", "stall-240000"])
@pytest.mark.parametrize("call", CALLS)
def test_a_cancelled_call_is_counted_once(
    gateway: Gateway, engine: str, call: str, fault: str
) -> None:
    """Before its first audio or in the middle of it; what it held is free afterwards."""
    path, body, requests = CALLS[call]
    before = outcomes(gateway)
    aborted = engine_state(engine)["aborted"]
    plan_faults(engine, always=fault)
    with connected(gateway.url) as connection:
        connection.sendall(post(json.dumps(body).encode(), path=path))
        wait_until(lambda: engine_state(engine)["running"] >= requests, "the engine works on it")
    plan_faults(engine)
    wait_until(lambda: engine_state(engine)["running"] == 0, "the engine is free")
    assert engine_state(engine)["aborted"] >= aborted + requests
    # The next request is counted behind whatever the first one still was.
    assert say(gateway).content == expected_pcm(TEXT, VOICE)
    wait_until(lambda: gateway.runtime.service.in_flight == 0, "no slot is held")
    counted = before.total() + requests + 1
    wait_until(lambda: outcomes(gateway).total() >= counted, "all are counted")
    assert outcomes(gateway) - before == Counter(cancelled=requests, ok=1)
    assert gateway.metric("gateway_in_flight_requests") == 0
    assert gateway.metric("gateway_slots_in_use") == 0


def test_a_call_that_is_cancelled_in_the_queue_is_counted_once(engine: str) -> None:
    """It never had a slot, and its place goes to another."""
    with running_gateway(upstreams=engine, max_in_flight=1, max_queued=1) as gateway:
        plan_faults(engine, always="hang")
        request = post({"model": "tts-1", "input": PAGE})
        with connected(gateway.url) as first:
            first.sendall(request)
            wait_until(lambda: engine_state(engine)["running"] == 1, "the first has the slot")
            with connected(gateway.url) as second:
                second.sendall(request)
                wait_until(lambda: gateway.runtime.admission.queued == 1, "the second waits")
                assert gateway.metric("gateway_queued_requests") == 1
            wait_until(lambda: outcomes(gateway) == Counter(cancelled=1), "it is counted")
            assert gateway.metric("gateway_queued_requests") == 0
        plan_faults(engine)
        assert say(gateway).status_code == 200
        assert outcomes(gateway) == Counter(cancelled=2, ok=1)
