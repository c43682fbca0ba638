"""AAC-LC in ADTS: FFmpeg's encoder with its fast coder, 1,024 samples a frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gateway.audio.encoders.muxed import MuxedEncoder

FRAME_SAMPLES = 1024
MAX_FRAME_BITS = 6144  # ISO 14496-3: a channel's bit reservoir
MIN_BITS_PER_SECOND = 8000


class AacEncoder(MuxedEncoder):
    """Encodes to ADTS frames (43 ms at 24 kHz)."""

    content_type = "audio/aac"
    container_format = "adts"
    codec = "aac"
    codec_options: ClassVar[Mapping[str, str]] = {"aac_coder": "fast"}

    def bits_per_second(self) -> int:
        """The wanted rate, at most what a frame can hold at this sample rate."""
        most = MAX_FRAME_BITS * self.sample_rate_hz // FRAME_SAMPLES
        return min(max(self.bit_rates.aac_kbps * 1000, MIN_BITS_PER_SECOND), most)
