"""`POST /tts`, where both Chatterbox servers meet: `text` means devnen's, `input` travisvn's.

devnen's body is checked for types; only `chunk_size` has a range there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints
from starlette.types import Scope

from gateway.access.policy import SPEECH
from gateway.api.chatterbox.fields import parse_fields, require_fields
from gateway.api.chatterbox.travisvn.speech import (
    TravisvnSpeech,
    VoiceName,
    speed_within,
    temperature_of,
)
from gateway.api.endpoint import SpeechSurface, Spoken
from gateway.api.error_bodies import DEVNEN, TRAVISVN
from gateway.api.multipart import form_bodies
from gateway.api.routes import AUDIO_TYPES, post
from gateway.api.schemas import TextOptions, check_fields
from gateway.api.speakers import cast_voices, voice_of_file
from gateway.errors import InvalidRequest
from gateway.speech.request import SpeechRequest
from gateway.text.expression import expression_of
from gateway.upstream.dialect import Sampling

LARGEST_SEED = 2**63 - 1


class DevnenBody(TextOptions):
    """The body of devnen's `POST /tts`."""

    text: Annotated[str, StringConstraints(min_length=1)]
    voice_mode: Literal["predefined", "clone"] = "predefined"
    predefined_voice_id: VoiceName | None = None
    reference_audio_filename: VoiceName | None = None
    output_format: Literal["wav", "opus", "mp3"] | None = "wav"
    # How a text is split is the gateway's own affair: these are checked and change nothing.
    split_text: bool | None = True
    chunk_size: int | None = Field(120, ge=50, le=500)
    temperature: float | None = None
    exaggeration: float | None = None
    cfg_weight: float | None = None
    seed: int | None = None
    speed_factor: float | None = None
    language: str | None = None
    stream: bool | None = False


@dataclass(frozen=True, slots=True)
class DevnenSpeech(SpeechSurface):
    """Serves `POST /tts` of both servers; the body's fields decide which one is meant.

    Attributes:
        travisvn: Takes bodies with `input`; all others are devnen's.
    """

    travisvn: TravisvnSpeech

    @post(
        "/tts",
        SPEECH,
        "Speak a text (Chatterbox)",
        check=require_fields,
        bodies=form_bodies(DevnenBody),
        produces=AUDIO_TYPES,
    )
    async def parse(self, body: bytes, scope: Scope) -> Spoken:
        """Read a request.

        Raises:
            GatewayError: In the shape of the server that the body is written for.
        """
        value, files = await parse_fields(body, scope)
        if isinstance(value, dict) and "input" in value and "text" not in value:
            scope["surface"] = TRAVISVN
            return await self.travisvn.parse_fields(value, files)
        return await self.parse_fields(value)

    async def parse_fields(self, value: Any) -> Spoken:
        """What to say, from a body that is read already.

        Raises:
            UnprocessableRequest, InvalidRequest, VoiceNotFound, NoHealthyUpstream.
        """
        fields = check_fields(DevnenBody, value)
        if not fields.text.strip():
            raise InvalidRequest("The text has nothing to say.")
        text = await self.service.read_text(fields.text, normalise=fields.normalises)
        expression = expression_of(fields.exaggeration, fields.cfg_weight)
        ending = fields.output_format or "wav"
        request = SpeechRequest(
            surface=DEVNEN.name,
            text=text,
            response_format=ending,
            speed=speed_within(fields.speed_factor),
            buffered=not fields.stream,
            sampling=Sampling(
                temperature=temperature_of(fields.temperature, expression),
                seed=fields.seed if 0 <= (fields.seed or 0) <= LARGEST_SEED else None,
            ),
            **await cast_voices(
                self.catalogue,
                text.speakers,
                voice=voice_of_file(self.catalogue, fields.audio_prompt_path)
                or self._voice(fields),
                instructions=expression.scene,
            ),
        )
        name = time.strftime(f"tts_output_%Y%m%d_%H%M%S.{ending}")
        headers = {
            "Content-Type": f"audio/{ending}",  # its own, which the IANA does not know
            "Content-Disposition": f'attachment; filename="{name}"',
        }
        return Spoken(self.service.prepare(request), headers)

    def _voice(self, fields: DevnenBody) -> str:
        """The voice that a mode's field names.

        Raises:
            InvalidRequest: The mode's field is missing.
        """
        field = "predefined_voice_id"
        if fields.voice_mode == "clone":
            field = "reference_audio_filename"
        named: str | None = getattr(fields, field)
        if not named:
            raise InvalidRequest(f"Missing '{field}' for '{fields.voice_mode}' voice mode.")
        return named
