"""How travisvn's routes frame a stream's PCM: behind a WAV header without an end, or as events."""

from __future__ import annotations

import json
import struct

from gateway.api.error_bodies import travisvn_error
from gateway.api.openai import EventFraming
from gateway.audio.encoders.wav import header
from gateway.audio.pcm import BYTES_PER_SAMPLE, ENGINE_SAMPLE_RATE_HZ
from gateway.errors import GatewayError
from gateway.speech.encoded_stream import EncodedStream

# travisvn's own header of a stream: players take the largest signed size for "until the end".
STREAM_RIFF_BYTES = 0x7FFFFFFF - 36


def stream_header() -> bytes:
    """The 44 bytes before a stream's samples."""
    unknown = header(ENGINE_SAMPLE_RATE_HZ, None)
    return unknown[:4] + struct.pack("<I", STREAM_RIFF_BYTES) + unknown[8:]


class WavStream:
    """PCM behind one header."""

    content_type = "audio/wav"

    def __init__(self) -> None:
        self._header = stream_header()

    def chunk(self, data: bytes) -> bytes:
        """The samples, the header before the first."""
        front, self._header = self._header, b""
        return front + data

    def end(self, answer: EncodedStream) -> bytes:
        """Nothing, or a header that no sample has followed."""
        del answer
        return self._header

    def failure(self, error: GatewayError) -> bytes:
        """Nothing: the connection breaks off."""
        del error
        return b""


class PcmEvents(EventFraming):
    """Server-sent events: what the PCM is, then the PCM, then its usage."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        info = {
            "type": "speech.audio.info",
            "sample_rate": ENGINE_SAMPLE_RATE_HZ,
            "channels": 1,
            "bits_per_sample": 8 * BYTES_PER_SAMPLE,
        }
        self._info = f"data: {json.dumps(info)}\n\n".encode()

    def chunk(self, data: bytes) -> bytes:
        """A `speech.audio.delta` event, `speech.audio.info` before the first."""
        front, self._info = self._info, b""
        return front + super().chunk(data)

    def end(self, answer: EncodedStream) -> bytes:
        """`speech.audio.done`."""
        return self._info + super().end(answer)

    def failure(self, error: GatewayError) -> bytes:
        """An `error` event; the connection is aborted behind it."""
        return b"data: " + json.dumps({"type": "error", **travisvn_error(error)}).encode() + b"\n\n"
