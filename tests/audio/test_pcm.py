"""Samples in bytes: alignment, durations, levels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audio.pcm import (
    SILENCE_DBFS,
    Aligner,
    level_dbfs,
    peak_dbfs,
    samples_in,
    seconds_of,
    silence,
)


@given(st.lists(st.binary(max_size=9)))
def test_an_aligner_returns_whole_samples_and_loses_nothing(chunks: list[bytes]) -> None:
    """However the bytes were cut, each piece is whole samples and together they are the bytes."""
    aligner = Aligner()
    pieces = [aligner.feed(chunk) for chunk in chunks]
    fed = b"".join(chunks)
    assert all(len(piece) % 2 == 0 for piece in pieces)
    assert b"".join(pieces) == fed[: len(fed) // 2 * 2]
    whole = 0
    for index, piece in enumerate(pieces):  # and none is held back
        whole += len(piece)
        assert whole == len(b"".join(chunks[: index + 1])) // 2 * 2


def test_durations_and_silence_agree() -> None:
    """0.3 s of silence is 7,200 zero samples at 24 kHz."""
    assert silence(0.3) == bytes(14_400)
    assert samples_in(0.3) == 7200
    assert seconds_of(14_400) == pytest.approx(0.3)
    assert seconds_of(14_401) == pytest.approx(0.3)
    assert seconds_of(len(silence(0.5, 8000)), 8000) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("samples", "peak", "level"),
    [
        ([], SILENCE_DBFS, SILENCE_DBFS),
        ([0, 0], SILENCE_DBFS, SILENCE_DBFS),
        ([-32_768] * 4, 0.0, 0.0),
        ([16_384, -16_384], -6.02, -6.02),
        ([16_384, 0, 0, 0], -6.02, -12.04),
    ],
)
def test_levels_are_decibels_of_full_scale(samples: list[int], peak: float, level: float) -> None:
    """Full scale is 0 dBFS, half of it -6; silence has a floor and not minus infinity."""
    pcm = np.array(samples, "<i2").tobytes()
    assert peak_dbfs(pcm) == pytest.approx(peak, abs=0.01)
    assert level_dbfs(pcm) == pytest.approx(level, abs=0.01)
