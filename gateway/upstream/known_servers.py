"""Servers that speak OpenAI's speech API, each a little wrong: one row a server, with its source.

Every row was read in the server's own code and, OpenAI's apart, seen there (tests/peers).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.upstream.capabilities import HIGGS, Capabilities, ReferenceField, scripts_of
from gateway.voices.aliases import OPENAI_VOICES

OPENAI_VOICE_NAMES = tuple(sorted(OPENAI_VOICES))
VOICES_PATH = "/v1/audio/voices"
_SPEECH_MODEL = re.compile(
    r"tts|speech|audio|kokoro|chatterbox|higgs|voice|orpheus|csm", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class KnownServer:
    """How one kind of server is asked, and what it can do.

    Attributes:
        capabilities: What it can do.
        path: Of its speech route.
        response_format: What it is asked for.
        fields: Further fields of every request.
        most_tokens_field: Name of its bound of generated tokens, or None.
        voices_path: Where it lists its voices.
        voices: What it speaks with where it lists no voices.
        keeps_voices: It has those beside the ones that it lists, too.
        lists_models: It has a list of models.
        model: What it is asked for where it lists no models.
        models: What is otherwise where its model's name matches a pattern; the first one decides.
    """

    capabilities: Capabilities
    path: str = "/v1/audio/speech"
    response_format: str = "pcm"
    fields: Mapping[str, Any] = field(default_factory=dict)
    most_tokens_field: str | None = None
    voices_path: str = VOICES_PATH
    voices: tuple[str, ...] = OPENAI_VOICE_NAMES
    keeps_voices: bool = False
    lists_models: bool = True
    model: str = "tts-1"
    models: tuple[tuple[str, Mapping[str, Any]], ...] = ()

    def serving(self, names: Sequence[str]) -> KnownServer:
        """The row for a server of these models."""
        for pattern, changes in self.models:
            if any(re.search(pattern, name, re.IGNORECASE) for name in names):
                return replace(self, capabilities=replace(self.capabilities, **changes))
        return self

    def speech_models(self, listed: Sequence[str]) -> tuple[str, ...]:
        """The models of a list that speak, as far as names tell; its own where none is listed."""
        speaking = tuple(name for name in listed if _SPEECH_MODEL.search(name))
        return speaking or tuple(listed) or (self.model,)

    def voices_beside(self, listed: Sequence[str], aliases: Mapping[str, str]) -> tuple[str, ...]:
        """The voices that it has.

        Args:
            listed: Those that it lists.
            aliases: From the settings; where it lists none, the operator's own targets are its.
        """
        if self.keeps_voices:
            return (*listed, *self.voices)
        own = [voice for name, voice in aliases.items() if voice != OPENAI_VOICES.get(name)]
        return tuple(listed or dict.fromkeys([*own, *self.voices]))


# developers.openai.com/api/reference: pcm is 24 kHz s16le and comes while it is made
OPENAI = KnownServer(
    Capabilities("openai", instructions=True, preset_in_scene=True, longest_text_characters=4096),
)
# Unknown servers are asked for WAV: its header tells the rate, and servers that know one format
# alone (travisvn's, devnen's) know this one.
GENERIC = KnownServer(Capabilities("openai-compatible"), response_format="wav")
# vllm_omni 0.30.0 entrypoints/openai/{serving_speech.py,tts_adapters}. It accepts `instructions`
# for every model, as the next one does, and most models leave them out.
VLLM_OMNI = KnownServer(
    Capabilities(
        "vllm-omni",
        references=ReferenceField.REF_AUDIO,
        most_references=1,
        preset_in_scene=True,
        seed=True,
    ),
    # The header of a streamed WAV tells the model's own rate (16, 24, 44.1 or 48 kHz), which raw
    # PCM does not; without stream_format the stream is events.
    response_format="wav",
    fields={"stream": True, "stream_format": "audio"},
    most_tokens_field="max_new_tokens",
    voices=("default",),
    models=(
        # deploy/higgs_audio_v2.yaml: max_num_seqs 4.
        (r"higgs.*v2", {"transcripts": True, "concurrency": 4}),
        (r"qwen3.?tts", {"transcripts": True, "instructions": True}),
        (r"ming|omnivoice|moss|gepard|breeze|step.?audio", {"instructions": True}),
    ),
)
# sglang_omni 0.1.9 serve/openai_api.py, models/*/request_builders.py
SGLANG_OMNI = replace(
    VLLM_OMNI,
    capabilities=replace(
        VLLM_OMNI.capabilities, engine="sglang-omni", sampling=True, longest_text_characters=4096
    ),
    response_format="pcm",  # the one that it streams, with its rate in X-Sample-Rate
    models=(
        (r"audar|dots", {"transcripts": True}),
        (r"qwen3.?tts|ming|moss|auk|cosyvoice|drama", {"instructions": True}),
    ),
)
# remsky/Kokoro-FastAPI 26eec06 api/src/routers/openai_compatible.py: pcm is 24 kHz
KOKORO_FASTAPI = KnownServer(
    Capabilities(
        "kokoro-fastapi",
        languages=("en", "es", "fr", "hi", "it", "ja", "pt", "zh"),
        scripts=scripts_of(("en", "hi", "ja", "zh")),
    ),
)
# travisvn/chatterbox-tts-api a5f4661 app/api/endpoints/speech.py
TRAVISVN = KnownServer(
    Capabilities("chatterbox-tts-api", longest_text_characters=3000),
    # /v1/audio/speech ignores response_format and sends the whole WAV; this route streams.
    path="/v1/audio/speech/stream",
    response_format="wav",
    voices_path="/voices",
    voices=("alloy",),  # as any name of OpenAI's, its default voice
    keeps_voices=True,
)
# devnen/Chatterbox-TTS-Server 68213e7 server.py: voices are file names, no models
DEVNEN = KnownServer(
    Capabilities("chatterbox-tts-server", streaming=False, seed=True),
    response_format="wav",  # it makes wav, mp3 and opus, whole
    lists_models=False,
    model="chatterbox",
)
# litellm 1.108.7: passes fields on, sends audio when all is there, lists no voices
LITELLM = KnownServer(
    Capabilities("litellm", instructions=True, preset_in_scene=True, streaming=False)
)
# docs/compatibility.md
GATEWAY = KnownServer(
    replace(
        HIGGS,
        engine="speech-gateway",
        references=ReferenceField.REFERENCES,
        most_references=8,
        seed=True,
        longest_text_characters=100_000,
    ),
    fields={"sample_rate": 24_000, "normalize": False},
)
