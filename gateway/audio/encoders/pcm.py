"""PCM: the samples as they are, s16le mono without a header."""

from __future__ import annotations

from gateway.audio.encoders.base import Encoder


class PcmEncoder(Encoder):
    """Passes samples on."""

    content_type = "audio/pcm"
    cheap = True

    def feed(self, pcm: bytes) -> bytes:
        """The samples."""
        return pcm

    def finish(self) -> bytes:
        """Nothing is left."""
        return b""
