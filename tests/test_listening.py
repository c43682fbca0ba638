"""Speech is speech: what a client gets through the gateway, decoded and listened to.

The CPU engine speaks, a recogniser listens: every format, every voice, several speeds.
"""

from __future__ import annotations

import functools
import io
import wave
from typing import Any

import httpx
import numpy as np
import pytest
import scipy.io.wavfile
import soundfile

from engines.voice import PRESETS
from tests.listen import decode, peak_dbfs, pitch_hz, resample, transcribe, word_error_rate
from tests.running import Gateway, wait_until

SENTENCES = (
    "Please remember to buy some bread and milk on the way home. "
    "The shop closes early today. "
    "I will cook dinner for everyone tonight."
)
FORMATS = ["mp3", "opus", "aac", "flac", "wav", "pcm"]


@pytest.fixture(scope="module")
def engine_arguments() -> tuple[str, ...]:
    """The CPU engine."""
    return ("--voice", "cpu")


@functools.cache
def speak(gateway: Gateway, **fields: Any) -> bytes:
    """An answer's bytes; the engine is deterministic, so each is asked for once."""
    body = {
        "model": "tts-1",
        "input": SENTENCES,
        "voice": "en_woman",
        "response_format": "pcm",
        **fields,
    }
    answer = httpx.post(gateway.url + "/v1/audio/speech", json=body, timeout=120)
    answer.raise_for_status()
    return answer.content


def error_rate(data: bytes, response_format: str) -> float:
    """Share of words that a listener gets wrong."""
    samples, rate = decode(data, response_format)
    assert -20 < peak_dbfs(samples) < 0
    return word_error_rate(SENTENCES, transcribe(samples, rate))


@pytest.mark.parametrize("response_format", ["mp3", "opus"])
def test_speech_is_understood(gateway: Gateway, response_format: str) -> None:
    """At most one word in ten is heard wrong; all other formats carry the same audio, see below."""
    assert error_rate(speak(gateway, response_format=response_format), response_format) <= 0.1


@pytest.mark.parametrize("voice", PRESETS)
def test_every_voice_is_understood(gateway: Gateway, voice: str) -> None:
    """All eight presets, through the gateway."""
    assert error_rate(speak(gateway, voice=voice), "pcm") <= 0.1


@pytest.mark.parametrize("speed", [0.5, 1.5, 2.0])
def test_other_speeds_are_understood_and_last_as_long_as_they_should(
    gateway: Gateway, speed: float
) -> None:
    """Tempo changes, pitch and words do not."""
    plain, rate = decode(speak(gateway), "pcm")
    changed, _ = decode(speak(gateway, speed=speed), "pcm")
    assert len(changed) / len(plain) == pytest.approx(1 / speed, rel=0.01)
    # The speech itself, not a tone: its median pitch wavers a little with the frames chosen.
    assert pitch_hz(changed, rate) == pytest.approx(pitch_hz(plain, rate), rel=0.03)
    assert word_error_rate(SENTENCES, transcribe(changed, rate)) <= 0.1


@pytest.mark.parametrize("response_format", FORMATS)
def test_every_format_carries_the_same_audio(gateway: Gateway, response_format: str) -> None:
    """The CPU engine is deterministic: each format decodes to the very same sound."""
    plain, rate = decode(speak(gateway), "pcm")
    samples, its_rate = decode(speak(gateway, response_format=response_format), response_format)
    samples = resample(samples, its_rate, rate)
    # One in a hundred, and the codec's padding.
    assert len(samples) / rate == pytest.approx(
        len(plain) / rate, abs=0.01 * len(plain) / rate + 0.08
    )
    size = 1 << int(np.ceil(np.log2(len(plain) + len(samples))))
    product = np.fft.rfft(plain, size) * np.conj(np.fft.rfft(samples, size))
    best = np.abs(np.fft.irfft(product, size)).max()
    assert best / np.sqrt((plain**2).sum() * (samples**2).sum()) > 0.98


def test_a_streamed_wav_opens_in_every_library(gateway: Gateway) -> None:
    """Its sizes are open, its samples are right."""
    pcm = np.frombuffer(speak(gateway), "<i2")
    data = speak(gateway, response_format="wav")
    by_soundfile, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    assert rate == 24_000
    assert np.array_equal(by_soundfile, pcm)
    by_pyav, rate = decode(data, "wav")
    assert rate == 24_000
    assert np.array_equal(np.rint(by_pyav * 32768).astype(np.int16), pcm)
    with pytest.warns(scipy.io.wavfile.WavFileWarning):  # it says that it met the end early
        rate, by_scipy = scipy.io.wavfile.read(io.BytesIO(data))
    assert np.array_equal(by_scipy, pcm)
    with wave.open(io.BytesIO(data)) as file:
        assert file.getframerate() == 24_000
        assert np.array_equal(np.frombuffer(file.readframes(len(pcm)), "<i2"), pcm)
    with wave.open(io.BytesIO(speak(gateway, response_format="wav", stream=False))) as file:
        assert file.getnframes() == len(pcm)


def test_text_that_the_voice_cannot_say_is_refused(gateway: Gateway) -> None:
    """A clear 400, not silence."""
    for text in ["你好世界" * 5, "Это русский текст, и он не короткий."]:
        answer = httpx.post(
            gateway.url + "/v1/audio/speech", json={"model": "tts-1", "input": text}, timeout=120
        )
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "unspeakable_text"


@pytest.mark.parametrize("text", ["🎉", "★★★★★", "$$", "→", "[laugh]", "<SE>[Laughter]</SE>"])
def test_text_without_a_sound_is_a_short_silence(gateway: Gateway, text: str) -> None:
    """A chunk of decoration that a client cut off is no error."""
    body = {"model": "tts-1", "input": text, "response_format": "pcm"}
    answer = httpx.post(gateway.url + "/v1/audio/speech", json=body, timeout=120)
    assert answer.status_code == 200
    samples = np.frombuffer(answer.content, "<i2")
    assert 0.2 < len(samples) / 24_000 < 0.5
    assert not samples.any()


def test_a_client_that_leaves_stops_the_engine_after_the_piece_in_hand(
    gateway: Gateway, engine: str
) -> None:
    """Seen in the engine's own counters."""

    def running() -> bool:
        lines = httpx.get(engine + "/metrics").text.splitlines()
        name = "vllm:num_requests_running{"
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)) > 0

    body = {"model": "tts-1", "input": SENTENCES * 40, "response_format": "pcm"}
    with httpx.stream("POST", gateway.url + "/v1/audio/speech", json=body, timeout=120) as answer:
        chunks = answer.iter_raw()
        next(chunks)
        assert running()
    wait_until(lambda: not running(), "the engine is idle", 15)
    wait_until(lambda: gateway.runtime.admission.in_flight == 0, "the slots are free", 15)
