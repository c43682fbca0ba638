"""The parser of any speech server's answer: PCM, WAV, server-sent events or a compressed file.

Neither status nor content type is trusted: the first bytes decide (docs/contract.md section 2 tells
of WAV labelled audio/mpeg, travisvn's server of WAV whatever is asked for). What comes out is s16le
mono at the engines' rate.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from gateway.audio.pcm import ENGINE_SAMPLE_RATE_HZ
from gateway.audio.resample import Resampler
from gateway.errors import GatewayError, UpstreamProtocolError
from gateway.upstream.parsers import MOST_LINE_BYTES, base64_audio, event_data
from gateway.voices.samples.decode import decode_pcm

START_BYTES = 64  # enough to tell every format, and less than the shortest WAV header and a sample
MOST_HEADER_BYTES = 64 * 1024  # of a WAV file: chunks before its audio
MOST_FILE_BYTES = 16 * 1024 * 1024  # a compressed file is decoded whole: 20 minutes of MP3
RATES_HZ = (4000, 192_000)
MOST_CHANNELS = 8
PCM_FORMAT, EXTENSIBLE_FORMAT = 1, 0xFFFE
SAMPLE_BITS = 16
LEAST_PLACEHOLDER = 0x7FFFF000  # sizes from here on say "until the end"
FMT_BYTES = 16

_TEXT = re.compile(rb"\s*(?:[{\[<]|data:|event:|id:|retry:|:)")
_EVENTS = re.compile(rb"\s*(?:data:|event:|id:|retry:|:)")
_FILES = (b"ID3", b"OggS", b"fLaC", b"\xff\xf1", b"\xff\xf9", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")
_FILE_TYPES = ("audio/mpeg", "audio/mp3", "audio/aac", "audio/ogg", "audio/opus", "audio/flac")


class _Reader(Protocol):
    def feed(self, data: bytes) -> bytes:
        """PCM at the engines' rate."""

    def finish(self) -> bytes:
        """The rest."""


class _Pcm:
    """Raw samples of a known rate and number of channels, s16le."""

    def __init__(self, rate_hz: int, channels: int = 1) -> None:
        if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1] or not 1 <= channels <= MOST_CHANNELS:
            raise UpstreamProtocolError("The upstream's audio has an impossible rate or channels.")
        self._channels = channels
        self._frame_bytes = 2 * channels
        self._held = b""
        same = rate_hz == ENGINE_SAMPLE_RATE_HZ
        self._resampler = None if same else Resampler(ENGINE_SAMPLE_RATE_HZ, rate_hz)

    def feed(self, data: bytes) -> bytes:
        data = self._held + data
        whole = len(data) // self._frame_bytes * self._frame_bytes
        self._held, data = data[whole:], data[:whole]
        if not data:
            return b""
        if self._channels > 1:
            frames = np.frombuffer(data, "<i2").reshape(-1, self._channels)
            data = frames.mean(axis=1).astype("<i2").tobytes()
        return self._resampler.feed(data) if self._resampler else data

    def finish(self) -> bytes:
        if self._held:
            raise UpstreamProtocolError("The upstream's audio ends within a sample.")
        return self._resampler.finish() if self._resampler else b""


class _Wav:
    """A WAV file, or its stream with sizes that say nothing; only its audio is read."""

    def __init__(self) -> None:
        self._head = b""
        self._pcm: _Pcm | None = None
        self._left_bytes: int | None = None  # of the data; None until the end of the answer

    def feed(self, data: bytes) -> bytes:
        if self._pcm is None:
            self._head += data
            start = self._read_head()
            if start is None:
                if len(self._head) > MOST_HEADER_BYTES:
                    raise UpstreamProtocolError("The upstream's WAV file has no audio.")
                return b""
            data, self._head = self._head[start:], b""
        if self._pcm is None:
            return b""
        if self._left_bytes is not None:
            data = data[: self._left_bytes]
            self._left_bytes -= len(data)
        return self._pcm.feed(data)

    def _read_head(self) -> int | None:
        """Where the samples begin, once the header is whole."""
        head, at, form = self._head, 12, None
        while at + 8 <= len(head):
            name, size = head[at : at + 4], struct.unpack_from("<I", head, at + 4)[0]
            if name == b"data":
                if form is None:
                    raise UpstreamProtocolError("The upstream's WAV file does not tell its format.")
                self._pcm = _Pcm(*form)
                # Streams have placeholders: 0, 0x7FFFFFFF less a header, or 0xFFFFFFFF.
                self._left_bytes = size if 0 < size < LEAST_PLACEHOLDER else None
                return at + 8
            if name == b"fmt " and at + 8 + FMT_BYTES <= len(head):
                kind, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", head, at + 8)
                if kind not in {PCM_FORMAT, EXTENSIBLE_FORMAT} or bits != SAMPLE_BITS:
                    raise UpstreamProtocolError("The upstream's WAV file is not of 16-bit PCM.")
                form = (rate_hz, channels)
            at += 8 + size + size % 2
        return None

    def finish(self) -> bytes:
        if self._pcm is None:
            raise UpstreamProtocolError("The upstream's WAV file has no audio.")
        if self._left_bytes:
            raise UpstreamProtocolError("The upstream's WAV file is shorter than it says.")
        return self._pcm.finish()


class _Events:
    """Server-sent events whose audio stands in base64, in any of the shapes that servers use."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._rest = b""
        self._done = False
        self._audio: AudioParser | None = None

    def feed(self, data: bytes) -> bytes:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MOST_LINE_BYTES:
            raise UpstreamProtocolError("The upstream sent an event that is too long.")
        return b"".join([self._line(line) for line in lines])

    def _line(self, line: bytes) -> bytes:
        if self._done:
            return b""
        payload = event_data(line)
        self._done = payload == b"[DONE]"
        if payload is None or self._done:
            return b""
        try:
            event = json.loads(payload)
        except (ValueError, RecursionError):
            raise UpstreamProtocolError("The upstream sent an event that is not JSON.") from None
        if not isinstance(event, dict):
            raise UpstreamProtocolError("The upstream sent an event of another shape.")
        return self._event(event)

    def _event(self, event: Mapping[str, Any]) -> bytes:
        kind = str(event.get("type") or "")
        if kind.endswith("error") or event.get("error"):
            raise UpstreamProtocolError("The upstream sent an error event.")
        # travisvn's server tells the rate in an event before the audio.
        rate_hz = event.get("sample_rate")
        audio = event.get("audio")
        if isinstance(audio, dict):  # SGLang-Omni before 0.1.9
            rate_hz, audio = audio.get("sample_rate", rate_hz), audio.get("data")
        if isinstance(rate_hz, int) and self._audio is None:
            self._rate_hz = rate_hz
        self._done = self._done or kind.endswith(".done") or bool(event.get("finish_reason"))
        if not isinstance(audio, str):
            return b""
        data = base64_audio(audio)
        if self._audio is None:
            self._audio = AudioParser(self._rate_hz, raw=True)
        return self._audio.feed(data)

    def finish(self) -> bytes:
        pcm = self._line(self._rest)
        if not self._done:
            raise UpstreamProtocolError("The upstream's event stream broke off.")
        return pcm + (self._audio.finish() if self._audio else b"")


class _File:
    """A compressed file: kept whole, decoded at its end."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> bytes:
        self._data += data
        if len(self._data) > MOST_FILE_BYTES:
            raise UpstreamProtocolError("The upstream's audio file is too large.")
        return b""

    def finish(self) -> bytes:
        try:
            pcm, rate_hz = decode_pcm(bytes(self._data))
        except GatewayError as error:
            raise UpstreamProtocolError("The upstream's audio cannot be decoded.") from error
        reader = _Pcm(rate_hz)
        return reader.feed(pcm) + reader.finish()


class AudioParser:
    """Reads the body of a speech server's answer.

    Args:
        rate_hz: Of raw PCM whose rate nobody tells.
        raw: Nothing but WAV or PCM can come.

    Attributes:
        wraparound: None: these servers clip.
        finish_blocks: What is left at the end takes long: finish in a thread.
    """

    wraparound = None

    def __init__(self, rate_hz: int = ENGINE_SAMPLE_RATE_HZ, *, raw: bool = False) -> None:
        self.finish_blocks = False
        self._rate_hz = rate_hz
        self._raw = raw
        self._type = ""
        self._held = b""
        self._reader: _Reader | None = None

    def begin(self, headers: Mapping[bytes, bytes]) -> None:
        """Take note of the answer's headers."""
        named = headers.get(b"content-type", b"").partition(b";")[0]
        self._type = named.decode("latin-1").strip().lower()
        told = headers.get(b"x-sample-rate", b"")
        if told.isdigit():
            self._rate_hz = int(told[:7])

    def feed(self, data: bytes) -> bytes:
        """The samples that `data` completes.

        Raises:
            UpstreamProtocolError: It is no audio.
        """
        if self._reader is None:
            self._held += data
            if len(self._held) < START_BYTES:
                return b""
            data, self._held = self._held, b""
            self._reader = self._reader_of(data)
        return self._reader.feed(data)

    def finish(self) -> bytes:
        """What is left.

        Raises:
            UpstreamProtocolError: It ended too early, or was no audio.
        """
        pcm = b""
        if self._reader is None:
            if not self._held:
                return b""
            self._reader = self._reader_of(self._held)
            pcm = self._reader.feed(self._held)
        return pcm + self._reader.finish()

    def _reader_of(self, start: bytes) -> _Reader:
        if start.startswith(b"RIFF") and start[8:12] == b"WAVE":
            return _Wav()
        if self._raw:
            return _Pcm(self._rate_hz)
        if _EVENTS.match(start) or self._type == "text/event-stream":
            return _Events(self._rate_hz)
        textual = self._type.startswith("text/") or self._type.endswith("json")
        if textual or (_TEXT.match(start) and _printable(start)):
            raise UpstreamProtocolError("The upstream sent text in place of audio.")
        named = start[:3] in _NAMED
        if start.startswith(_FILES) and (named or self._type in _FILE_TYPES):
            self.finish_blocks = True
            return _File()
        return _Pcm(self._rate_hz)


_NAMED = (b"ID3", b"Ogg", b"fLa")  # of these, no raw audio begins with the whole mark by chance


def _printable(start: bytes) -> bool:
    """Whether the first bytes are text; samples that look so for 32 of them do not occur."""
    return all(byte >= 0x20 or byte in b"\t\r\n" for byte in start[:32])  # noqa: PLR2004
