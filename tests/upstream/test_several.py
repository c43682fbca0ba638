"""Two engines that differ: each speaks what it lists, and clients see one house."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from engines.simulator.waveform import expected_pcm
from gateway.errors import UpstreamProtocolError
from tests.running import Gateway, running_engine, running_gateway, wait_until

TEXT = "It is said by whoever can say it."


def simulated(model: str, *voices: str) -> list[str]:
    """The flags of an engine."""
    return [
        *("--voice", "simulated", "--tokens-per-second", "5000"),
        *("--served-model-name", model, "--voice-list", json.dumps(voices)),
    ]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A gateway in front of two."""
    with (
        running_engine(*simulated("small", "belinda", "vex")) as one,
        running_engine(*simulated("large", "belinda", "mabel")) as two,
        running_gateway(upstreams=f"{one.address},{two.address}") as running,
    ):
        pool = running.runtime.pool
        wait_until(lambda: all(u.healthy for u in pool.upstreams), "both are ready")
        yield running


def speak(gateway: Gateway, **fields: Any) -> httpx.Response:
    """Ask for raw samples."""
    body = {"model": "tts-1", "input": TEXT, "response_format": "pcm", **fields}
    return httpx.post(gateway.url + "/v1/audio/speech", json=body, timeout=120)


def spoken_by(gateway: Gateway) -> list[float]:
    """Generations that ended well, by upstream."""
    return [
        gateway.metric("gateway_upstream_requests_total", upstream=u.address, outcome="ok")
        for u in gateway.runtime.pool.upstreams
    ]


def test_the_lists_are_the_union(gateway: Gateway) -> None:
    """What any of them has, the house has."""
    voices = httpx.get(gateway.url + "/v1/audio/voices").json()["voices"]
    names = [voice["id"] if isinstance(voice, dict) else voice for voice in voices]
    assert {"belinda", "vex", "mabel"} <= set(names)
    models = [m["id"] for m in httpx.get(gateway.url + "/v1/models").json()["data"]]
    assert models[:2] == ["small", "large"]


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"voice": "vex"}, 0),
        ({"voice": "mabel"}, 1),
        ({"voice": "belinda", "model": "small"}, 0),
        ({"voice": "belinda", "model": "large"}, 1),
        ({"voice": "belinda"}, 0),  # both have it, none is busy
        ({"voice": "mabel", "model": "tts-1"}, 1),
    ],
)
def test_each_request_goes_to_one_that_lists_its_voice_and_its_model(
    gateway: Gateway, fields: dict[str, Any], place: int
) -> None:
    """The container would answer an unknown voice with its first one."""
    before = spoken_by(gateway)
    answer = speak(gateway, **fields)
    assert answer.content == expected_pcm(TEXT, fields["voice"])
    after = spoken_by(gateway)
    assert after[place] == before[place] + 1
    assert after[1 - place] == before[1 - place]
    # Nor was the other one asked in vain.
    error = UpstreamProtocolError.code
    assert gateway.metric("gateway_upstream_retries_total", reason=error) == 0


def test_what_nobody_lists_is_unknown_and_what_is_away_is_busy(gateway: Gateway) -> None:
    """404 ends a client's tries, 503 asks it to come again."""
    assert speak(gateway, voice="nobody-has-it").status_code == 404
    assert speak(gateway, voice="belinda", model="huge").status_code == 404
    pool = gateway.runtime.pool
    pool.drain(pool.upstreams[1], drain=True)
    try:
        away = speak(gateway, voice="mabel")
        assert away.status_code == 503
        assert int(away.headers["retry-after"]) > 0
        assert speak(gateway, voice="belinda").status_code == 200
    finally:
        pool.drain(pool.upstreams[1], drain=False)
    assert speak(gateway, voice="mabel").status_code == 200
