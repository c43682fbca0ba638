"""Detects the format of an audio file by its first bytes: names and media types may be wrong.

Only these seven are ever opened, so a playlist, a script or a picture reaches no parser at all.
"""

from __future__ import annotations

READABLE = "WAV, FLAC, MP3, OGG, M4A, AAC and WebM"
MAX_ID3_TAGS = 4


def demuxer_of(data: bytes) -> str | None:
    """FFmpeg's name for the format that these first bytes show; None for any other."""
    if data[:4] in {b"RIFF", b"RF64"} and data[8:12] == b"WAVE":
        return "wav"
    if data[:4] == b"fLaC":
        return "flac"
    if data[:4] == b"OggS":
        return "ogg"
    if data[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if data[4:8] == b"ftyp":
        return "mov"
    return _mpeg_of(data[:4])


def _mpeg_of(header: bytes) -> str | None:
    """The two formats without a signature: 11 bits of sync, then fields with forbidden values."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:  # noqa: PLR2004
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    if layer == 0:  # ADTS; its version bits are "1x"
        return "aac" if header[1] & 0xF0 == 0xF0 else None  # noqa: PLR2004
    bit_rate, rate = header[2] >> 4, header[2] >> 2 & 3
    known = version != 1 and bit_rate != 15 and rate != 3  # noqa: PLR2004
    return "mp3" if known else None


def without_id3(data: bytes) -> bytes:
    """The file behind its ID3v2 tags, whose compressed frames FFmpeg would inflate."""
    start = 0
    for _ in range(MAX_ID3_TAGS):
        head = data[start : start + 10]
        if head[:3] != b"ID3" or len(head) < 10 or any(byte & 0x80 for byte in head[6:]):  # noqa: PLR2004
            break
        size = sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        footer = 10 if head[5] & 0x10 else 0
        start += 10 + size + footer
    return data[start:] if start else data


def label_of(demuxer: str) -> str:
    """The format's usual name."""
    return {"mov": "M4A", "matroska": "WebM", "aac": "AAC"}.get(demuxer, demuxer.upper())
