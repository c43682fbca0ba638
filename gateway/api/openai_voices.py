"""OpenAI's custom voices: the voice library under `/v1/audio/voices`.

Lists stay what voice pickers read (`voices` with id and name); a voice is made from a sample and
a name, and its id or its name may stand as `voice` in every request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.access.policy import VOICE_CHANGES, VOICES
from gateway.api.endpoint import BodyReader
from gateway.api.error_bodies import OPENAI
from gateway.api.field_rules import LenientFields
from gateway.api.multipart import MULTIPART, Form, file_of, read_upload
from gateway.api.routes import Route
from gateway.api.schemas import read_query
from gateway.errors import InvalidRequest
from gateway.voices.catalogue import VoiceCatalogue
from gateway.voices.library.config_entry import LibraryVoice
from gateway.voices.library.library import VoiceLibrary
from gateway.voices.samples.loudness import UPLOAD_LIMITS

FORM_OVERHEAD_BYTES = 64 * 1024  # the form's other fields and its boundaries
MOST_LISTED = 1000
SAMPLE = "audio_sample"

_VOICE_FORM = {
    "type": "object",
    "required": ["name", SAMPLE],
    "properties": {
        "name": {"type": "string", "description": "Letters, digits, spaces and . _ -"},
        SAMPLE: {
            "type": "string",
            "format": "binary",
            "description": "1 to 30 seconds as WAV, FLAC, MP3, OGG, M4A, AAC or WebM; at most "
            "10 MiB.",
        },
        "transcript": {"type": "string", "description": "What the recording says."},
        "language": {"type": "string", "default": "en", "description": "Its language tag."},
        "consent": {"type": "string", "description": "Stored with the voice, and not judged."},
    },
}


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

    def routes(self) -> list[Route]:
        """What this part of the surface answers."""
        voices, one = "/v1/audio/voices", "/v1/audio/voices/{voice_id}"
        return [
            Route(
                "GET",
                voices,
                self.list_voices,
                OPENAI,
                VOICES,
                "List the voices",
                query=VoicesQuery,
            ),
            Route(
                "POST",
                voices,
                self.create,
                OPENAI,
                VOICE_CHANGES,
                "Make a voice from a recording",
                bodies={MULTIPART: _VOICE_FORM},
                description="Its id or its name may stand as `voice` in every request. Needs the "
                "setting GATEWAY_VOICES_DIR.",
            ),
            Route("DELETE", one, self.delete, OPENAI, VOICE_CHANGES, "Take a voice out"),
        ]

    async def list_voices(self, request: Request) -> Response:
        """`GET /v1/audio/voices`: objects, or strings with `?legacy=true` or `?model=`."""
        names = self.catalogue.names
        query = read_query(request, VoicesQuery)
        # llama-swap and KoboldCpp name a model, and read devnen's list.
        if (query.legacy or "").lower() in {"true", "1"} or query.model:
            return JSONResponse({"status": "ok", "voices": names})
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
        return JSONResponse({"voices": shown, "object": "list", "data": page, "has_more": has_more})

    async def create(self, request: Request) -> Response:
        """`POST /v1/audio/voices`: a voice from a sample.

        Raises:
            InvalidRequest, RequestTooLarge, VoiceExists, QueueFull,
                LibraryUnusable.
        """
        limit_bytes = UPLOAD_LIMITS.max_bytes + FORM_OVERHEAD_BYTES
        form = await read_upload(self.bodies, request, limit_bytes)
        if form.fields.get("type", SAMPLE) != SAMPLE:
            raise InvalidRequest("Voices are made from an audio_sample only.", param="type")
        sample = file_of(form.files, SAMPLE)
        if sample is None:
            raise InvalidRequest(f"Missing required parameter: '{SAMPLE}' (a file).", param=SAMPLE)
        transcript = _text(form, "transcript") or _text(form, "ref_text")
        voice = await self.catalogue.change(
            VoiceLibrary.add,
            _text(form, "name") or "",
            sample.data,
            transcript=transcript,
            language=_text(form, "language") or "en",
            consent=_text(form, "consent"),
            reserved=self.catalogue.presets,
            audio_param=SAMPLE,
        )
        return JSONResponse(_described(voice))

    async def delete(self, request: Request) -> Response:
        """`DELETE /v1/audio/voices/{id}`: by id or name; a second time it is not there.

        Raises:
            VoiceNotFound, QueueFull, LibraryUnusable.
        """
        voice = await self.catalogue.change(VoiceLibrary.remove, request.path_params["voice_id"])
        return JSONResponse({"id": voice.id, "deleted": True, "object": "audio.voice.deleted"})


def _text(form: Form, name: str) -> str | None:
    value = form.fields.get(name)
    return value if isinstance(value, str) else None


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
