"""Samples in bytes: alignment and durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audio.pcm import (
    Aligner,
    samples_in,
    seconds_of,
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


def test_durations_and_samples_agree() -> None:
    """0.3 s are 7,200 samples at 24 kHz; half a sample counts as none."""
    assert samples_in(0.3) == 7200
    assert seconds_of(14_400) == pytest.approx(0.3)
    assert seconds_of(14_401) == pytest.approx(0.3)
