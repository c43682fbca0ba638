"""devnen/Chatterbox-TTS-Server around `/tts`: voices, uploads, and what its user interface asks.

Its files are the voice library's voices, named with `.wav`; its settings are the operator's here,
so the routes that change them answer with success and change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.access.policy import SPEECH, VOICE_CHANGES, VOICES
from gateway.api.chatterbox.fields import wrong
from gateway.api.chatterbox.travisvn.about import DEVICE, LANGUAGES, NEUTRAL
from gateway.api.endpoint import BodyReader
from gateway.api.multipart import MULTIPART, read_upload
from gateway.api.openai_voices import FORM_OVERHEAD_BYTES
from gateway.api.routes import Handler, Json, get, post
from gateway.audio.pcm import ENGINE_SAMPLE_RATE_HZ
from gateway.errors import GatewayError, UnsupportedContentType, VoiceExists
from gateway.text.normalise import EVENT_TAGS
from gateway.upstream.pool import Pool
from gateway.voices.aliases import without_ending
from gateway.voices.catalogue import VoiceCatalogue
from gateway.voices.library.library import VoiceLibrary
from gateway.voices.name_rules import name_of_content, name_of_file, printable
from gateway.voices.samples.loudness import LONGEST_SECONDS, UPLOAD_LIMITS

ENDINGS = (".wav", ".mp3")  # of what may be uploaded
MOST_FILES = 3  # in one upload: each is decoded at once, and may be 10 MiB
FILES = "files"
BAD_REQUEST = 400
_UPLOAD_FORM = {
    "type": "object",
    "required": [FILES],
    "properties": {
        FILES: {"type": "array", "items": {"type": "string", "format": "binary"}},
    },
}
_uploads = partial(
    post, group=VOICE_CHANGES, summary="Make voices", bodies={MULTIPART: _UPLOAD_FORM}
)
UNCHANGED = "The operator's settings stand; nothing was changed."


@dataclass(frozen=True, slots=True)
class DevnenServer:
    """Everything of devnen's but speech.

    Attributes:
        catalogue: All voices.
        pool: The engines.
        bodies: Reads uploads.
    """

    catalogue: VoiceCatalogue
    pool: Pool
    bodies: BodyReader

    @get("/get_predefined_voices", VOICES, "List presets and voices")
    async def predefined_voices(self, _: Request) -> list[dict[str, str]]:
        """`GET /get_predefined_voices`: the engines' presets and the library's voices."""
        own = [voice.name for voice in self.catalogue.snapshot.voices]
        presets = self.catalogue.library.presets
        names = sorted({*own, *presets}, key=str.lower)
        return [{"display_name": _shown(name), "filename": f"{name}.wav"} for name in names]

    @get("/v1/audio/voices", VOICES, "List voices' names")
    async def names(self, request: Request) -> Json:
        """`GET /v1/audio/voices`, where OpenAI's surface does not answer it: for llama-swap."""
        voices = await self.predefined_voices(request)
        return {"status": "ok", "voices": [voice["filename"] for voice in voices]}

    @get("/get_reference_files", VOICES, "List the voice library")
    async def reference_files(self, _: Request) -> list[str]:
        """`GET /get_reference_files`: the library's voices."""
        return sorted(f"{voice.name}.wav" for voice in self.catalogue.snapshot.voices)

    @_uploads("/upload_reference")
    async def upload_references(self, request: Request) -> Response:
        """`POST /upload_reference`."""
        return await self._answer("all_reference_files", self.reference_files, request)

    @_uploads("/upload_predefined_voice")
    async def upload_voices(self, request: Request) -> Response:
        """`POST /upload_predefined_voice`."""
        return await self._answer("all_predefined_voices", self.predefined_voices, request)

    async def _answer(self, key: str, listed: Handler, request: Request) -> Response:
        uploaded, errors = await self._upload(request)
        message = f"Processed {len(uploaded) + len(errors)} file(s)."
        if not uploaded:  # its page shows nothing else then
            message = " ".join([message, *(f"{e['filename']}: {e['error']}" for e in errors)])
        body = {
            "message": message,
            "uploaded_files": uploaded,
            key: await listed(request),
            "errors": errors,
        }
        return JSONResponse(body, 200 if uploaded else BAD_REQUEST)

    async def _upload(self, request: Request) -> tuple[list[str], list[dict[str, str]]]:
        """Add a form's files to the library: what became voices, and what did not and why.

        Raises:
            GatewayError: Nothing of it can be read, or there is no library.
        """
        limit_bytes = MOST_FILES * (UPLOAD_LIMITS.max_bytes + FORM_OVERHEAD_BYTES)
        _, given = await read_upload(self.bodies, request, limit_bytes)
        files = [file for file in given if file.field == FILES]
        if not files:
            raise wrong("body", FILES, "A file is required")
        uploaded, errors = [], []
        for file in files:
            try:
                uploaded.append(await self._add(file.name, file.data))
            except GatewayError as error:
                shown = printable(file.name) or "Unknown"
                errors.append({"filename": shown, "error": error.message})
        return uploaded, errors

    async def _add(self, filename: str, data: bytes) -> str:
        """Make a voice of one file; one that has a voice already is left as it is.

        Returns:
            What the file is called from now on.

        Raises:
            GatewayError: It cannot be a voice.
        """
        filename = filename.strip()
        if not filename.lower().endswith(ENDINGS):
            raise UnsupportedContentType("Invalid file type. Only .wav and .mp3 are allowed.")
        name = name_of_file(filename, data)
        try:
            voice = await self.catalogue.change(
                VoiceLibrary.add,
                name,
                data,
                original_name=filename,
            )
        except VoiceExists:
            found = self.catalogue.snapshot.find(name)
            # Of two files whose names are cleaned to the same, the second is not the first, unless
            # the name is made of what they contain.
            same = name in {without_ending(filename), name_of_content(data)}
            if found is None or not (same or printable(filename) == found.original_name):
                raise
            return f"{found.name}.wav"
        return f"{voice.name}.wav"

    @get("/api/model-info", SPEECH, "Show the model")
    async def model_info(self, _: Request) -> Json:
        """`GET /api/model-info`."""
        pool = self.pool
        return {
            "loaded": pool.ready,
            "type": "multilingual",
            "class_name": pool.models[0] if pool.models else None,
            "device": DEVICE,
            "sample_rate": ENGINE_SAMPLE_RATE_HZ,
            "supports_paralinguistic_tags": True,
            "available_paralinguistic_tags": [tag.strip("[]") for tag in EVENT_TAGS],
            "supports_multilingual": True,
            "supported_languages": LANGUAGES,
        }

    @get("/api/ui/initial-data", SPEECH, "What a user interface begins with")
    async def initial_data(self, request: Request) -> Json:
        """`GET /api/ui/initial-data`: SillyTavern's question whether there is a server."""
        return {
            "config": self._config(request),
            "reference_files": await self.reference_files(request),
            "predefined_voices": await self.predefined_voices(request),
            "presets": [],
            "initial_gen_result": {
                "outputUrl": None,
                "filename": None,
                "genTime": None,
                "submittedVoiceMode": None,
                "submittedPredefinedVoice": None,
                "submittedCloneFile": None,
            },
            "model_info": await self.model_info(request),
        }

    def _config(self, request: Request) -> dict[str, Any]:
        # Pages choose it in their list of voices, where an alias would be nothing.
        name = self.catalogue.default_name
        default = name and f"{name}.wav"
        return {
            # As this client sees it, which need not be where the process listens.
            "server": {"host": request.url.hostname, "port": request.url.port},
            "model": {"repo_id": next(iter(self.pool.models), None)},
            "tts_engine": {"device": DEVICE, "default_voice_id": default},
            "generation_defaults": {**NEUTRAL, "seed": 0, "speed_factor": 1.0, "language": "en"},
            "audio_output": {
                "format": "wav",
                "sample_rate": ENGINE_SAMPLE_RATE_HZ,
                "max_reference_duration_sec": int(LONGEST_SECONDS),
            },
            "ui_state": {
                "last_text": "",
                "last_voice_mode": "predefined",
                "last_predefined_voice": default,
                "last_reference_file": None,
                "last_chunk_size": 120,
                "last_split_text_enabled": True,
            },
        }

    @post("/save_settings", SPEECH, "Changes nothing")
    @post("/reset_settings", SPEECH, "Changes nothing")
    @post("/restart_server", SPEECH, "Changes nothing")
    @post("/api/unload", SPEECH, "Changes nothing")
    async def unchanged(self, _: Request) -> Json:
        """`POST /save_settings` and the like: nothing happens, and nothing that is sent is read."""
        return {"message": UNCHANGED, "restart_needed": False}


def _shown(name: str) -> str:
    """A preset's name for people: `broom_salesman` is Broom Salesman."""
    words = name.replace("_", " ")
    return words.title() if words.islower() else words
