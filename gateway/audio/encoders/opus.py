"""Opus in Ogg: libopus in its low-delay mode, a page every 20 ms.

Ogg's default pages hold 1.8 s, which a listener would wait for. A listener always decodes to
48 kHz whatever rate was encoded (RFC 7845); the header tells the encoded rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gateway.audio.encoders.muxed import MuxedEncoder

BITS_PER_SECOND = (6000, 256_000)  # RFC 6716 section 2.1.1; FFmpeg refuses more a channel


class OpusEncoder(MuxedEncoder):
    """Encodes to Ogg/Opus; 22,050 Hz is carried at 24 kHz and 44,100 Hz at 48 kHz."""

    content_type = "audio/ogg"
    codec_rates_hz = (8000, 12_000, 16_000, 24_000, 48_000)  # RFC 6716 section 2
    container_format = "ogg"
    container_options: ClassVar[Mapping[str, str]] = {"page_duration": "20000"}  # microseconds
    codec = "libopus"
    codec_options: ClassVar[Mapping[str, str]] = {"application": "lowdelay"}

    def bits_per_second(self) -> int:
        """The wanted rate, inside the codec's range."""
        return min(max(self.bit_rates.opus_kbps * 1000, BITS_PER_SECOND[0]), BITS_PER_SECOND[1])
