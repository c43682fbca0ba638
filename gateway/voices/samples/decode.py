"""Decodes an untrusted audio file into samples, with bounded memory and time.

The file's first bytes choose one of seven demuxers, and FFmpeg is held to it: it reads from memory
alone, opens nothing else, and stops at the first sample, packet, read or second too many.
"""

from __future__ import annotations

import ctypes
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

import gateway.audio.ffmpeg  # noqa: F401 (silences FFmpeg and its thread pools, once)
from gateway.audio.ffmpeg_switches import ffmpeg_function
from gateway.errors import InvalidRequest
from gateway.voices.samples.sniff import READABLE, demuxer_of, label_of, without_id3

Floats = NDArray[np.float32]

# Decoders that may run: what these formats carry in practice. Pictures and video have none.
CODECS = frozenset(
    {"aac", "alac", "flac", "mp3", "mp3float", "opus", "vorbis"}
    | {
        f"pcm_{form}"
        for form in ("alaw", "mulaw", "u8", "s16le", "s24le", "s32le", "f32le", "f64le")
    }
)
READABLE_RATES_HZ = (8000, 192_000)
MAX_CHANNELS = 8
# 30 s of the shortest Opus packets (2.5 ms) are 12,000; a hostile FLAC can hold one for 16 samples.
MAX_PACKETS = 50_000
MAX_DAMAGED_PACKETS = 8  # a cut-off end damages one or two
MAX_CPU_SECONDS = 10.0  # 30 s of any format take 0.03 to 0.12 s (measured 2026-11)
LONGEST_PCM_SECONDS = 1200.0  # 58 MB; one generation is far shorter
MAX_STREAMS = 8  # a phone's recording has up to six: sound, picture, metadata
# One table of FFmpeg's: 3 KB of MP4 that claim 80 million samples took 2.9 GB and 10 s without it
# (measured 2026-11). The largest that honest files need are FLAC's pictures, 16 MiB.
MAX_ALLOCATION_BYTES = 32 * 1024 * 1024
PROBE_BYTES = 256 * 1024
MAX_READS_OF_A_BYTE = 4  # an index at the end and a second look at the start make 2

_FULL_SCALE = {"u1": 128.0, "i2": 2.0**15, "i4": 2.0**31}


def _bound_allocations() -> bool:
    """Bound FFmpeg's single allocations, for the process; False where that cannot be had.

    The gateway's encoders and filters get 0.2 s at a time and ask for far less.
    """
    bound = ffmpeg_function("av_max_alloc")
    if bound is None:
        return False
    bound.argtypes, bound.restype = [ctypes.c_size_t], None
    bound(MAX_ALLOCATION_BYTES)
    return True


# Without the bound, the format whose tables cost more than the file is not offered.
_TABLES_BOUNDED = _bound_allocations()


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a file held.

    Attributes:
        samples: Mono, dtype float32, shape (samples,); 1.0 is full scale, and may be exceeded.
        sample_rate_hz: Their rate.
        cut: There was more than was asked for.
    """

    samples: Floats
    sample_rate_hz: int
    cut: bool


class _Source(io.BytesIO):
    """The file in memory; it ends FFmpeg's work when that reads or seeks without end."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left_bytes = MAX_READS_OF_A_BYTE * (len(data) + PROBE_BYTES)
        self._left_calls = 1000 + len(data) // 256

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes."""
        piece = super().read(size)
        self._spend(len(piece))
        return piece

    def seek(self, position: int, whence: int = 0, /) -> int:
        """Move, as FFmpeg does to find an index."""
        self._spend(0)
        return super().seek(position, whence)

    def _spend(self, count: int) -> None:
        self._left_bytes -= count
        self._left_calls -= 1
        if self._left_bytes < 0 or self._left_calls < 0:
            raise OSError("the file is read over and over")


def _open_nothing(*_: object) -> io.BytesIO:
    raise OSError("a reference names no other file")


def decode(data: bytes, *, max_seconds: float) -> Decoded:
    """The first `max_seconds` of the first sound in a file, mixed to mono.

    Damage that the decoder survives is passed over: a file with its end missing gives what came
    before.

    Args:
        data: A whole file in one of the readable formats.
        max_seconds: Where decoding stops.

    Raises:
        InvalidRequest: Another format, nothing that decodes, or bounds exceeded.
    """
    data = without_id3(data)
    demuxer = demuxer_of(data)
    if demuxer is None or (demuxer == "mov" and not _TABLES_BOUNDED):
        raise InvalidRequest(
            f"The reference audio is in none of the formats that can be read: {READABLE}."
        )
    try:
        # Closing the source frees the file now; PyAV's circles would keep it for the collector.
        with _Source(data) as source, _opened(source, demuxer) as container:
            return _decode(container, max_seconds)
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise InvalidRequest(
            f"The reference audio cannot be decoded: it began like {label_of(demuxer)}, "
            "but is damaged or not complete."
        ) from error


def decode_pcm(data: bytes) -> tuple[bytes, int]:
    """A whole file as s16le mono and its sample rate; blocks for its decoding.

    Raises:
        InvalidRequest: As `decode`.
    """
    found = decode(data, max_seconds=LONGEST_PCM_SECONDS)
    samples = np.clip(np.rint(found.samples * 32_767), -32_768, 32_767)
    return samples.astype("<i2").tobytes(), found.sample_rate_hz


def _opened(source: _Source, demuxer: str) -> InputContainer:
    return av.open(
        source,
        "r",
        format=demuxer,
        io_open=_open_nothing,
        metadata_errors="replace",  # titles in Latin-1 are no reason to refuse a voice
        options={
            "advanced_editlist": "0",  # edits multiply the index: a memory bomb of its own
            "codec_whitelist": ",".join(sorted(CODECS)),
            "format_whitelist": _names_of(demuxer),
            "protocol_whitelist": "none",
            "max_streams": str(MAX_STREAMS),
            "probesize": str(PROBE_BYTES),
        },
    )


def _names_of(demuxer: str) -> str:
    """All names of a demuxer: FFmpeg compares its whitelist with each of them."""
    return av.ContainerFormat(demuxer, "r").name


def _decode(container: InputContainer, max_seconds: float) -> Decoded:
    if not container.streams.audio:
        raise InvalidRequest("The reference file holds no sound.")
    stream = container.streams.audio[0]
    _check_stream(stream)
    parts: list[Floats] = []
    count = rate_hz = wanted = 0
    for frame in _frames(container, stream):
        if not parts:
            rate_hz = frame.sample_rate
            _check_form(rate_hz, frame.layout.nb_channels)
            wanted = round(max_seconds * rate_hz)
        elif frame.sample_rate != rate_hz:
            raise InvalidRequest("The reference audio changes its sample rate on the way.")
        parts.append(_mono(frame))
        count += frame.samples
        if count > wanted:
            break
    samples = np.concatenate(parts)[:wanted] if parts else np.zeros(0, np.float32)
    return Decoded(samples, rate_hz, cut=count > wanted)


def _check_stream(stream: AudioStream) -> None:
    codec = stream.codec_context
    if codec is None or codec.name not in CODECS:
        name = codec.name if codec is not None else "unknown"
        raise InvalidRequest(f"The reference's codec ({name}) cannot be read.")
    _check_form(codec.sample_rate, codec.layout.nb_channels)
    codec.thread_count = 1
    if codec.name == "flac":  # its frames carry checksums, which FFmpeg computes only when asked
        codec.options = {"err_detect": "crccheck+explode"}


def _check_form(rate_hz: int, channels: int) -> None:
    lowest, highest = READABLE_RATES_HZ
    if not lowest <= rate_hz <= highest:
        raise InvalidRequest(
            f"The reference audio has {rate_hz} samples a second; {lowest} to {highest} are read."
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise InvalidRequest(
            f"The reference audio has {channels} channels; 1 to {MAX_CHANNELS} are read."
        )


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[av.AudioFrame]:
    """Frames as they decode; what cannot be decoded is passed over, up to a bound."""
    damaged = 0
    give_up_at = time.thread_time() + MAX_CPU_SECONDS
    for number, packet in enumerate(container.demux(stream)):
        if number >= MAX_PACKETS or time.thread_time() > give_up_at:
            raise InvalidRequest("The reference audio takes too long to decode.")
        try:
            yield from packet.decode()
        except av.FFmpegError as error:
            damaged += 1
            if damaged > MAX_DAMAGED_PACKETS:
                raise InvalidRequest("The reference audio is damaged.") from error


def _mono(frame: av.AudioFrame) -> Floats:
    """The mean of a frame's channels, dtype float32, shape (samples,)."""
    raw = frame.to_ndarray()
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        raw = raw.reshape(-1, channels).T
    scale = _FULL_SCALE.get(raw.dtype.str[1:], 1.0)
    offset = 1.0 if raw.dtype == np.uint8 else 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # what that makes of them is refused below
        mixed = raw.mean(axis=0, dtype=np.float64) / scale - offset
        mono: Floats = mixed.astype(np.float32)
    if not np.isfinite(mono).all():
        raise InvalidRequest(
            "The reference audio holds samples that are not numbers (NaN or infinity)."
        )
    return mono
