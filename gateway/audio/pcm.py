"""Raw audio as it travels through the gateway: 16-bit little-endian mono samples in bytes.

Chunks may be cut anywhere on their way; an `Aligner` gives whole samples back.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

ENGINE_SAMPLE_RATE_HZ = 24_000  # docs/contract.md section 2: s16le mono 24 kHz
SampleRate = Literal[8000, 16_000, 22_050, 24_000, 44_100, 48_000]  # that clients may ask for
SAMPLE_RATES_HZ: tuple[int, ...] = get_args(SampleRate)
BYTES_PER_SAMPLE = 2
ENGINE_BYTES_PER_SECOND = ENGINE_SAMPLE_RATE_HZ * BYTES_PER_SAMPLE
FULL_SCALE = 32_768
SILENCE_DBFS = -120.0  # what a level of nothing but zeros reads as; s16 itself ends near -96


class Aligner:
    """Turns chunks of any size into whole samples; an odd byte waits for its other half."""

    def __init__(self) -> None:
        self._odd = b""

    @property
    def waiting(self) -> bool:
        """Whether half a sample waits for its other half."""
        return bool(self._odd)

    def feed(self, chunk: bytes) -> bytes:
        """Whole samples out of everything fed so far and not yet returned."""
        if self._odd:
            chunk = self._odd + chunk
            self._odd = b""
        if len(chunk) % BYTES_PER_SAMPLE == 0:
            return chunk
        self._odd = chunk[-1:]
        return chunk[:-1]


def as_samples(pcm: bytes | memoryview) -> NDArray[np.int16]:
    """A read-only view of whole samples, dtype int16, shape (samples,)."""
    return np.frombuffer(pcm, dtype="<i2")


def seconds_of(pcm_bytes: int) -> float:
    """Duration of that many bytes; half a sample counts as none."""
    return pcm_bytes // BYTES_PER_SAMPLE / ENGINE_SAMPLE_RATE_HZ


def samples_in(seconds: float, sample_rate_hz: int = ENGINE_SAMPLE_RATE_HZ) -> int:
    """Whole samples nearest to a duration."""
    return round(seconds * sample_rate_hz)


def silence(seconds: float) -> bytes:
    """Digital silence of that duration."""
    return bytes(samples_in(seconds) * BYTES_PER_SAMPLE)
