"""The response formats: one row each, one file each, all of one shape.

A new format is a class like its neighbours, its name and its row here.
"""

from __future__ import annotations

from typing import Literal

from gateway.audio.encoders.aac import AacEncoder
from gateway.audio.encoders.base import BitRates, Encoder
from gateway.audio.encoders.flac import FlacEncoder
from gateway.audio.encoders.mp3 import Mp3Encoder
from gateway.audio.encoders.opus import OpusEncoder
from gateway.audio.encoders.pcm import PcmEncoder
from gateway.audio.encoders.wav import WavEncoder

ResponseFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
ENCODERS: dict[str, type[Encoder]] = {
    "mp3": Mp3Encoder,
    "opus": OpusEncoder,
    "aac": AacEncoder,
    "flac": FlacEncoder,
    "wav": WavEncoder,
    "pcm": PcmEncoder,
}

RESPONSE_FORMATS = tuple(ENCODERS)

__all__ = ["ENCODERS", "RESPONSE_FORMATS", "BitRates", "Encoder", "ResponseFormat"]
