"""What every encoder is: whole samples in, bytes of the response format out, as soon as may be.

An encoder serves one answer and is used by one thread at a time, not always the same one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class BitRates:
    """Bit rates of the lossy formats, in kbit/s; each encoder keeps to what its format allows.

    The defaults leave a coding error 38 (MP3), 24 (Opus) and 24 dB (AAC) under 24 kHz mono speech
    (measured 2026-11 on a synthetic voice). For Opus, RFC 6716 section 2.1.1 gives 28 to 40 for
    full-band speech; Ogg's pages of 20 ms cost about 12 kbit/s on top.

    Attributes:
        mp3_kbps: Constant bit rate.
        opus_kbps: Average; Opus varies around it.
        aac_kbps: Average.
    """

    mp3_kbps: int = 96
    opus_kbps: int = 48
    aac_kbps: int = 64


class Encoder(ABC):
    """One response format.

    Args:
        sample_rate_hz: Rate of the PCM that will be fed.
        bit_rates: Of the lossy formats.
        buffered: Nothing is sent before the end, so sizes and lengths shall be exact: an encoder
            that needs the end for that returns all of its bytes from `finish`.

    Attributes:
        content_type: Of the encoded bytes.
        codec_rates_hz: The rates that the format can carry, ascending; empty means any.
        cheap: Less work than handing it to a thread.
    """

    content_type: ClassVar[str]
    codec_rates_hz: ClassVar[tuple[int, ...]] = ()
    cheap: ClassVar[bool] = False

    def __init__(self, sample_rate_hz: int, bit_rates: BitRates, *, buffered: bool) -> None:
        self.sample_rate_hz = sample_rate_hz
        self.bit_rates = bit_rates
        self.buffered = buffered

    @abstractmethod
    def feed(self, pcm: bytes) -> bytes:
        """Encode whole samples (s16le mono, at least one); returns what may leave."""

    @abstractmethod
    def finish(self) -> bytes:
        """The rest of the stream; nothing may be fed afterwards."""

    def close(self) -> None:  # noqa: B027 (most have nothing to do)
        """Let go of what would outlive the last reference; idempotent, at any time."""


def legal_rate_hz(wanted_hz: int, rates_hz: Sequence[int]) -> int:
    """The lowest of the format's rates that loses nothing of `wanted_hz`.

    Args:
        wanted_hz: What the client asked for.
        rates_hz: Ascending; empty means any.
    """
    if not rates_hz:
        return wanted_hz
    return next((rate for rate in rates_hz if rate >= wanted_hz), rates_hz[-1])
