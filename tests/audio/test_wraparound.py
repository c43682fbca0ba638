"""Samples above full scale that wrapped: clipped where that is certain, counted where not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.audio.wraparound import LONGEST_RUN_SAMPLES, WraparoundRepair

RATE_HZ = 24_000


def voice(peak: float, hertz: float = 180.0, samples: int = 4800) -> NDArray[np.float64]:
    """A vowel: a fundamental with formants that fall off, its highest value `peak`."""
    at = np.arange(samples) / RATE_HZ
    wave = sum(np.sin(2 * np.pi * hertz * n * at + n) / n**1.5 for n in range(1, 8))
    wave = wave * np.hanning(samples)  # it neither begins nor ends above full scale
    return np.asarray(wave / np.abs(wave).max() * peak)


def cast(wave: NDArray[np.float64]) -> bytes:
    """As the container's chat route does it: no bound."""
    return (wave * 32_767).astype(np.int64).astype("<i2").tobytes()


def clipped(wave: NDArray[np.float64]) -> NDArray[np.int16]:
    """As it should be."""
    return np.clip((wave * 32_767).astype(np.int64), -32_768, 32_767).astype("<i2")


def repaired(pcm: bytes, cuts: list[int]) -> tuple[bytes, WraparoundRepair]:
    """The audio, fed in slices."""
    repair, out, begin = WraparoundRepair(), b"", 0
    for cut in [*sorted(cuts), len(pcm) // 2]:
        out += repair.feed(pcm[2 * begin : 2 * cut])
        begin = cut
    return out + repair.finish(), repair


@given(
    peak=st.floats(1.01, 1.3),
    hertz=st.floats(90, 300),
    cuts=st.lists(st.integers(0, 4800), max_size=6),
)
def test_a_peak_above_full_scale_is_clipped_however_it_is_sliced(
    peak: float, hertz: float, cuts: list[int]
) -> None:
    """The wrapped audio becomes what a bound would have made of it."""
    wave = voice(peak, hertz)
    out, repair = repaired(cast(wave), cuts)
    assert np.array_equal(np.frombuffer(out, "<i2"), clipped(wave))
    assert repair.repaired == np.count_nonzero(clipped(wave) != np.trunc(wave * 32_767))
    assert repair.uncertain == 0


@given(peak=st.floats(0.1, 1.0), cuts=st.lists(st.integers(0, 4800), max_size=6))
def test_audio_within_full_scale_is_never_touched(peak: float, cuts: list[int]) -> None:
    """Whatever its slices."""
    pcm = cast(voice(peak))
    out, repair = repaired(pcm, cuts)
    assert out == pcm
    assert (repair.repaired, repair.uncertain) == (0, 0)


@pytest.mark.parametrize("run", [LONGEST_RUN_SAMPLES + 1, 4000])
def test_a_jump_that_stays_is_counted_and_left(run: int) -> None:
    """A run too long for a peak may be anything."""
    samples = np.full(100 + run, 30_000, "<i2")
    samples[100:] = -30_000
    out, repair = repaired(samples.tobytes(), [50, 150])
    assert out == samples.tobytes()
    assert (repair.repaired, repair.uncertain) == (0, 1)


def test_a_run_that_the_end_cuts_is_left() -> None:
    """Its other half never came."""
    samples = np.array([30_000] * 10 + [-30_000] * 10, "<i2")
    out, repair = repaired(samples.tobytes(), [12])
    assert out == samples.tobytes()
    assert (repair.repaired, repair.uncertain) == (0, 1)
