"""A client's voice sample, measured and bounded, as the one WAV form that the engine gets.

The engine checks next to nothing (docs/contract.md section 4: foreign base64 characters vanish,
empty audio passes, an address is fetched), so nothing reaches it that was not decoded here first.
Everything here is plain CPU work without shared state, for a worker thread.
"""

from __future__ import annotations

import binascii
import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.audio.encoders.wav import wav_file
from gateway.audio.pcm import (
    ENGINE_SAMPLE_RATE_HZ,
    FULL_SCALE,
    SILENCE_DBFS,
    as_samples,
    samples_in,
    seconds_of,
)
from gateway.audio.resample import Resampler
from gateway.errors import InvalidRequest, RequestTooLarge
from gateway.voices.samples.decode import Decoded, decode

# A line break every 24 characters makes 1.44 characters a byte; mail wraps at 76: 1.37.
MAX_CHARACTERS_PER_BYTE = 1.5
MAX_PREFIX_CHARACTERS = 256  # of a data URL; browsers write "data:audio/webm;codecs=opus;base64,"
CODEC_PADDING_SECONDS = 0.1  # MP3 and AAC files run over what went in by up to 0.07 s

BLOCK_SECONDS = 0.02
# Below it a block counts as silent: a quiet room through a phone reads -55 to -70 dBFS.
SILENT_DBFS = -50.0
# Peaks outside are brought to TARGET_PEAK_DBFS; inside, the level is the speaker's own.
QUIET_PEAK_DBFS = -20.0
TARGET_PEAK_DBFS = -3.0

_SCHEME = re.compile(r"\s*([a-z][a-z0-9+.-]{0,15}):", re.IGNORECASE)
_DATA_URL = re.compile(
    r"\s*data:(?:(?:audio|video)/[\w.+-]+|application/(?:ogg|octet-stream))?(?:;[\w.+=\"-]+)*;base64,",
    re.IGNORECASE | re.ASCII,
)
_WHITESPACE = b" \t\r\n"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True, slots=True)
class ReferenceLimits:
    """What a reference may be.

    Attributes:
        max_bytes: Of the file as uploaded, after base64.
        min_seconds, max_seconds: Of the decoded audio. A second costs the engine 25 tokens
            (docs/contract.md section 4), and above 30 s a clone gains nothing.
        min_sound_seconds: Time above silence that it must hold.
        spare_seconds: What may come on top of `max_seconds`, for a caller that trims silence.
    """

    max_bytes: int = 20 * 1024 * 1024
    min_seconds: float = 1.0
    max_seconds: float = 30.0
    min_sound_seconds: float = 0.5
    spare_seconds: float = 0.0


DEFAULT_LIMITS = ReferenceLimits()


@dataclass(frozen=True, slots=True)
class PreparedReference:
    """A voice sample that the engine can take.

    Attributes:
        wav: A complete file, 24 kHz mono s16, exact sizes.
        seconds: Its duration.
    """

    wav: bytes = field(repr=False)
    seconds: float


def decode_base64(text: str, *, limit_bytes: int, param: str) -> bytes:
    """The bytes of a base64 field: plain or a data URL, standard or URL-safe alphabet.

    White space between characters is passed over, every other foreign character is an error.

    Args:
        text: As the client sent it; its size is judged before any of it is copied.
        limit_bytes: Most bytes that may come out.
        param: The request field, for errors.

    Raises:
        InvalidRequest: An address instead of data, a wrong alphabet or padding, nothing at all.
        RequestTooLarge: It would come out larger than the limit.
    """
    if len(text) > limit_bytes * MAX_CHARACTERS_PER_BYTE + MAX_PREFIX_CHARACTERS:
        raise _too_large(limit_bytes, param)
    try:
        digits = text[_prefix_length(text, param) :].encode("ascii").translate(None, _WHITESPACE)
        if len(digits) // 4 * 3 - digits[-2:].count(b"=") > limit_bytes:
            raise _too_large(limit_bytes, param)
        data = binascii.a2b_base64(digits.translate(_URL_SAFE), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise InvalidRequest(
            f"{param} is not valid base64: letters, digits, '+', '/' and correct '=' padding.",
            param=param,
        ) from error
    if not data:
        raise InvalidRequest(f"{param} is empty.", param=param)
    return data


def prepare_reference(
    data: bytes, *, param: str, limits: ReferenceLimits = DEFAULT_LIMITS
) -> PreparedReference:
    """Decode, measure, and bring to the engine's form; blocks for up to a second of CPU time.

    Args:
        data: A whole file: WAV, FLAC, MP3, OGG (Vorbis, Opus), M4A or AAC, WebM (Opus).
        param: The request field, for errors.
        limits: Sizes and durations.

    Raises:
        InvalidRequest: Not such a file, too short, too long, silent, or not numbers.
        RequestTooLarge: The file is over the limit.
    """
    if len(data) > limits.max_bytes:
        raise _too_large(limits.max_bytes, param)
    try:
        return _prepared(data, limits)
    except InvalidRequest as error:
        error.param = param
        raise


def _prepared(data: bytes, limits: ReferenceLimits) -> PreparedReference:
    longest_seconds = limits.max_seconds + limits.spare_seconds
    decoded = decode(data, max_seconds=longest_seconds + CODEC_PADDING_SECONDS)
    _check_length(decoded, limits)
    peak = float(np.abs(decoded.samples).max())
    gain = _gain_of(peak)
    pcm = at_engine_rate(decoded, gain)[: samples_in(longest_seconds) * 2]
    sound_seconds = _sound_seconds(as_samples(pcm), gain)
    if sound_seconds < limits.min_sound_seconds:
        raise InvalidRequest(
            f"The reference audio is silent: it holds {sound_seconds:.2f} s of sound, at least "
            f"{limits.min_sound_seconds:g} s are needed (peak {_dbfs(peak):.0f} dBFS)."
        )
    return PreparedReference(wav_file(pcm), seconds_of(len(pcm)))


def _prefix_length(text: str, param: str) -> int:
    """Characters of a data URL before its data; 0 where there is no such prefix."""
    head = text[:MAX_PREFIX_CHARACTERS]
    scheme = _SCHEME.match(head)
    if scheme is None:
        return 0
    prefix = _DATA_URL.match(head)
    if prefix is None:
        name = scheme[1].lower()
        why = "that data URL is not base64 audio" if name == "data" else f"{name}: is never fetched"
        raise InvalidRequest(
            f"{param} must be base64 or a URL that begins with data:audio/...;base64, ({why}).",
            param=param,
        )
    return prefix.end()


def _too_large(limit_bytes: int, param: str) -> RequestTooLarge:
    return RequestTooLarge(
        f"{param} holds more than {limit_bytes / 2**20:g} MiB, the most a reference may have.",
        param=param,
    )


def _check_length(decoded: Decoded, limits: ReferenceLimits) -> None:
    seconds = decoded.samples.size / decoded.sample_rate_hz if decoded.sample_rate_hz else 0.0
    if decoded.cut:
        raise InvalidRequest(
            f"The reference audio is longer than {limits.max_seconds:g} s: decoding stopped at "
            f"{seconds:.1f} s. Cut it to a part that is spoken clearly."
        )
    if seconds < limits.min_seconds:
        raise InvalidRequest(
            f"The reference audio is {seconds:.2f} s long; at least {limits.min_seconds:g} s "
            "are needed."
        )


def _gain_of(peak: float) -> float:
    """The factor that brings an absurd level to TARGET_PEAK_DBFS; 1 for any other, and silence."""
    level = _dbfs(peak)
    if SILENT_DBFS <= level < QUIET_PEAK_DBFS or level > 0:
        return float(10 ** (TARGET_PEAK_DBFS / 20) / peak)
    return 1.0


def at_engine_rate(decoded: Decoded, gain: float = 1.0) -> bytes:
    """PCM of the engine's form, s16 mono 24 kHz."""
    pcm = pcm_of(decoded.samples * np.float32(gain * FULL_SCALE))
    if decoded.sample_rate_hz == ENGINE_SAMPLE_RATE_HZ:
        return pcm
    resampler = Resampler(ENGINE_SAMPLE_RATE_HZ, decoded.sample_rate_hz)
    return resampler.feed(pcm) + resampler.finish()


def _sound_seconds(samples: NDArray[np.int16], gain: float) -> float:
    """Time in blocks above silence, judged as recorded: noise that a gain lifted is not sound.

    A constant offset is no sound either: each block is measured around its own mean. A gain
    below 1 comes from float files whose scale means nothing; those are judged as scaled.
    """
    floor = FULL_SCALE * 10 ** (SILENT_DBFS / 20) * max(gain, 1.0)
    return int(np.count_nonzero(block_levels(samples) > floor)) * BLOCK_SECONDS


def block_levels(samples: NDArray[Any]) -> NDArray[np.float64]:
    """RMS around the mean of each block of 20 ms; a rest at the end is left out."""
    block = samples_in(BLOCK_SECONDS)
    blocks = samples[: samples.size // block * block].reshape(-1, block)
    return np.asarray(blocks.std(axis=1), np.float64)


def pcm_of(samples: NDArray[Any]) -> bytes:
    """Samples at the scale of 16 bits as s16le; what is above full scale is clipped."""
    pcm: bytes = np.rint(samples).clip(-FULL_SCALE, FULL_SCALE - 1).astype("<i2").tobytes()
    return pcm


def _dbfs(magnitude: float) -> float:
    return 20 * math.log10(magnitude) if magnitude > 0 else SILENCE_DBFS
