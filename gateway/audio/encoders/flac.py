"""FLAC: lossless, 480 samples a frame so that a stream holds back at most 20 ms.

A stream's header cannot know its length; a buffered file's says samples and checksum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gateway.audio.encoders.muxed import MuxedEncoder


class FlacEncoder(MuxedEncoder):
    """Encodes to FLAC with 16 bits a sample."""

    content_type = "audio/flac"
    container_format = "flac"
    container_options: ClassVar[Mapping[str, str]] = {
        "metadata_header_padding": "0"  # else 8 KB of zeros go out before the audio
    }
    codec = "flac"
    codec_options: ClassVar[Mapping[str, str]] = {"frame_size": "480"}
    header_needs_length = True
