"""The pitch of a reference."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from engines.cpu import pitch
from engines.cpu.pitch import UnreadableAudioError, median_pitch_hz, reference_pitch_hz
from tests.listen import pitch_hz


def buzz(f0_hz: float, rate_hz: int, seconds: float = 1.0) -> NDArray[np.float32]:
    """A voice-like sound: harmonics falling by 6 dB an octave, all below 3,500 Hz."""
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    harmonics = range(1, int(3500 / f0_hz) + 1)
    wave = sum(np.cos(2 * np.pi * h * f0_hz * time + h) / h for h in harmonics)
    return np.asarray(0.2 * wave, np.float32)


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 24_000, 44_100])
@pytest.mark.parametrize("f0_hz", [75.0, 110.0, 190.0, 240.0, 330.0])
def test_the_pitch_of_a_voice_like_sound_is_found_at_any_rate(f0_hz: float, rate_hz: int) -> None:
    """Low and high voices are measured within 2 %, never an octave off, by both estimators."""
    samples = buzz(f0_hz, rate_hz)
    assert median_pitch_hz(samples, rate_hz) == pytest.approx(f0_hz, rel=0.02)
    assert pitch_hz(samples, rate_hz) == pytest.approx(f0_hz, rel=0.02)


def test_a_weak_fundamental_and_noise_do_not_mislead() -> None:
    """A telephone's recording lacks the fundamental; a room adds noise."""
    time = np.arange(24_000) / 24_000
    wave = sum(np.cos(2 * np.pi * h * 120 * time + h * h) for h in range(3, 20))
    noise = np.random.default_rng(1).standard_normal(24_000)
    samples = np.asarray(0.02 * wave + 0.01 * noise, np.float32)
    assert median_pitch_hz(samples, 24_000) == pytest.approx(120, rel=0.02)


def test_what_is_not_voiced_has_no_pitch() -> None:
    """Silence, noise and a fraction of a second give None, not an invented voice."""
    noise = np.random.default_rng(1).standard_normal(48_000).astype(np.float32)
    assert median_pitch_hz(np.zeros(24_000, np.float32), 24_000) is None
    assert median_pitch_hz(noise, 24_000) is None
    assert median_pitch_hz(np.zeros(0, np.float32), 24_000) is None
    assert median_pitch_hz(buzz(120, 24_000, 0.02), 24_000) is None
    assert median_pitch_hz(np.full(24_000, np.nan, np.float32), 24_000) is None


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_reference_may_be_any_usual_file(container: str) -> None:
    """Stereo, 44.1 kHz, compressed: the pitch is the same."""
    samples = buzz(150, 44_100)
    file = io.BytesIO()
    soundfile.write(file, np.stack([samples, samples], axis=1), 44_100, format=container)
    assert reference_pitch_hz(file.getvalue()) == pytest.approx(150, rel=0.02)


@pytest.mark.parametrize("data", [b"", b"no audio at all" * 20, b"RIFF" + b"\xff" * 60])
def test_a_file_that_is_no_audio_is_told_apart(data: bytes) -> None:
    """A client that sends rubbish as a reference is told so."""
    with pytest.raises(UnreadableAudioError):
        reference_pitch_hz(data)


def test_only_the_first_half_minute_is_decoded() -> None:
    """A long file costs bounded time: its later part is never looked at."""
    file = io.BytesIO()
    voiced = np.concatenate([np.zeros(31 * 8000, np.float32), buzz(150, 8000)])
    soundfile.write(file, voiced, 8000, format="WAV")
    assert reference_pitch_hz(file.getvalue()) is None


def test_a_reference_of_many_channels_costs_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small compressed file may hold gigabytes of samples: no more than a bound is decoded."""
    monkeypatch.setattr(pitch, "MOST_REFERENCE_VALUES", 16_000)
    file = io.BytesIO()
    samples = np.concatenate([np.zeros(8000, np.float32), buzz(150, 8000)])
    soundfile.write(file, np.stack([samples, samples], axis=1), 8000, format="FLAC")
    assert reference_pitch_hz(file.getvalue()) is None
    monkeypatch.undo()
    assert reference_pitch_hz(file.getvalue()) == pytest.approx(150, rel=0.02)
