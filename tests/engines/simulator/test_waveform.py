"""The simulated voice's sound: what a test can read from it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.simulator.waveform import (
    NO_VOICE,
    expected_pcm,
    frames_of,
    murmur,
    read_waveform,
    text_number,
)
from engines.voice import PRESETS, SAMPLES_PER_TOKEN

TEXT = "The quick brown fox jumps over the lazy dog."
SAMPLES = frames_of(TEXT) * SAMPLES_PER_TOKEN


@pytest.mark.parametrize("voice", [*PRESETS, ""])
def test_voice_and_text_can_be_read_from_the_sound(voice: str) -> None:
    """Whoever confuses two answers is found out."""
    reading = read_waveform(expected_pcm(TEXT, voice))
    assert reading.whole
    assert reading.voice == (PRESETS.index(voice) if voice else NO_VOICE)
    assert reading.text == text_number(TEXT)


@given(at=st.integers(100, SAMPLES - 2000), length=st.integers(1, 1500), doubled=st.booleans())
def test_a_lost_or_doubled_stretch_is_measured_to_the_sample(
    at: int, length: int, *, doubled: bool
) -> None:
    """Also a single sample."""
    whole = expected_pcm(TEXT, "mabel")
    first, last = 2 * at, 2 * (at + length)
    spoilt = whole[:last] + whole[first:] if doubled else whole[:first] + whole[last:]
    reading = read_waveform(spoilt)
    assert reading.jumps == (-length if doubled else length,)
    assert not reading.whole


def test_foreign_bytes_are_told_from_sound() -> None:
    """Error text between honest samples is no part of any run; an odd one shifts all behind it."""
    whole = expected_pcm(TEXT, "vex")
    even = read_waveform(whole[:20_000] + b'{"error": "x"}' + whole[20_000:])
    assert even.jumps == (0,)
    assert sum(run.samples for run in even.runs) == SAMPLES
    odd = read_waveform(whole[:20_000] + b'{"error": "xy"}' + whole[20_000:])
    assert [run.samples for run in odd.runs] == [10_000]
    assert not read_waveform(bytes(10_000)).runs


def test_the_sound_is_loud_and_never_clips() -> None:
    """No guard against silence or clipping may mistake it; the murmur is meant to be."""
    samples = np.frombuffer(expected_pcm(TEXT, "belinda"), "<i2").astype(float)
    by_token = samples.reshape(-1, SAMPLES_PER_TOKEN)
    assert np.sqrt((by_token**2).mean(axis=1)).min() > 1000
    assert np.abs(samples).max() < 16_384
    assert np.abs(np.frombuffer(murmur(10_000), "<i2")).max() <= 8


def test_a_text_takes_as_long_as_a_reader() -> None:
    """About 14 characters a second, and never nothing."""
    assert frames_of("x" * 1400) == 2500
    assert frames_of("") >= 2
