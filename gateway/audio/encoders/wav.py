"""WAV, mono s16: a 44-byte header, then the samples.

A stream's length is not known when its header leaves, so both sizes say 0xFFFFFFFF, which is what
OpenAI sends and players read as "until the end"; a buffered file has exact sizes.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from gateway.audio.encoders.base import BitRates, Encoder
from gateway.audio.pcm import BYTES_PER_SAMPLE, ENGINE_SAMPLE_RATE_HZ

HEADER_BYTES = 44
UNKNOWN_SIZE = 0xFFFFFFFF
RIFF_OVERHEAD_BYTES = HEADER_BYTES - 8  # the RIFF size counts what follows its own field
PCM_FORMAT_TAG = 1
CHANNELS = 1


@lru_cache(maxsize=32)  # nearly every stream has the same
def header(sample_rate_hz: int, data_bytes: int | None) -> bytes:
    """The first 44 bytes of a file.

    Args:
        sample_rate_hz: Of the samples.
        data_bytes: Of all samples together; None while streaming.
    """
    known = data_bytes is not None and data_bytes + RIFF_OVERHEAD_BYTES < UNKNOWN_SIZE
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        (data_bytes or 0) + RIFF_OVERHEAD_BYTES if known else UNKNOWN_SIZE,
        b"WAVE",
        b"fmt ",
        16,
        PCM_FORMAT_TAG,
        CHANNELS,
        sample_rate_hz,
        sample_rate_hz * CHANNELS * BYTES_PER_SAMPLE,
        CHANNELS * BYTES_PER_SAMPLE,
        BYTES_PER_SAMPLE * 8,
        b"data",
        (data_bytes or 0) if known else UNKNOWN_SIZE,
    )


def wav_file(pcm: bytes, sample_rate_hz: int = ENGINE_SAMPLE_RATE_HZ) -> bytes:
    """A complete file around whole samples."""
    return header(sample_rate_hz, len(pcm)) + pcm


class WavEncoder(Encoder):
    """Puts the header before the first samples, or before all of them when buffered."""

    content_type = "audio/wav"
    cheap = True

    def __init__(self, sample_rate_hz: int, bit_rates: BitRates, *, buffered: bool) -> None:
        super().__init__(sample_rate_hz, bit_rates, buffered=buffered)
        self._collected = bytearray()
        self._header = b"" if buffered else header(sample_rate_hz, None)

    def feed(self, pcm: bytes) -> bytes:
        """The samples, the header before the first; nothing yet when buffered."""
        if self.buffered:
            self._collected += pcm
            return b""
        front, self._header = self._header, b""
        return front + pcm if front else pcm

    def finish(self) -> bytes:
        """The whole file when buffered; a header that no sample has followed otherwise."""
        if self.buffered:
            return wav_file(bytes(self._collected), self.sample_rate_hz)
        return self._header
