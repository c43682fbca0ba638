"""Speech as travisvn/chatterbox-tts-api offers it: JSON or a form, whole or as it is made.

Fields are checked against its ranges; a voice that is unknown is replaced by the default one, and
a header of the answer says so.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints
from starlette.types import Scope

from gateway.access.policy import SPEECH
from gateway.api.chatterbox.fields import parse_fields, require_fields
from gateway.api.endpoint import SpeechSurface, Spoken
from gateway.api.error_bodies import TRAVISVN, travisvn_error
from gateway.api.multipart import MULTIPART, FormFile, file_of, form_bodies, form_schema
from gateway.api.openai import EventFraming
from gateway.api.routes import AUDIO_TYPES, EVENTS_TYPE, post
from gateway.api.schemas import TextOptions, check_fields
from gateway.api.speakers import cast_voices, voice_of_file
from gateway.audio.encoders import RESPONSE_FORMATS
from gateway.audio.encoders.wav import header
from gateway.audio.pcm import BYTES_PER_SAMPLE, ENGINE_SAMPLE_RATE_HZ
from gateway.audio.tempo import SPEED_RANGE
from gateway.errors import GatewayError, VoiceNotFound
from gateway.speech.encoded_stream import EncodedStream
from gateway.speech.request import SpeechRequest
from gateway.text.expression import Expression, chosen_temperature, expression_of
from gateway.upstream.dialect import Reference, Sampling
from gateway.voices.library.config_entry import NEUTRAL_TRANSCRIPT
from gateway.voices.references import reference_of

MOST_CHARACTERS = 3000
# Chatterbox allows 5; above this the engine no longer speaks (and the legacy proxy allowed 1.5).
HIGHEST_TEMPERATURE = 1.5
VOICE_FILE = "voice_file"
PATH = "/audio/speech"
FALLBACK_HEADER = "X-Voice-Fallback"
# travisvn's own header of a stream: players take the largest signed size for "until the end".
STREAM_RIFF_BYTES = 0x7FFFFFFF - 36

VoiceName = Annotated[str, StringConstraints(max_length=256)]


class TravisvnFields(TextOptions):
    """The fields that short and long texts share."""

    input: str
    voice: VoiceName | None = None
    response_format: Annotated[str, StringConstraints(max_length=64)] | None = None
    exaggeration: float | None = Field(None, ge=0.25, le=2)
    cfg_weight: float | None = Field(None, ge=0, le=1)
    temperature: float | None = Field(None, ge=0.05, le=5)


class TravisvnBody(TravisvnFields):
    """The body of `POST /audio/speech`."""

    input: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MOST_CHARACTERS)
    ]
    speed: float | None = None
    stream_format: Literal["audio", "sse"] | None = None
    # Chunks are the gateway's own affair: these are checked and change nothing.
    streaming_chunk_size: int | None = Field(None, ge=50, le=500)
    streaming_strategy: Literal["sentence", "paragraph", "fixed", "word"] | None = None
    streaming_buffer_size: int | None = Field(None, ge=1, le=10)
    streaming_quality: Literal["fast", "balanced", "high"] | None = None


_UPLOAD_BODY = {MULTIPART: partial(form_schema, TravisvnBody, VOICE_FILE)}
_speaks = partial(post, group=SPEECH, check=require_fields, produces=(*AUDIO_TYPES, EVENTS_TYPE))


class WavStream:
    """PCM behind one header."""

    content_type = "audio/wav"

    def __init__(self) -> None:
        unknown = header(ENGINE_SAMPLE_RATE_HZ, None)
        self._header = unknown[:4] + struct.pack("<I", STREAM_RIFF_BYTES) + unknown[8:]

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


class TravisvnSpeech(SpeechSurface):
    """The speech routes."""

    @_speaks(PATH, summary="Speak a text", bodies=form_bodies(TravisvnBody))
    @_speaks(f"{PATH}/upload", summary="Speak in a voice", bodies=_UPLOAD_BODY)
    async def parse(self, body: bytes, scope: Scope) -> Spoken:
        """Read a request for one whole file, or for events.

        Raises:
            UnprocessableRequest, InvalidRequest, RequestTooLarge, NoHealthyUpstream.
        """
        return await self.parse_fields(*await parse_fields(body, scope))

    async def parse_fields(self, value: Any, files: Sequence[FormFile] = ()) -> Spoken:
        """`parse`, of a body that is read already."""
        fields = check_fields(TravisvnBody, value)
        request, headers = await self.understand(fields, files, fields.speed)
        if fields.stream_format == "sse":
            events = PcmEvents(fields.input)
            return Spoken(self.service.prepare(_as_pcm(request)), headers, wrap=events)
        name = f"attachment; filename=speech.{request.response_format}"
        headers = {**headers, "Content-Disposition": name}
        return Spoken(self.service.prepare(request), headers)

    @_speaks(f"{PATH}/stream", summary="Speak as it is made", bodies=form_bodies(TravisvnBody))
    @_speaks(
        f"{PATH}/stream/upload", summary="Speak in a voice, as it is made", bodies=_UPLOAD_BODY
    )
    async def parse_stream(self, body: bytes, scope: Scope) -> Spoken:
        """Read a request for a WAV file that is sent while it is made.

        Raises:
            UnprocessableRequest, InvalidRequest, RequestTooLarge, NoHealthyUpstream.
        """
        value, files = await parse_fields(body, scope)
        fields = check_fields(TravisvnBody, value)
        request, headers = await self.understand(fields, files, fields.speed)
        headers = {
            **headers,
            "Content-Disposition": "attachment; filename=speech_stream.wav",
            "Cache-Control": "no-cache",
        }
        return Spoken(self.service.prepare(_as_pcm(request)), headers, wrap=WavStream())

    async def understand(
        self,
        fields: TravisvnFields,
        files: Sequence[FormFile] = (),
        speed: float | None = None,
    ) -> tuple[SpeechRequest, dict[str, str]]:
        """What to say, as one whole file, and headers of the answer.

        Raises:
            InvalidRequest, RequestTooLarge, NoHealthyUpstream.
        """
        text = await self.service.read_text(fields.input, normalise=fields.normalises)
        expression = expression_of(fields.exaggeration, fields.cfg_weight)
        scene = expression.scene
        samples = await self._samples(file_of(files, VOICE_FILE))
        response_format = (fields.response_format or "wav").lower()
        cast = partial(cast_voices, self.catalogue, text.speakers, samples=samples)
        named = voice_of_file(self.catalogue, fields.audio_prompt_path) or fields.voice
        headers: dict[str, str] = {}
        try:
            voices = await cast(voice=named, instructions=scene)
        except VoiceNotFound:
            if named is None:
                raise
            headers = {FALLBACK_HEADER: "default"}
            voices = await cast(voice=None, instructions=scene)
        request = SpeechRequest(
            surface=TRAVISVN.name,
            text=text,
            # Its own server sends WAV whatever is asked for.
            response_format=response_format if response_format in RESPONSE_FORMATS else "wav",
            speed=speed_within(speed),
            buffered=True,
            sampling=Sampling(temperature=temperature_of(fields.temperature, expression)),
            **voices,
        )
        return request, headers

    async def _samples(self, file: FormFile | None) -> tuple[Reference, ...]:
        if file is None:
            return ()
        prepare = partial(reference_of, file.data, NEUTRAL_TRANSCRIPT, param=VOICE_FILE)
        return (await self.in_thread(prepare),)


def speed_within(speed: float | None) -> float:
    """Clamps a speed to SPEED_RANGE; None is 1."""
    return 1.0 if speed is None else min(max(speed, SPEED_RANGE[0]), SPEED_RANGE[1])


def temperature_of(given: float | None, expression: Expression) -> float | None:
    """The temperature that the engine can speak at; None leaves its default.

    Args:
        given: By the client; what its form always sends counts as none.
        expression: Decides where none is given.
    """
    chosen = chosen_temperature(given)
    temperature = expression.temperature if chosen is None else chosen
    return None if temperature is None else min(max(temperature, 0.0), HIGHEST_TEMPERATURE)


def _as_pcm(request: SpeechRequest) -> SpeechRequest:
    return replace(request, response_format="pcm", buffered=False)
