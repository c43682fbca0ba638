"""OpenAI's custom voices: the voice library under `/v1/audio/voices`.

Lists stay what voice pickers read (`voices` with id and name); a voice is made from a sample and
a name, and its id or its name may stand as `voice` in every request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import AliasChoices, Field
from starlette.requests import Request

from gateway.access.policy import VOICE_CHANGES, VOICES
from gateway.api.endpoint import BodyReader
from gateway.api.field_rules import LenientFields
from gateway.api.multipart import MULTIPART, file_of, form_schema, read_upload
from gateway.api.routes import Json, delete, get, post
from gateway.api.schemas import parse_fields, read_query
from gateway.errors import InvalidRequest
from gateway.voices.catalogue import VoiceCatalogue
from gateway.voices.library.config_entry import LibraryVoice
from gateway.voices.library.library import VoiceLibrary
from gateway.voices.samples.loudness import UPLOAD_LIMITS

FORM_OVERHEAD_BYTES = 64 * 1024  # the form's other fields and its boundaries
MOST_LISTED = 1000
SAMPLE = "audio_sample"
VOICES_PATH = "/v1/audio/voices"


class VoiceForm(LenientFields):
    """The form of a new voice."""

    name: str
    """Letters, digits, spaces and . _ -"""
    transcript: str | None = Field(None, validation_alias=AliasChoices("transcript", "ref_text"))
    """What the recording says; also as ref_text."""
    language: str = "en"
    """Its language tag."""
    consent: str | None = None
    """Stored with the voice, and not judged."""
    type: str = SAMPLE


def _voice_form() -> dict[str, Any]:
    return {**form_schema(VoiceForm, SAMPLE), "required": ["name", SAMPLE]}


class VoicesQuery(LenientFields):
    """The query of the list of voices."""

    legacy: str | None = None
    """`true` or `1` lists plain names; anything else is ignored."""
    model: str | None = None
    """A list of names for llama-swap and KoboldCpp."""
    limit: int | None = Field(None, ge=1, le=MOST_LISTED)
    after: str | None = None
    """An id or name; the list begins behind it."""


@dataclass(frozen=True, slots=True)
class CustomVoices:
    """The routes of voices that clients may list, make and delete.

    Attributes:
        catalogue: All voices.
        bodies: Reads uploads.
    """

    catalogue: VoiceCatalogue
    bodies: BodyReader

    @get(VOICES_PATH, VOICES, "List the voices", query=VoicesQuery)
    async def list_voices(self, request: Request) -> Json:
        """`GET /v1/audio/voices`: objects, or strings with `?legacy=true` or `?model=`."""
        names = self.catalogue.names
        query = read_query(request, VoicesQuery)
        # llama-swap and KoboldCpp name a model, and read devnen's list.
        if (query.legacy or "").lower() in {"true", "1"} or query.model:
            return {"status": "ok", "voices": names}
        own = {voice.name: voice for voice in self.catalogue.snapshot.voices}
        voices = [
            _described(own[name])
            if name in own
            else {"id": name, "name": name, "object": "audio.voice"}
            for name in names
        ]
        if query.after is not None:
            places = [n for n, v in enumerate(voices) if query.after in {v["id"], v["name"]}]
            if not places:
                raise InvalidRequest("'after' is no voice's id.", param="after")
            voices = voices[places[0] + 1 :]
        page = voices[: query.limit]
        # Front ends that read `voices` show and store the id; OpenAI's own reads `data`.
        shown = [{**voice, "id": voice["name"]} for voice in page]
        has_more = len(page) < len(voices)
        return {"voices": shown, "object": "list", "data": page, "has_more": has_more}

    @post(
        VOICES_PATH,
        VOICE_CHANGES,
        "Make a voice from a recording",
        bodies={MULTIPART: _voice_form},
        description="The recording has 1 to 30 seconds as WAV, FLAC, MP3, OGG, M4A, AAC or WebM, "
        "at most 10 MiB. The voice's id or name may stand as `voice` everywhere.",
    )
    async def create(self, request: Request) -> Json:
        """`POST /v1/audio/voices`: a voice from a sample.

        Raises:
            InvalidRequest, RequestTooLarge, VoiceExists, QueueFull,
                LibraryUnusable.
        """
        limit_bytes = UPLOAD_LIMITS.max_bytes + FORM_OVERHEAD_BYTES
        given, files = await read_upload(self.bodies, request, limit_bytes)
        fields = parse_fields(VoiceForm, given)
        if fields.type != SAMPLE:
            raise InvalidRequest("Voices are made from an audio_sample only.", param="type")
        sample = file_of(files, SAMPLE)
        if sample is None:
            raise InvalidRequest(f"Missing required parameter: '{SAMPLE}' (a file).", param=SAMPLE)
        voice = await self.catalogue.change(
            VoiceLibrary.add,
            fields.name,
            sample.data,
            transcript=fields.transcript,
            language=fields.language,
            consent=fields.consent,
            audio_param=SAMPLE,
        )
        return _described(voice)

    @delete(f"{VOICES_PATH}/{{voice_id}}", VOICE_CHANGES, "Take a voice out")
    async def delete(self, _: Request, voice_id: str) -> Json:
        """`DELETE /v1/audio/voices/{id}`: by id or name; a second time it is not there.

        Raises:
            VoiceNotFound, QueueFull, LibraryUnusable.
        """
        voice = await self.catalogue.change(VoiceLibrary.remove, voice_id)
        return {"id": voice.id, "deleted": True, "object": "audio.voice.deleted"}


def _described(voice: LibraryVoice) -> dict[str, Any]:
    """The JSON of a library voice: OpenAI's fields, and the gateway's own."""
    return {
        "id": voice.id,
        "name": voice.name,
        "object": "audio.voice",
        "type": SAMPLE,
        "created_at": voice.created_at,
        "language": voice.language,
        "aliases": list(voice.aliases),
        "duration_seconds": voice.duration_seconds,
        "transcript": voice.transcript,
        # What stands in where the sample came without a transcript.
        "prompt_transcript": voice.prompt_transcript,
        "default": voice.is_default,
    }
