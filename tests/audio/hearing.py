"""What a listener gets: decoding, aligning and measuring what an encoder sent."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import av
import numpy as np
from numpy.typing import NDArray

RATE_HZ = 24_000
BLOCK_SAMPLES = 480  # 20 ms: what an engine's smallest delivery is cut into
Samples = NDArray[np.float64]


class Stream(Protocol):
    """An encoder or a transcoder."""

    def feed(self, pcm: bytes, /) -> bytes:
        """Encode samples."""

    def finish(self) -> bytes:
        """Encode the rest."""


@dataclass(frozen=True)
class Heard:
    """Decoded audio: samples in [-1, 1], their rate, what the container says of its length."""

    samples: Samples
    rate_hz: int
    container_seconds: float | None

    @property
    def seconds(self) -> float:
        """Duration of the samples."""
        return self.samples.size / self.rate_hz


def hear(data: bytes, response_format: str) -> Heard:
    """Decode with FFmpeg; PCM, which nothing describes, is taken as it is."""
    if response_format == "pcm":
        return Heard(np.frombuffer(data, "<i2") / 32_768, RATE_HZ, None)
    container_format = {"opus": "ogg"}.get(response_format, response_format)
    with av.open(io.BytesIO(data), "r", format=container_format) as container:
        stream = container.streams.audio[0]
        ticks, base = stream.duration, stream.time_base
        seconds = float(ticks * base) if ticks and base else None
        resampler = av.AudioResampler(format="flt", layout="mono")
        parts = [
            piece.to_ndarray().reshape(-1)
            for frame in container.decode(stream)
            for piece in resampler.resample(frame)
        ]
        samples = np.concatenate(parts) if parts else np.zeros(0)
        return Heard(samples.astype(np.float64), stream.codec_context.sample_rate, seconds)


def speechlike(seconds: float, seed: int = 0) -> bytes:
    """A gliding voice of 24 harmonics with syllables and a little noise; s16 24 kHz mono."""
    count = round(seconds * RATE_HZ)
    time = np.arange(count) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(140 + 30 * np.sin(2 * np.pi * 0.7 * time)) / RATE_HZ
    voice = sum((np.sin(k * phase) / k for k in range(1, 25)), start=np.zeros(count))
    voice *= 0.55 + 0.45 * np.sin(2 * np.pi * 3 * time)
    voice += 0.02 * np.random.default_rng(seed).standard_normal(count)
    return as_pcm(voice / np.abs(voice).max() * 0.6)


def tone(hz: float, seconds: float) -> bytes:
    """A steady voice of 10 harmonics; s16 24 kHz mono."""
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    voice = sum((np.sin(2 * np.pi * k * hz * time) / k for k in range(1, 11)), start=0 * time)
    return as_pcm(voice * 0.3)


def as_pcm(samples: Samples) -> bytes:
    """Floats in [-1, 1] as s16le."""
    return np.rint(np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes()


def as_floats(pcm: bytes) -> Samples:
    """S16le as floats in [-1, 1]."""
    return np.frombuffer(pcm, "<i2") / 32_768


def lag_of(heard: Samples, original: Samples) -> int:
    """How many samples later `heard` has what `original` has, by cross-correlation."""
    size = 1 << (heard.size + original.size).bit_length()
    cross = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(original, size)), size)
    lag = int(np.argmax(cross))
    return lag if lag < size // 2 else lag - size


def correlation(heard: Samples, original: Samples) -> float:
    """Pearson's, after alignment, over all of the original that was heard."""
    lag = max(0, lag_of(heard, original))
    count = min(original.size, heard.size - lag)
    return float(np.corrcoef(original[:count], heard[lag : lag + count])[0, 1])


def pitch_hz(samples: Samples, rate_hz: int) -> float:
    """Fundamental of a steady voice: the first high peak of the autocorrelation in 60 to 400 Hz.

    The period is then measured over as many periods as 0.2 s hold, for resolution.
    """
    middle = samples[samples.size // 4 : samples.size * 3 // 4]
    size = 1 << (2 * middle.size).bit_length()
    own = np.fft.irfft(np.abs(np.fft.rfft(middle, size)) ** 2, size)
    own = own[: middle.size] / np.arange(middle.size, 0, -1)
    low, high = rate_hz // 400, rate_hz // 60
    first = low + int(np.flatnonzero(own[low:high] > 0.85 * own[low:high].max())[0])
    reach = rate_hz // 1000
    period = float(first + np.argmax(own[first : first + reach]))
    for multiple in range(2, int(0.2 * rate_hz / period) + 1):
        near = round(period * multiple) - 4
        period = (near + int(np.argmax(own[near : near + 9]))) / multiple
    return rate_hz / period


def blocks(pcm: bytes, samples: int = BLOCK_SAMPLES) -> Iterator[bytes]:
    """PCM in blocks, the last one shorter."""
    for start in range(0, len(pcm), samples * 2):
        yield pcm[start : start + samples * 2]


def encode(stream: Stream, pieces: Iterable[bytes]) -> bytes:
    """Everything that a stream sends for these pieces."""
    return b"".join([stream.feed(piece) for piece in pieces]) + stream.finish()


@dataclass(frozen=True)
class Delay:
    """How late a listener hears what was fed, in milliseconds of audio."""

    first_bytes_ms: float
    held_min_ms: float
    held_max_ms: float


def delay_of(make: Callable[[], Stream], response_format: str) -> Delay:
    """Feed 20 ms at a time; after each block of the second half, decode what was sent so far."""
    pcm = speechlike(1.0)
    original = as_floats(pcm)
    heard = hear(encode(make(), blocks(pcm)), response_format)
    lag_seconds = lag_at_rate(heard, original)
    stream, sent, first, held = make(), b"", None, []
    for number, block in enumerate(blocks(pcm), start=1):
        sent += stream.feed(block)
        fed_seconds = number * BLOCK_SAMPLES / RATE_HZ
        if sent and first is None:
            first = fed_seconds
        if fed_seconds > 0.5:
            held.append(fed_seconds - (hear(sent, response_format).seconds - lag_seconds))
    stream.finish()
    assert first is not None
    return Delay(first * 1000, min(held) * 1000, max(held) * 1000)


def lag_at_rate(heard: Heard, original: Samples) -> float:
    """Seconds that a codec puts before the audio."""
    if heard.rate_hz != RATE_HZ:
        at = np.arange(heard.rate_hz * original.size // RATE_HZ) * RATE_HZ / heard.rate_hz
        original = np.interp(at, np.arange(original.size), original)
    return lag_of(heard.samples, original) / heard.rate_hz


def without_ogg_serial(data: bytes) -> bytes:
    """Ogg pages with serial number and checksum blanked; other data as it is.

    Each Ogg stream has a random serial number, so that streams can be joined (RFC 3533).
    """
    blanked = bytearray(data)
    at = 0
    while data[at : at + 4] == b"OggS":
        blanked[at + 14 : at + 18] = blanked[at + 22 : at + 26] = bytes(4)
        segments = data[at + 26]
        at += 27 + segments + sum(data[at + 27 : at + 27 + segments])
    return bytes(blanked)
