"""A gateway in front of a gateway, over OpenAI's API: nothing is lost on the way."""

from __future__ import annotations

import base64
import statistics
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from loadtest.prose import prose
from tests.running import Gateway, running_engine, running_gateway
from tests.voices.recordings import tone, wav


@pytest.fixture(scope="module")
def rear() -> Iterator[Gateway]:
    """A gateway in front of a simulated engine."""
    with (
        running_engine("--voice", "simulated", "--tokens-per-second", "500") as engine,
        running_gateway(upstreams=engine.address) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def front(rear: Gateway) -> Iterator[Gateway]:
    """Another gateway in front of it."""
    with running_gateway(upstreams=rear.url) as running:
        yield running


def speak(gateway: Gateway, **fields: Any) -> httpx.Response:
    """Ask for raw samples."""
    body = {"model": "tts-1", "voice": "belinda", "response_format": "pcm", **fields}
    answer = httpx.post(gateway.url + "/v1/audio/speech", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer


def test_it_is_found_out(front: Gateway) -> None:
    """Its index page tells."""
    (upstream,) = front.runtime.pool.upstreams
    assert upstream.capabilities.engine == "speech-gateway"
    assert "belinda" in upstream.voices


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "tts-1", "input": "Hello there, how are you today?"},
        {"model": "tts-1", "input": prose(150)},
        {"model": "tts-1", "input": prose(600)},
        {"model": "tts-1", "input": "Hello.", "voice": "alloy"},
        {"model": "tts-1", "input": "Quietly now.", "instructions": "Whispered."},
        {"model": "tts-1", "input": "[SPEAKER0] Hello there.\n[SPEAKER1] Good morning to you."},
        {
            "model": "tts-1",
            "input": "This is my voice.",
            "references": [
                {"audio": base64.b64encode(wav(tone(4.0, 24_000))).decode(), "text": "Hello."}
            ],
        },
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_the_samples_are_identical(
    front: Gateway, rear: Gateway, fields: dict[str, Any], *, stream: bool
) -> None:
    """Every sample, whatever is asked for."""
    direct = speak(rear, stream=stream, **fields)
    through = speak(front, stream=stream, **fields)
    assert through.content == direct.content


def test_it_streams(front: Gateway) -> None:
    """The first bytes come long before the last."""
    body = {"model": "tts-1", "voice": "belinda", "input": prose(150), "response_format": "pcm"}
    with httpx.stream("POST", front.url + "/v1/audio/speech", json=body, timeout=120) as answer:
        pieces = [len(piece) for piece in answer.iter_raw()]
    assert len(pieces) > 5


def first_byte_seconds(gateway: Gateway, client: httpx.Client) -> float:
    """Until the first byte of a short text."""
    body = {"model": "tts-1", "voice": "belinda", "input": "Hello.", "response_format": "pcm"}
    began = time.perf_counter()
    with client.stream("POST", gateway.url + "/v1/audio/speech", json=body) as answer:
        next(answer.iter_raw())
        return time.perf_counter() - began


def measure(front: Gateway, rear: Gateway, count: int = 40) -> tuple[float, float]:
    """Medians of the first byte in seconds, through both gateways and through one."""
    with httpx.Client(timeout=120) as client:
        pairs = [
            (first_byte_seconds(front, client), first_byte_seconds(rear, client))
            for _ in range(count)
        ]
    through, direct = zip(*pairs, strict=True)
    return statistics.median(through), statistics.median(direct)
