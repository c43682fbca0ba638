"""The voice library as travisvn/chatterbox-tts-api shows and changes it.

Presets of the engines are no voices of the library: they are listed by `/voices/all-names` and
`/v1/audio/voices`, and used by name like all others.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import StringConstraints
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.access.policy import RECORDINGS, SPEECH, VOICE_CHANGES, VOICES
from gateway.api.byte_ranges import file_response
from gateway.api.chatterbox.fields import read_form, wrong
from gateway.api.endpoint import BodyReader
from gateway.api.field_rules import LenientFields
from gateway.api.multipart import MULTIPART, file_of, form_bodies, form_schema
from gateway.api.openai_voices import FORM_OVERHEAD_BYTES
from gateway.api.routes import Json, delete, get, post, put
from gateway.voices.catalogue import VoiceCatalogue
from gateway.voices.library.config_entry import LibraryVoice
from gateway.voices.library.library import VoiceLibrary
from gateway.voices.samples.loudness import UPLOAD_LIMITS

VOICE_FILE = "voice_file"
LARGEST_UPLOAD_BYTES = UPLOAD_LIMITS.max_bytes + FORM_OVERHEAD_BYTES
CREATED = 201
ONE = "/voices/{voice_name}"
ALIASES = f"{ONE}/aliases"
LATEST_DATE = 253_402_300_799  # the end of the year 9999: dates written by hand may lie behind it

Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class Upload(LenientFields):
    """The form of a new voice."""

    voice_name: Name
    language: Annotated[str, StringConstraints(max_length=35)] = "en"
    transcript: str | None = None  # the gateway's own: what the recording says


UPLOAD_BODY = {MULTIPART: partial(form_schema, Upload, VOICE_FILE)}


class Chosen(LenientFields):
    """The form that names a voice."""

    voice_name: Name


class Renamed(LenientFields):
    """The form of a new name."""

    new_name: Name


class Alias(LenientFields):
    """The form of a further name."""

    alias: Name


def item_of(voice: LibraryVoice) -> dict[str, Any]:
    """A voice as travisvn's clients read it; no path of this machine."""
    seconds = min(voice.created_at, LATEST_DATE)
    created = dt.datetime.fromtimestamp(seconds, dt.UTC)
    filename = f"{voice.name}.wav"
    return {
        "name": voice.name,
        "filename": filename,
        "original_filename": voice.original_name or filename,
        "file_extension": ".wav",
        "file_size": voice.original_bytes,
        "upload_date": created.isoformat(),
        "path": f"/voices/{quote(voice.name)}/download",
        "language": voice.language,
        "aliases": list(voice.aliases),
        "exists": True,
        "duration_seconds": voice.duration_seconds,
        "transcript": voice.transcript,
        # What stands in where the recording came without a transcript.
        "prompt_transcript": voice.prompt_transcript,
    }


@dataclass(frozen=True, slots=True)
class TravisvnVoices:
    """The voice routes.

    Attributes:
        catalogue: All voices.
        bodies: Reads uploads.
    """

    catalogue: VoiceCatalogue
    bodies: BodyReader

    @get("/voices", VOICES, "List the voice library")
    async def list_voices(self, _: Request) -> Json:
        """`GET /voices`: the library, the newest first."""
        voices = sorted(self.catalogue.snapshot.voices, key=lambda v: v.created_at, reverse=True)
        return {"voices": [item_of(voice) for voice in voices], "count": len(voices)}

    @get("/voices/all-names", VOICES, "List every voice's names")
    async def all_names(self, _: Request) -> Json:
        """`GET /voices/all-names`: every name that may stand as `voice`."""
        names = self.catalogue.names
        return {"voice_names": names, "count": len(names)}

    @post("/voices", VOICE_CHANGES, "Make a voice from a recording", bodies=UPLOAD_BODY)
    async def upload(self, request: Request) -> Response:
        """`POST /voices`: 201, or 409 where the name is taken."""
        fields, files = await read_form(self.bodies, request, Upload, LARGEST_UPLOAD_BYTES)
        file = file_of(files, VOICE_FILE)
        if file is None:
            raise wrong("body", VOICE_FILE, "A file is required")
        voice = await self.catalogue.change(
            VoiceLibrary.add,
            fields.voice_name,
            file.data,
            transcript=fields.transcript,
            language=fields.language,
            original_name=file.name,
            audio_param=VOICE_FILE,
        )
        body = {"message": "Voice uploaded successfully", "voice": item_of(voice)}
        return JSONResponse(body, CREATED)

    @get(ONE, SPEECH, "Show a voice")
    async def show(self, _: Request, voice_name: str) -> Json:
        """`GET /voices/{name}`."""
        return {"voice": item_of(self.catalogue.snapshot.get(voice_name))}

    @get(f"{ONE}/download", RECORDINGS, "Fetch a voice's recording", produces=("audio/wav",))
    async def download(self, request: Request, voice_name: str) -> Response:
        """`GET /voices/{name}/download`: the recording as the library keeps it."""
        voice = self.catalogue.snapshot.get(voice_name)
        wav = await self.catalogue.read_audio(voice)
        filename = f"filename*=utf-8''{quote(voice.name)}.wav"
        disposition = {"Content-Disposition": f"attachment; {filename}"}
        return file_response(request, wav, "audio/wav", disposition)

    @put(ONE, VOICE_CHANGES, "Rename a voice", bodies=form_bodies(Renamed))
    async def rename(self, request: Request, voice_name: str) -> Json:
        """`PUT /voices/{name}`."""
        fields, _ = await read_form(self.bodies, request, Renamed, FORM_OVERHEAD_BYTES)
        voice = await self.catalogue.change(VoiceLibrary.rename, voice_name, fields.new_name)
        return {
            "message": "Voice renamed successfully",
            "old_name": voice_name,
            "new_name": voice.name,
        }

    @delete(ONE, VOICE_CHANGES, "Take a voice out")
    async def remove(self, _: Request, voice_name: str) -> Json:
        """`DELETE /voices/{name}`."""
        voice = await self.catalogue.change(VoiceLibrary.remove, voice_name)
        return {"message": "Voice deleted successfully", "voice_name": voice.name}

    @get(ALIASES, SPEECH, "List a voice's other names")
    async def list_aliases(self, _: Request, voice_name: str) -> Json:
        """`GET /voices/{name}/aliases`."""
        voice = self.catalogue.snapshot.get(voice_name)
        aliases = list(voice.aliases)
        return {"voice_name": voice.name, "aliases": aliases, "count": len(aliases)}

    @post(ALIASES, VOICE_CHANGES, "Give a voice another name", bodies=form_bodies(Alias))
    async def add_alias(self, request: Request, voice_name: str) -> Response:
        """`POST /voices/{name}/aliases`."""
        fields, _ = await read_form(self.bodies, request, Alias, FORM_OVERHEAD_BYTES)
        voice = await self.catalogue.change(VoiceLibrary.add_alias, voice_name, fields.alias)
        return JSONResponse(
            {
                "message": "Alias added successfully",
                "voice_name": voice.name,
                "alias": voice.aliases[-1],
                "aliases": list(voice.aliases),
            },
            CREATED,
        )

    @delete(f"{ALIASES}/{{alias}}", VOICE_CHANGES, "Take another name away")
    async def remove_alias(self, _: Request, voice_name: str, alias: str) -> Json:
        """`DELETE /voices/{name}/aliases/{alias}`."""
        voice = await self.catalogue.change(VoiceLibrary.remove_alias, voice_name, alias)
        return {
            "message": "Alias removed successfully",
            "voice_name": voice.name,
            "alias": alias,
            "aliases": list(voice.aliases),
        }

    def _no_default(self) -> dict[str, Any]:
        """The default where the library sets none: the gateway's own setting."""
        return {
            "default_voice": None,
            "source": "file_system",
            "path": self.catalogue.default,
        }

    @get("/voices/default", SPEECH, "Show the default voice")
    async def show_default(self, _: Request) -> Json:
        """`GET /voices/default`."""
        voice = self.catalogue.snapshot.default
        if voice is None:
            return {**self._no_default(), "voice_info": None}
        return {
            "default_voice": voice.name,
            "source": "voice_library",
            "voice_info": item_of(voice),
        }

    @post("/voices/default", VOICE_CHANGES, "Choose the default voice", bodies=form_bodies(Chosen))
    async def set_default(self, request: Request) -> Json:
        """`POST /voices/default`."""
        fields, _ = await read_form(self.bodies, request, Chosen, FORM_OVERHEAD_BYTES)
        await self.catalogue.change(VoiceLibrary.set_default, fields.voice_name)
        voice = self.catalogue.snapshot.get(fields.voice_name)
        return {
            "message": "Default voice updated successfully",
            "default_voice": voice.name,
            "voice_info": item_of(voice),
        }

    @delete("/voices/default", VOICE_CHANGES, "Choose none")
    async def reset_default(self, _: Request) -> Json:
        """`DELETE /voices/default`."""
        await self.catalogue.change(VoiceLibrary.set_default, None)
        message = {"message": "Default voice reset to system default"}
        return {**message, **self._no_default()}

    @post("/voices/cleanup", VOICE_CHANGES, "Delete unused files")
    async def clean_up(self, _: Request) -> Json:
        """`POST /voices/cleanup`: delete files that no voice needs any more."""
        removed = await self.catalogue.change(VoiceLibrary.purge, unnamed=True)
        return {"message": "Cleanup completed", "removed_voices": removed, "count": len(removed)}
