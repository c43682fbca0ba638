"""The gateway in front of real servers' own HTTP code, with only the model replaced."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gateway.upstream.known_servers import OPENAI_VOICE_NAMES
from gateway.voices.samples.decode import decode_pcm
from tests.peers.quirks import QUIRKS, fetches_references
from tests.peers.servers import (
    INSTRUCTIONS,
    PEERS,
    RECORDING,
    WORDLESS,
    RunningPeer,
    running_peer,
)
from tests.peers.stand_ins import CHARACTERS_PER_SECOND, FAILING, SILENT
from tests.running import Gateway, running_gateway, wait_until
from tests.voices.recordings import tone, wav

pytestmark = pytest.mark.prove

TEXT = (
    "Hello there. This is the first sentence of several. Here comes another one, somewhat longer "
    "than the first. And a third one to end it all, with a few more words."
)
SECONDS = len(TEXT) / CHARACTERS_PER_SECOND
CLIP = base64.b64encode(wav(tone(4.0, 24_000))).decode()
SAMPLE_BYTES_A_SECOND = 48_000
OK, REFUSED, UNKNOWN, FAILED = 200, 400, 404, 502


@dataclass(frozen=True, slots=True)
class Pair:
    """A gateway and the server behind it."""

    gateway: Gateway
    running: RunningPeer

    def ask(self, text: str = TEXT, **fields: Any) -> httpx.Response:
        """One request; raw samples unless another format is asked for."""
        body = {"model": "tts-1", "input": text, "voice": "alloy", "response_format": "pcm"}
        url = self.gateway.url + "/v1/audio/speech"
        return httpx.post(url, json=body | fields, timeout=600)


@pytest.fixture(scope="module", params=PEERS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """A gateway in front of one server."""
    with running_peer(request.param, tmp_path_factory.mktemp("peer")) as running:
        settings = dict(running.peer.settings)
        with running_gateway(upstreams=running.url, ready=False, **settings) as gateway:
            (upstream,) = gateway.runtime.pool.upstreams
            wait_until(lambda: upstream.healthy, f"it is ready: {upstream.fault}", 120.0)
            yield Pair(gateway, running)


def seconds_of(answer: httpx.Response) -> float:
    """Length of an answer's audio."""
    if answer.headers["Content-Type"].startswith("audio/pcm"):
        return len(answer.content) / SAMPLE_BYTES_A_SECOND
    pcm, rate_hz = decode_pcm(answer.content)
    return len(pcm) / (2 * rate_hz)


def test_it_is_found_out(pair: Pair) -> None:
    """By its own answers; the voices and models that it lists are known."""
    (upstream,) = pair.gateway.runtime.pool.upstreams
    assert upstream.capabilities.engine == pair.running.peer.engine
    assert set(upstream.voices) >= pair.running.peer.voices
    print("voices", len(upstream.voices), upstream.voices[:4], "models", upstream.models)


def test_its_row_holds(pair: Pair) -> None:
    """What the gateway's table says of it, asked directly."""
    engine = pair.running.peer.engine
    if engine not in QUIRKS:
        pytest.skip("nothing of its own is in its row")
    QUIRKS[engine](pair.running)


def test_only_data_is_sent_as_a_recording(pair: Pair) -> None:
    """A server that takes recordings would fetch an address."""
    if RECORDING not in pair.running.peer.takes:
        pytest.skip("it takes no recordings")
    print("it fetches addresses:", fetches_references(pair.running))


@pytest.mark.parametrize("name", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_each_format_decodes_whole(pair: Pair, name: str) -> None:
    """As long as the model made it; servers add up to a second of pauses."""
    answer = pair.ask(response_format=name)
    assert answer.status_code == OK, answer.text
    assert SECONDS - 0.1 <= seconds_of(answer) <= SECONDS + 1.5


def test_first_and_last_bytes(pair: Pair) -> None:
    """What streams is passed on while it is made."""
    body = {"model": "tts-1", "voice": "alloy", "input": TEXT * 3, "response_format": "pcm"}
    url, began, first = pair.gateway.url + "/v1/audio/speech", time.perf_counter(), 0.0
    with httpx.stream("POST", url, json=body, timeout=600) as answer:
        assert answer.status_code == OK
        for _ in answer.iter_raw():
            first = first or time.perf_counter() - began
    print(f"first byte {first:.2f} s, last byte {time.perf_counter() - began:.2f} s")


def test_voices(pair: Pair) -> None:
    """The 13 names speak, what is listed speaks, other names are unknown."""
    (upstream,) = pair.gateway.runtime.pool.upstreams
    told = {}
    for name in (*OPENAI_VOICE_NAMES, upstream.voices[0], upstream.voices[-1], "nobody"):
        told[name] = pair.ask("Hello there.", voice=name).status_code
    print(told)
    assert told.pop("nobody") == UNKNOWN
    if pair.running.peer.rear is None:  # LiteLLM lists no voices; Kokoro behind it knows nine names
        assert set(told.values()) == {OK}, told


@pytest.mark.parametrize("word", [FAILING, SILENT])
def test_a_failure_of_the_model_is_no_audio(pair: Pair, word: str) -> None:
    """502 in the gateway's words, whatever the server makes of it."""
    answer = pair.ask(f"Please {word} now.")
    print(answer.status_code, answer.text[:300])
    assert answer.status_code == FAILED
    assert "CUDA" not in answer.text
    assert pair.ask("Hello there.").status_code == OK


def test_a_long_text_is_said_whole(pair: Pair) -> None:
    """6,480 characters, in as many requests as the server needs."""
    text = (TEXT + " ") * 40
    answer = pair.ask(text)
    assert answer.status_code == OK, answer.text
    assert seconds_of(answer) == pytest.approx(len(text) / CHARACTERS_PER_SECOND, rel=0.08)


def test_speed_is_the_gateways(pair: Pair) -> None:
    """Half as long, whatever the server knows of speed."""
    assert seconds_of(pair.ask(speed=2.0)) == pytest.approx(SECONDS / 2, abs=0.8)


@pytest.mark.parametrize(
    ("need", "fields"),
    [
        (RECORDING, {"reference_audio_base64": CLIP, "reference_text": "This is me."}),
        (WORDLESS, {"reference_audio_base64": CLIP}),
        (INSTRUCTIONS, {"instructions": "Whisper."}),
    ],
)
def test_what_it_does_not_take_is_refused(pair: Pair, need: str, fields: dict[str, str]) -> None:
    """400 with the reason, never an answer that leaves it out."""
    answer = pair.ask(**fields)
    expected = OK if need in pair.running.peer.takes else REFUSED
    assert answer.status_code == expected, answer.text[:300]


def test_a_dialogue_is_said(pair: Pair) -> None:
    """Turn by turn."""
    answer = pair.ask("[SPEAKER0] Hello to you. [SPEAKER1] Good morning to you.")
    assert answer.status_code == OK, answer.text


def test_a_client_that_leaves_ends_the_request(pair: Pair) -> None:
    """The lease is free at once, and an engine that can be told is told."""
    (upstream,) = pair.gateway.runtime.pool.upstreams
    before = pair.running.log.read_bytes().count(b"PEER abort")
    body = {"model": "tts-1", "voice": "alloy", "input": TEXT * 6, "response_format": "pcm"}
    url = pair.gateway.url + "/v1/audio/speech"
    with httpx.stream("POST", url, json=body, timeout=600) as answer:
        next(answer.iter_raw())
    left = time.perf_counter()
    wait_until(lambda: not upstream.in_flight, "the lease is free")
    print(f"the lease is free after {1000 * (time.perf_counter() - left):.0f} ms")
    if pair.running.peer.tells_aborts:
        wait_until(lambda: pair.running.log.read_bytes().count(b"PEER abort") > before, "abort")
        print(f"the engine's abort came after {1000 * (time.perf_counter() - left):.0f} ms")
