"""Parsers of an upstream's bytes: PCM with error text inside it, chat events, errors, lists.

Pure code that trusts neither status nor content type (docs/contract.md sections 2 to 4): what is
not speech raises, and no message repeats the upstream's text, because that text echoes input.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from gateway.audio.pcm import Aligner
from gateway.audio.wraparound import WraparoundRepair
from gateway.errors import (
    GatewayError,
    UnspeakableText,
    UpstreamBusy,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamRouteUnknown,
)

# An exception of the engine after the 200 stands in the PCM as `{"error": {"object": "error", …`
# (docs/contract.md section 3). All that is searched for is as long as its spelling is certain, as
# the search skips by that length: nine bytes took three times as long. A piece that begins with
# the shorter mark is error text in any spelling, as an engine sends it as a chunk of its own; 64
# bits do not occur by chance.
ERROR_MARK = b'{"error": {"object": "error"'
ERROR_START = b'{"error"'
# At the very start flat envelopes and RIFF headers are looked for too. An answer whose first byte
# could be theirs waits until this many bytes are there, 0.7 ms of audio.
START_BYTES = 32
_MAY_BE_TEXT = b" \t\n\r\f\v{R"
_TEXT_START = re.compile(rb'\s*\{\s*"(?:error|object|detail|message)"')
_RIFF_START = re.compile(rb"RIFF....WAVE", re.DOTALL)

# The longest event that is asked for carries 250 tokens plus a tail of overlap: about 290 tokens
# of 1,920 bytes, 740 KB in base64. Three times that is no event of this engine.
MOST_LINE_BYTES = 2 * 1024 * 1024
OTHER_FIELDS = (b":", b"event:", b"id:", b"retry:")  # of server-sent events; all ignored

MOST_MESSAGE_CHARACTERS = 300
UNSPEAKABLE_PARAM = "unspeakable_text"
_ERROR_TYPE = re.compile(r"[A-Za-z]{1,40}")
# Another upstream, or the same one later, may answer otherwise: key, model and route are matters
# of its configuration, the others of its load, of its start, or of a proxy before it.
_KEY_REFUSED, _BUSY = (401, 403), (408, 429, 502, 503, 504)


def _require_whole(aligner: Aligner) -> None:
    """Refuse an answer that ends within a sample.

    The engine sends whole tokens only, so something in between was not audio and the samples
    behind it were shifted by one byte.
    """
    if aligner.waiting:
        raise UpstreamProtocolError("The upstream's audio ends within a sample.")


class SpeechParser:
    """Reads the body of `POST /v1/audio/speech` with `response_format: "pcm"`.

    Bytes may come in any slices. PCM is s16le mono 24 kHz; only bytes that may turn out to be error
    text are held back, at most 27 (START_BYTES at the start).
    """

    wraparound = None  # this route clips
    finish_blocks = False

    def __init__(self) -> None:
        self._aligner = Aligner()
        self._held = b""
        self._begun = False

    def begin(self, headers: Mapping[bytes, bytes]) -> None:
        """Pass over the headers: they say audio/mpeg whatever comes."""

    def feed(self, data: bytes) -> bytes:
        """Return the whole samples that `data` completes.

        Raises:
            UpstreamProtocolError: Error text, or a WAV file in place of PCM.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        if not self._begun:
            if len(data) < START_BYTES and (not data or data[0] in _MAY_BE_TEXT):
                self._held = data
                return b""
            self._begun = True
            _require_audio(data)
        if ERROR_MARK in data or data.startswith(ERROR_START):
            raise UpstreamProtocolError("The upstream sent error text in place of audio.")
        at = data.find(b"{", 1 - len(ERROR_MARK))
        while at >= 0 and not ERROR_MARK.startswith(data[at:]):
            at = data.find(b"{", at + 1)
        if at >= 0:
            self._held = data[at:]
            data = data[:at]
        return self._aligner.feed(data)

    def finish(self) -> bytes:
        """Return what was held back.

        Raises:
            UpstreamProtocolError: Error text, or half a sample is left over.
        """
        if self._held:
            _require_audio(self._held)
        pcm = self._aligner.feed(self._held)
        self._held = b""
        _require_whole(self._aligner)
        return pcm


def _require_audio(data: bytes) -> None:
    """Refuse data, at least a byte, that begins like error text or a WAV file."""
    if data[0] not in _MAY_BE_TEXT:
        return
    if _TEXT_START.match(data):
        raise UpstreamProtocolError("The upstream sent error text in place of audio.")
    if _RIFF_START.match(data):
        raise UpstreamProtocolError("The upstream sent a WAV file in place of PCM.")


class ChatParser:
    """Reads the event stream of `POST /v1/chat/completions` with `stream: true`.

    Every `data:` line is one event, as the engine writes it. Audio may follow the event that
    carries the finish reason (docs/contract.md section 4), so only `[DONE]` ends the answer.

    Attributes:
        wraparound: Repairs samples above full scale, which this route alone does not clip.
    """

    finish_blocks = False

    def __init__(self) -> None:
        self.wraparound = WraparoundRepair()
        self._aligner = Aligner()
        self._parts: list[bytes] = []  # of a line that is not complete
        self._parts_bytes = 0
        self._done = False

    def begin(self, headers: Mapping[bytes, bytes]) -> None:
        """Pass over the headers."""

    def feed(self, data: bytes) -> bytes:
        """Return the whole samples (s16le mono 24 kHz) of the events that `data` completes.

        Raises:
            UpstreamProtocolError: An error event, or bytes that are no such event stream.
        """
        end = data.rfind(b"\n")
        if end < 0:
            self._keep(data)
            return b""
        lines = b"".join((*self._parts, data[:end])).split(b"\n")
        self._parts.clear()
        self._parts_bytes = 0
        self._keep(data[end + 1 :])
        pcm = self._aligner.feed(b"".join([self._line(line) for line in lines]))
        return self.wraparound.feed(pcm)

    def finish(self) -> bytes:
        """Return what an unterminated last line held.

        Raises:
            UpstreamProtocolError: The stream ended without `[DONE]`, or within a sample.
        """
        pcm = self._aligner.feed(self._line(b"".join(self._parts)))
        self._parts.clear()
        if not self._done:
            raise UpstreamProtocolError("The upstream's event stream broke off.")
        _require_whole(self._aligner)
        return self.wraparound.feed(pcm) + self.wraparound.finish()

    def _keep(self, part: bytes) -> None:
        self._parts_bytes += len(part)
        if self._parts_bytes > MOST_LINE_BYTES:
            raise UpstreamProtocolError("The upstream sent an event that is too long.")
        if part:
            self._parts.append(part)

    def _line(self, line: bytes) -> bytes:
        """The PCM bytes of one line."""
        if self._done or _carries_nothing(line):
            return b""
        payload = event_data(line)
        self._done = payload == b"[DONE]"
        if payload is None or self._done:
            return b""
        return self._event(_object(_json(payload)))

    def _event(self, event: dict[str, Any]) -> bytes:
        if event.get("error") or event.get("object") == "error":
            raise UpstreamProtocolError("The upstream sent an error event.")
        choices = event.get("choices")
        if not isinstance(choices, list):
            raise UpstreamProtocolError("The upstream sent an event without choices.")
        return b"".join([self._choice(_object(choice)) for choice in choices])

    def _choice(self, choice: dict[str, Any]) -> bytes:
        delta = _object(choice.get("delta") or {})
        audio = _object(delta.get("audio") or {}).get("data")
        return b"" if audio is None else base64_audio(audio)


def event_data(line: bytes) -> bytes | None:
    """What stands behind `data:` in a line of server-sent events; None for its other fields.

    Raises:
        UpstreamProtocolError: It is no such line.
    """
    line = line.strip()
    if not line or line.startswith(OTHER_FIELDS):
        return None
    if not line.startswith(b"data:"):
        raise UpstreamProtocolError("The upstream's answer is not an event stream.")
    return line[5:].strip()


def base64_audio(text: Any) -> bytes:
    """The bytes of an event's audio.

    Raises:
        UpstreamProtocolError: It is no base64.
    """
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (ValueError, TypeError):  # binascii.Error is a ValueError
        raise UpstreamProtocolError("The upstream's audio is not base64.") from None


def _carries_nothing(line: bytes) -> bool:
    """Whether a line is the event that the engine sends for every token (25 a second, each stream).

    Only its exact spelling is known here; any other goes through the JSON parser. The quotes of
    these keys would be escaped inside a JSON string, so text cannot imitate them.
    """
    return (
        b'"content":""' in line
        and b'"finish_reason":null' in line
        and b'"data"' not in line
        and b'"error"' not in line
        and b'"usage"' not in line
        and line.startswith(b"data:")
    )


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise UpstreamProtocolError("The upstream sent something else than JSON.") from None


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UpstreamProtocolError("The upstream sent JSON of another shape than its API's.")
    return value


def parse_error_body(status: int, body: bytes) -> GatewayError:
    """Turn an answer whose status is not 200 into the exception for it.

    The container answers with a flat envelope, `{"detail"}`, `{"error": "Unauthorized"}`, plain
    text or nothing (docs/contract.md sections 1, 2, 4); its messages echo input and are dropped.
    The CPU engine's envelope with `param: "unspeakable_text"` is the exception: its message is
    written for clients.
    """
    envelope = _flat_envelope(body)
    if status == 400 and envelope.get("param") == UNSPEAKABLE_PARAM:  # noqa: PLR2004
        words = " ".join(str(envelope.get("message") or "").split())
        return UnspeakableText(
            words[:MOST_MESSAGE_CHARACTERS] or "The engine's voice has no sound for this text."
        )
    if status == 404:  # noqa: PLR2004
        return UpstreamRouteUnknown(
            "The upstream does not know the model or the route that it was asked for."
        )
    if status in _KEY_REFUSED:
        return UpstreamProtocolError("The upstream refused the gateway's API key.")
    if status in _BUSY:
        return UpstreamBusy(f"The upstream is overloaded or not there yet ({status}).")
    word = str(envelope.get("type") or "")
    name = f"{status} {word}" if _ERROR_TYPE.fullmatch(word) else str(status)
    if 400 <= status < 500:  # noqa: PLR2004
        sentence = str(envelope.get("message") or envelope.get("detail") or "")
        return UpstreamRejected(f"The upstream refused the request ({name}).", sentence)
    return UpstreamProtocolError(f"The upstream failed ({name}).")


def _flat_envelope(body: bytes) -> dict[str, Any]:
    """The error's fields, whether they stand at the top or in an `error` object; else nothing."""
    try:
        value = _object(_json(body))
    except UpstreamProtocolError:
        return {}
    inner = value.get("error")
    return inner if isinstance(inner, dict) else value


def parse_models(body: bytes) -> tuple[str, ...]:
    """The ids that `GET /v1/models` lists, in its order.

    Raises:
        UpstreamProtocolError: The body is no such list.
    """
    return _names(_object(_json(body)).get("data"), ("id",))


def parse_context_tokens(body: bytes) -> int | None:
    """The smallest `max_model_len` that `GET /v1/models` tells, or None where none is told.

    Raises:
        UpstreamProtocolError: The body is no such list.
    """
    entries = _object(_json(body)).get("data")
    told = [
        entry.get("max_model_len")
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict)
    ]
    return min((t for t in told if isinstance(t, int) and t > 0), default=None)


def parse_voices(body: bytes) -> tuple[str, ...]:
    """The names that `GET /v1/audio/voices` lists: a bare array, or `{"voices": [...]}`.

    Raises:
        UpstreamProtocolError: The body is no such list.
    """
    value = _json(body)
    return _names(value.get("voices") if isinstance(value, dict) else value, ("id", "name"))


def _names(entries: Any, keys: tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(entries, list):
        raise UpstreamProtocolError("The upstream's list is not a list.")
    names = []
    for entry in entries:
        fields = entry if isinstance(entry, dict) else {keys[0]: entry}
        name = next((fields[key] for key in keys if fields.get(key)), None)
        if not isinstance(name, str):
            raise UpstreamProtocolError("The upstream's list holds an entry without a name.")
        names.append(name)
    return tuple(dict.fromkeys(names))
