"""`POST /tts`, where both Chatterbox servers meet: `text` means devnen's, `input` travisvn's.

devnen's body is checked for types; only `chunk_size` has a range there.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, Literal

from pydantic import Field, StringConstraints
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from gateway.api.chatterbox.errors import NAME, DevnenShape
from gateway.api.chatterbox.fields import (
    Fields,
    check,
    parse_fields,
    require_fields,
)
from gateway.api.chatterbox.travisvn.speech import (
    TravisvnSpeech,
    VoiceName,
    speed_within,
    temperature_within,
)
from gateway.api.endpoint import BodyReader, SpeechEndpoint, Spoken
from gateway.api.schemas import TextOptions
from gateway.api.speakers import cast_voices
from gateway.errors import GatewayError, InvalidRequest, VoiceNotFound, outcome_of
from gateway.server.disconnect import ClientGone
from gateway.speech.request import SpeechRequest
from gateway.speech.service import SpeechService
from gateway.telemetry.metrics import Metrics
from gateway.text.expression import chosen_temperature, expression_of
from gateway.upstream.dialect import Sampling
from gateway.voices.catalogue import VoiceCatalogue

LARGEST_SEED = 2**63 - 1
# Endings that its clients put behind a voice's name.
ENDINGS = (".wav", ".mp3")


class DevnenBody(Fields, TextOptions):
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


class DevnenSpeech:
    """devnen's `/tts`.

    Args:
        service: The straight line.
        metrics: Where it is counted how requests end.
        bodies: Reads them.
        catalogue: All voices.
    """

    def __init__(
        self,
        service: SpeechService,
        metrics: Metrics,
        bodies: BodyReader,
        catalogue: VoiceCatalogue,
    ) -> None:
        self._service = service
        self._catalogue = catalogue
        self.speech = SpeechEndpoint(
            service, metrics, bodies, DevnenShape(), self.parse, require_fields
        )

    async def parse(self, body: bytes, scope: Scope) -> Spoken:
        """Read a request.

        Raises:
            UnprocessableRequest, InvalidRequest, VoiceNotFound, NoHealthyUpstream.
        """
        value, _ = await parse_fields(body, scope)
        fields = check(DevnenBody, value)
        if not fields.text.strip():
            raise InvalidRequest("The text has nothing to say.")
        text = await self._service.read_text(fields.text, normalise=fields.normalises)
        expression = expression_of(fields.exaggeration, fields.cfg_weight)
        cast = await cast_voices(
            self._catalogue,
            text,
            voice=self._voice(fields),
            voices={},
            instructions=expression.scene,
        )
        temperature = chosen_temperature(fields.temperature)
        ending = fields.output_format or "wav"
        request = SpeechRequest(
            surface=NAME,
            text=text,
            voice=cast.preset,
            voice_label=cast.label,
            response_format=ending,
            speed=speed_within(fields.speed_factor),
            buffered=not fields.stream or scope.get("http_version") == "1.0",
            system_prompt=cast.system_prompt,
            references=cast.references,
            sampling=Sampling(
                temperature=temperature_within(
                    expression.temperature if temperature is None else temperature
                ),
                seed=fields.seed if 0 <= (fields.seed or 0) <= LARGEST_SEED else None,
            ),
        )
        name = time.strftime(f"tts_output_%Y%m%d_%H%M%S.{ending}")
        headers = {
            "Content-Type": f"audio/{ending}",  # its own, which the IANA does not know
            "Content-Disposition": f'attachment; filename="{name}"',
        }
        return Spoken(self._service.prepare(request), headers)

    def _voice(self, fields: DevnenBody) -> str:
        """The voice that a mode's field names, without its file's ending.

        Raises:
            InvalidRequest: The mode's field is missing.
            VoiceNotFound: There is no such voice.
        """
        field = "predefined_voice_id"
        if fields.voice_mode == "clone":
            field = "reference_audio_filename"
        named: str | None = getattr(fields, field)
        if not named:
            raise InvalidRequest(f"Missing '{field}' for '{fields.voice_mode}' voice mode.")
        try:
            self._catalogue.choose(named)
        except VoiceNotFound:
            bare = without_ending(named)
            if bare == named:
                raise
            self._catalogue.choose(bare)
            return bare
        return named


def without_ending(filename: str) -> str:
    """A file's name as a voice's."""
    for ending in ENDINGS:
        if filename.lower().endswith(ending):
            return filename[: -len(ending)]
    return filename


class TtsEndpoint:
    """Reads a body once, and hands it to the server that it is written for.

    Args:
        metrics: Where it is counted how requests end.
        bodies: Reads them.
        travisvn: Takes bodies with `input`.
        devnen: Takes all others.
    """

    def __init__(
        self,
        metrics: Metrics,
        bodies: BodyReader,
        travisvn: TravisvnSpeech,
        devnen: DevnenSpeech,
    ) -> None:
        self._metrics = metrics
        self._bodies = bodies
        self._travisvn = travisvn.speech
        self._devnen = devnen.speech

    def routes(self) -> list[BaseRoute]:
        """`/tts` alone."""
        return [Route("/tts", self, methods=["POST"])]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            require_fields(scope)
            body = await self._bodies.read(scope, receive)
            value, _ = await parse_fields(body, scope)
        except ClientGone:
            self._count("cancelled")
            return
        except GatewayError as error:
            self._count(outcome_of(error))
            await DevnenShape().render_error(error)(scope, receive, send)
            return
        is_travisvns = isinstance(value, dict) and "input" in value and "text" not in value
        endpoint = self._travisvn if is_travisvns else self._devnen
        bodies = [body]
        del value, body  # an answer may take minutes: what it was read from need not
        await endpoint(scope, partial(_replay, bodies, receive), send)

    def _count(self, outcome: str) -> None:
        self._metrics.requests.labels(NAME, outcome).inc()


async def _replay(bodies: list[bytes], receive: Receive) -> Message:
    """A body that was read already, then whatever comes."""
    if bodies:
        return {"type": "http.request", "body": bodies.pop(), "more_body": False}
    return await receive()
