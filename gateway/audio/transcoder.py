"""The engine's PCM in, a client's response format out: tempo, then sample rate, then encoder.

Pure and synchronous; one thread at a time may use a transcoder, and not always the same one.
"""

from __future__ import annotations

from typing import Protocol

import av

from gateway.audio.encoders import ENCODERS
from gateway.audio.encoders.base import BitRates, Encoder, legal_rate_hz
from gateway.audio.pcm import BYTES_PER_SAMPLE, ENGINE_SAMPLE_RATE_HZ, SAMPLE_RATES_HZ
from gateway.audio.resample import Resampler
from gateway.audio.tempo import Tempo, tempo_filters
from gateway.errors import EncodingError

__all__ = ["BitRates", "Transcoder"]


class Stage(Protocol):
    """One step on the way: whole samples in, samples or encoded bytes out."""

    def feed(self, pcm: bytes) -> bytes:
        """What is ready after these samples (at least one)."""

    def finish(self) -> bytes:
        """The rest."""


FOREIGN_ERRORS = (av.FFmpegError, OSError, RuntimeError, ValueError)  # of PyAV and lameenc


class Transcoder:
    """Turns one answer's PCM into its response format.

    Codecs are opened by the first `feed` or `finish`, so that the thread that encodes pays for
    it and not the event loop.

    Args:
        response_format: One of ENCODERS.
        speed: Tempo factor in SPEED_RANGE.
        sample_rate_hz: One of SAMPLE_RATES_HZ; Opus carries the next rate that it knows.
        buffered: Nothing is sent before the end: exact sizes (WAV, FLAC).
        bit_rates: Of the lossy formats.

    Attributes:
        content_type: Of the encoded bytes.
        sample_rate_hz: The rate that is encoded.
        needs_thread: The work is worth a thread's while.

    Raises:
        ValueError: No such format, speed or rate; surfaces refuse those before.
    """

    def __init__(
        self,
        response_format: str,
        *,
        speed: float = 1.0,
        sample_rate_hz: int = ENGINE_SAMPLE_RATE_HZ,
        buffered: bool = False,
        bit_rates: BitRates | None = None,
    ) -> None:
        if response_format not in ENCODERS:
            raise ValueError(f"no such response format: {response_format}")
        if sample_rate_hz not in SAMPLE_RATES_HZ:
            raise ValueError(f"no such sample rate: {sample_rate_hz}")
        encoder = ENCODERS[response_format]
        self.content_type = encoder.content_type
        self.sample_rate_hz = legal_rate_hz(sample_rate_hz, encoder.codec_rates_hz)
        changes_tempo = speed != 1 and bool(tempo_filters(speed))
        changes_rate = self.sample_rate_hz != ENGINE_SAMPLE_RATE_HZ
        self.needs_thread = changes_tempo or changes_rate or not encoder.cheap
        self._encoder = encoder
        self._speed = speed if changes_tempo else None
        self._buffered = buffered
        self._bit_rates = bit_rates or BitRates()
        self._filters: list[Stage] = []
        self._opened: Encoder | None = None
        self._closed = False
        self._output_samples = 0

    @property
    def output_seconds(self) -> float:
        """Audio that reached the encoder."""
        return self._output_samples / self.sample_rate_hz

    def feed(self, pcm: bytes) -> bytes:
        """Encode more audio.

        Args:
            pcm: s16le mono 24 kHz, whole samples, any number of them.

        Returns:
            Encoded bytes that may leave, often none.

        Raises:
            EncodingError: A codec or filter failed, or the transcoder is closed.
        """
        try:
            return self._through(pcm, self._opened or self._open(), self._filters)
        except FOREIGN_ERRORS as error:
            raise EncodingError("The audio could not be encoded.") from error

    def finish(self) -> bytes:
        """The rest of the encoded stream.

        Raises:
            EncodingError: A codec or filter failed, or the transcoder is closed.
        """
        try:
            encoder = self._opened or self._open()
            data = b""
            for index, stage in enumerate(self._filters):
                data += self._through(stage.finish(), encoder, self._filters[index + 1 :])
            return data + encoder.finish()
        except FOREIGN_ERRORS as error:
            raise EncodingError("The audio could not be encoded.") from error

    def close(self) -> None:
        """Free the codecs; idempotent, and safe after an error."""
        self._closed = True
        encoder, self._opened = self._opened, None
        self._filters = []
        if encoder is not None:
            encoder.close()

    def _through(self, pcm: bytes, encoder: Encoder, filters: list[Stage]) -> bytes:
        """Send samples through these filters and encode what comes out."""
        for stage in filters:
            if pcm:
                pcm = stage.feed(pcm)
        if not pcm:
            return b""
        self._output_samples += len(pcm) // BYTES_PER_SAMPLE
        return encoder.feed(pcm)

    def _open(self) -> Encoder:
        """Open all stages; returns the encoder."""
        if self._closed:
            raise EncodingError("The encoder is closed.")
        filters: list[Stage] = []
        if self._speed is not None:
            filters.append(Tempo(self._speed))
        if self.sample_rate_hz != ENGINE_SAMPLE_RATE_HZ:
            filters.append(Resampler(self.sample_rate_hz))
        self._opened = self._encoder(self.sample_rate_hz, self._bit_rates, buffered=self._buffered)
        self._filters = filters
        return self._opened
