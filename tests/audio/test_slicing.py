"""However the upstream's bytes are cut, the client gets the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audio.encoders import RESPONSE_FORMATS
from gateway.audio.transcoder import Transcoder
from tests.audio.hearing import encode, speechlike, without_ogg_serial

PCM = speechlike(0.4)
VARIANTS = (
    (1.0, 24_000, False),
    (1.3, 24_000, False),
    (0.4, 44_100, False),
    (4.0, 24_000, False),
    (1.0, 8000, True),
)


def make(response_format: str, variant: tuple[float, int, bool]) -> Transcoder:
    """A transcoder of one variant."""
    speed, sample_rate_hz, buffered = variant
    return Transcoder(
        response_format, speed=speed, sample_rate_hz=sample_rate_hz, buffered=buffered
    )


@cache
def whole(response_format: str, variant: tuple[float, int, bool]) -> bytes:
    """What one single feed gives."""
    return without_ogg_serial(encode(make(response_format, variant), [PCM]))


def cut(sizes: list[int]) -> Iterator[bytes]:
    """PCM in pieces of so many samples, over and over."""
    start = 0
    for size in cycle(sizes):
        if start >= len(PCM):
            return
        yield PCM[start : start + 2 * size]
        start += 2 * size


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("response_format", RESPONSE_FORMATS)
@given(sizes=st.lists(st.integers(0, 2500), min_size=1, max_size=6).filter(lambda s: sum(s) > 25))
@settings(max_examples=12, deadline=None)
def test_any_slicing_of_the_audio_gives_the_same_bytes(
    response_format: str, variant: tuple[float, int, bool], sizes: list[int]
) -> None:
    """Empty pieces included, at any speed and sample rate."""
    data = encode(make(response_format, variant), cut(sizes))
    assert without_ogg_serial(data) == whole(response_format, variant)
