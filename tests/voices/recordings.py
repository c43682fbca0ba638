"""Recordings as clients upload them, good and hostile, made here byte by byte."""

from __future__ import annotations

import functools
import io
import struct
from typing import cast

import av
import numpy as np
import soundfile
from av.audio.stream import AudioStream
from numpy.typing import NDArray

Samples = NDArray[np.float64]

TONE_HZ = 440.0


def tone(seconds: float, rate_hz: int, level: float = 0.3) -> Samples:
    """A sine of TONE_HZ; shape (samples,)."""
    return level * np.sin(2 * np.pi * TONE_HZ * np.arange(round(seconds * rate_hz)) / rate_hz)


def by_soundfile(samples: Samples, rate_hz: int, form: str, subtype: str) -> bytes:
    """A file of libsndfile's; samples of shape (samples,) or (samples, channels)."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=form, subtype=subtype)
    return file.getvalue()


def by_ffmpeg(
    samples: Samples,
    rate_hz: int,
    container_format: str,
    codec: str,
    *,
    channels: int = 1,
    codec_options: dict[str, str] | None = None,
) -> bytes:
    """A file of FFmpeg's; mono samples, repeated on every channel."""
    file = io.BytesIO()
    layout = {1: "mono", 2: "stereo"}[channels]
    pcm = np.repeat(np.rint(samples * 32_767).astype("<i2"), channels)
    with av.open(file, "w", format=container_format) as container:
        stream = cast(
            "AudioStream",
            container.add_stream(codec, rate=rate_hz, layout=layout, options=codec_options or {}),
        )
        for start in range(0, pcm.size, rate_hz * channels):  # a second at a time
            piece = pcm[start : start + rate_hz * channels].reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout=layout)
            frame.sample_rate = rate_hz
            frame.pts = start // channels
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def wav(samples: Samples, rate_hz: int = 24_000, subtype: str = "PCM_16") -> bytes:
    """A WAV file."""
    return by_soundfile(samples, rate_hz, "WAV", subtype)


def wav_of_floats(samples: NDArray[np.float32], rate_hz: int = 24_000) -> bytes:
    """A float WAV with any samples at all, NaN too."""
    body = samples.astype("<f4").tobytes()
    form = struct.pack("<HHIIHH", 3, 1, rate_hz, rate_hz * 4, 4, 32)
    chunks = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


@functools.cache
def good_files(seconds: float = 2.0) -> dict[str, bytes]:
    """Every kind of file that must be read, by a name for it."""
    files = {}
    for rate_hz in (8000, 16_000, 44_100, 48_000):
        mono = tone(seconds, rate_hz)
        files[f"wav at {rate_hz} Hz"] = wav(mono, rate_hz)
        files[f"stereo wav at {rate_hz} Hz"] = wav(np.stack([mono, mono], 1), rate_hz)
    for subtype in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"):
        files[f"wav of {subtype}"] = wav(tone(seconds, 24_000), 24_000, subtype)
    mono = tone(seconds, 44_100)
    files["flac of 24 bits"] = by_soundfile(mono, 44_100, "FLAC", "PCM_24")
    files["vorbis"] = by_soundfile(mono, 44_100, "OGG", "VORBIS")
    for channels in (1, 2):
        files[f"mp3 of {channels}"] = by_ffmpeg(
            mono, 44_100, "mp3", "libmp3lame", channels=channels
        )
        files[f"m4a of {channels}"] = by_ffmpeg(mono, 44_100, "ipod", "aac", channels=channels)
    files["flac of 16 bits"] = by_ffmpeg(mono, 44_100, "flac", "flac", channels=2)
    files["aac"] = by_ffmpeg(mono, 44_100, "adts", "aac")
    files["m4a of alac"] = by_ffmpeg(mono, 44_100, "ipod", "alac")
    mono = tone(seconds, 48_000)
    files["opus"] = by_ffmpeg(mono, 48_000, "ogg", "libopus")
    files["webm"] = by_ffmpeg(mono, 48_000, "webm", "libopus", channels=2)
    files["mp3 behind a tag"] = id3_tag(b"\xff\xfb\x90\x00" * 100) + files["mp3 of 1"]
    return files


def id3_tag(body: bytes) -> bytes:
    """An ID3v2.4 tag."""
    size = len(body)
    digits = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\x00\x00" + digits + body


def flac_bomb(seconds: int) -> bytes:
    """Digital silence: 15 bytes for 8 seconds."""
    options = {"frame_size": "65535"}
    return by_ffmpeg(np.zeros(seconds * 8000), 8000, "flac", "flac", codec_options=options)


def flac_claiming(samples: int, flac: bytes) -> bytes:
    """A FLAC file whose STREAMINFO claims so many samples (36 bits)."""
    changed = bytearray(flac)
    changed[21] = changed[21] & 0xF0 | samples >> 32
    changed[22:26] = struct.pack(">I", samples & 0xFFFFFFFF)
    return bytes(changed)


def m4a_bomb(samples: int = 80_000_000) -> bytes:
    """A small M4A whose tables claim millions of packets of one byte."""
    changed = bytearray(by_ffmpeg(tone(2, 48_000), 48_000, "ipod", "aac"))
    sizes, chunks = changed.index(b"stsz"), changed.index(b"stsc")
    changed[sizes + 8 : sizes + 16] = struct.pack(">II", 1, samples)
    changed[chunks + 16 : chunks + 20] = struct.pack(">I", samples)
    return bytes(changed)


def m4a_with_edits(seconds: float, edits: int) -> bytes:
    """An M4A whose edit list plays the whole of it so many times."""
    plain = by_ffmpeg(tone(seconds, 48_000), 48_000, "ipod", "aac")
    start = plain.index(b"elst") - 4
    end = start + struct.unpack(">I", plain[start : start + 4])[0]
    box = plain[start + 4 : start + 12] + struct.pack(">I", edits) + plain[start + 16 : end] * edits
    changed = bytearray(plain[:start] + struct.pack(">I", len(box) + 4) + box + plain[end:])
    for name in (b"moov", b"trak", b"edts"):
        size = changed.index(name) - 4
        grown = struct.unpack(">I", changed[size : size + 4])[0] + len(changed) - len(plain)
        changed[size : size + 4] = struct.pack(">I", grown)
    return bytes(changed)


def wav_with_title(title: bytes) -> bytes:
    """A WAV of 2 s with an INFO chunk, in whatever alphabet."""
    plain = wav(tone(2, 24_000))
    info = b"INFOINAM" + struct.pack("<I", len(title)) + title
    chunk = b"LIST" + struct.pack("<I", len(info)) + info
    size = struct.pack("<I", len(plain) + len(chunk) - 8)
    return b"RIFF" + size + plain[8:36] + chunk + plain[36:]


def heard(wav_file: bytes) -> Samples:
    """The samples of a WAV that must be 24 kHz mono s16 with exact sizes."""
    assert wav_file[:4] == b"RIFF"
    assert struct.unpack("<I", wav_file[4:8])[0] == len(wav_file) - 8
    assert struct.unpack("<HHIIHH", wav_file[20:36]) == (1, 1, 24_000, 48_000, 2, 16)
    assert wav_file[36:40] == b"data"
    assert struct.unpack("<I", wav_file[40:44])[0] == len(wav_file) - 44
    return np.frombuffer(wav_file[44:], "<i2") / 32_768


def loudest_hz(samples: Samples, rate_hz: int = 24_000) -> float:
    """Frequency of the highest line of the spectrum."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.size)))
    return float(np.argmax(spectrum)) * rate_hz / samples.size
