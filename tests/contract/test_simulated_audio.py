"""docs/contract.md section 2, byte for byte and second for second, on the simulator.

The container's weights, its tokenizer and its GPU decide these figures; the simulator has them
fixed.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import av
import httpx
import pytest
import soundfile as sf

from engines.simulator.waveform import expected_pcm, frames_of, read_waveform
from engines.voice import PRESETS
from tests.contract.simulators import (
    BYTES_PER_TOKEN,
    LONG,
    SPEECH,
    TEXT,
    Simulator,
    read_bytes,
    simulator,
    speech_body,
)


@pytest.fixture(scope="module")
def short() -> Iterator[Simulator]:
    """One with a key, a name of its own and 400 tokens of context."""
    arguments = ["--api-key", "Secret", "--served-model-name", "higgs", "--max-model-len", "400"]
    with simulator("--tokens-per-second", "2000", *arguments) as running:
        yield running


@pytest.fixture(scope="module")
def timed() -> Iterator[Simulator]:
    """One of 100 tokens a second, 150 in total, two streams at once, with prefill."""
    arguments = ["--tokens-per-second", "100", "--total-tokens-per-second", "150"]
    arguments += ["--first-token-ms", "200", "--max-running", "2"]
    with simulator(*arguments) as running:
        yield running


@pytest.mark.parametrize("voice", PRESETS)
def test_the_audio_tells_voice_and_text_and_is_whole(engine: Simulator, voice: str) -> None:
    """Every sample once."""
    content = engine.speech(voice=voice).content
    assert content == expected_pcm(TEXT, voice)
    assert read_waveform(content).voice == PRESETS.index(voice)


def test_chunks_have_the_sizes_that_were_seen(engine: Simulator) -> None:
    """32,640 bytes first, then 48,000 each, the rest in the tail: 120 frames in all."""
    assert frames_of(LONG) == 120
    sizes = [len(chunk) for chunk in engine.http_chunks(speech_body(input=LONG))]
    assert sizes == [32_640, 48_000, 48_000, 48_000, 53_760]


@pytest.mark.parametrize(
    ("size", "overlap", "frames"),
    [(0, 0, 120), (13, 11, 120), (250, 25, 120), (5, 25, 112), (-3, 25, 77), (25, 1, 96)],
)
def test_an_answer_that_ends_by_itself_loses_what_was_counted(
    engine: Simulator, size: int, overlap: int, frames: int
) -> None:
    """Whole with safe knobs; below them frames are gone, and nothing tells so."""
    content = engine.speech(
        input=LONG, audio_chunk_size=size, audio_chunk_overlap_size=overlap
    ).content
    assert len(content) == frames * BYTES_PER_TOKEN
    assert read_waveform(content).whole == (frames == 120)


def test_small_knobs_make_small_first_chunks(engine: Simulator) -> None:
    """Size s: s-8 frames first, then s."""
    knobs = {"audio_chunk_size": 13, "audio_chunk_overlap_size": 11}
    first, second, *_ = engine.http_chunks(speech_body(input=LONG, **knobs))
    assert (len(first), len(second)) == (5 * BYTES_PER_TOKEN, 13 * BYTES_PER_TOKEN)


def test_every_wav_chunk_is_a_file_of_its_own(engine: Simulator) -> None:
    """Five headers in 4.8 s of audio, each with its own data size."""
    chunks = engine.http_chunks(speech_body(input=LONG, response_format="wav"))
    assert len(chunks) == 5
    for chunk in chunks:
        samples, rate_hz = sf.read(io.BytesIO(chunk), dtype="int16")
        assert (rate_hz, 2 * len(samples)) == (24_000, len(chunk) - 44)


def test_every_mp3_chunk_is_a_file_of_its_own(engine: Simulator) -> None:
    """Each pads itself: the whole is longer than its audio."""
    seconds = 0.0
    for chunk in engine.http_chunks(speech_body(input=LONG, response_format="mp3")):
        with av.open(io.BytesIO(chunk), mode="r") as container:
            frames = list(container.decode(audio=0))
        seconds += sum(frame.samples / frame.sample_rate for frame in frames)
    assert 4.8 < seconds < 6


def test_refusals_echo_the_input(engine: Simulator) -> None:
    """Which is why a gateway must not pass them on."""
    message = engine.speech(response_format="of-mine").json()["message"]
    assert message.startswith("[{'type': 'literal_error', 'loc': ('body', 'response_format'), ")
    assert "'input': 'of-mine'" in message


def test_fields_that_are_parsed_and_ignored(engine: Simulator) -> None:
    """Speed, stop, seed, and whatever is unknown; NaN as a temperature."""
    more = {"speed": -1, "stop": ["a"], "seed": 1, "stream": True, "temperature": "NaN"}
    assert engine.speech(**more).content == expected_pcm(TEXT, "belinda")
    assert engine.speech(input="").status_code == 200


def test_a_lone_surrogate_is_500_in_plain_text(engine: Simulator) -> None:
    """It cannot be tokenized."""
    answer = httpx.post(
        engine.url + SPEECH,
        content='{"model": "", "voice": "vex", "input": "a\\ud800"}',
        headers={"Content-Type": "application/json; charset=utf-8"},
    )
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert answer.headers["content-type"].startswith("text/plain")


def test_text_that_fits_only_without_its_reference_is_an_error_in_a_200(short: Simulator) -> None:
    """A preset stands for a reference, whose tokens nobody counted before."""
    key = {"Authorization": "Bearer Secret"}
    answer = short.post(SPEECH, speech_body(model="higgs", input="x" * 140), **key)
    assert answer.status_code == 200
    assert answer.content == (
        b'{"error": {"object": "error", "message": "Prompt length of 434 is longer than the '
        b'maximum model length of 400.", "type": "BadRequestError", "param": null, "code": 400}}'
    )
    text = "fault-runaway " + TEXT
    answer = short.post(SPEECH, speech_body(model="higgs", input=text), **key)
    prompt_tokens = 92 + len(text) + 202
    assert len(answer.content) == (400 - prompt_tokens - 8) * BYTES_PER_TOKEN


@pytest.mark.parametrize("header", [None, "Bearer secret", "bearer Secret", "Secret"])
def test_speech_wants_exactly_the_key(short: Simulator, header: str | None) -> None:
    """Case and all; health, metrics and version are for everybody."""
    headers = {} if header is None else {"Authorization": header}
    answer = short.post(SPEECH, {}, **headers)
    assert (answer.status_code, answer.json()) == (401, {"error": "Unauthorized"})
    assert "www-authenticate" not in answer.headers
    assert all(short.get(path).status_code == 200 for path in ("/health", "/metrics", "/version"))


def test_wrong_methods_and_foreign_origins(engine: Simulator) -> None:
    """405 in FastAPI's shape; any origin may read."""
    assert engine.get(SPEECH).status_code == 405
    assert engine.get(SPEECH).json() == {"detail": "Method Not Allowed"}
    answer = engine.get("/v1/models", Origin="https://example.com")
    assert answer.headers["access-control-allow-origin"] == "*"


def test_an_idle_connection_is_closed_after_five_seconds(engine: Simulator) -> None:
    """A pool's own expiry must be shorter."""
    address = urlsplit(engine.url)
    with socket.create_connection((str(address.hostname), address.port or 80), 10) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: engine\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        assert connection.recv(4096) == b""
        assert time.monotonic() - began > 4.5


def test_the_head_of_the_answer_does_not_wait_for_the_gpu(timed: Simulator) -> None:
    """200 at once; the first audio after prefill and 32 tokens, the second after 68."""
    for_long = speech_body(input="x" * 4000)
    with timed.connection(for_long), timed.connection(for_long):
        timed.wait_for(on_gpu=2)
        with timed.connection(speech_body(input=LONG)) as third:
            assert read_bytes(third, 1) >= 1
            assert timed.state()["waiting"] == 1
    timed.wait_for(running=0, on_gpu=0)
    began = time.monotonic()
    times = []
    with timed.connection(speech_body(input=LONG)) as connection:
        received = 0
        for bound in (32_640, 80_640):
            received += read_bytes(connection, bound - received)
            times.append(time.monotonic() - began)
    assert times[0] >= 0.2 + 0.32 - 0.02
    assert times[1] >= 0.2 + 0.68 - 0.02
    timed.wait_for(running=0, on_gpu=0)


def test_streams_share_the_gpu_and_the_third_waits(timed: Simulator) -> None:
    """Two at 75 tokens a second each, and one in line."""
    began = time.monotonic()
    body = speech_body(input=LONG)
    with timed.connection(body) as first, timed.connection(body), timed.connection(body):
        timed.wait_for(waiting=1, on_gpu=2, running=3)
        assert 'num_requests_waiting{engine="0"' in timed.get("/metrics").text
        assert read_bytes(first, 32_640) >= 32_640
        assert time.monotonic() - began >= 0.2 + 32 / 75 - 0.02
    timed.wait_for(running=0, waiting=0, on_gpu=0)
