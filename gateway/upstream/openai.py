"""The dialect of OpenAI's speech API, for every server that speaks it.

What a server takes beyond OpenAI's fields stands in its row of `known_servers`; what it answers is
read by `AudioParser`, whatever it calls it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gateway.text.prompt import scene_of
from gateway.upstream import known_servers as known
from gateway.upstream.audio_parser import AudioParser
from gateway.upstream.capabilities import ReferenceField
from gateway.upstream.detection import ALIVE_PATH, Answers, Found
from gateway.upstream.dialect import Call, Generation
from gateway.upstream.known_servers import KnownServer

LITELLM_ALIVE = "I'm alive!"
_OWNERS: Mapping[str, KnownServer] = {
    "sglang-omni": known.SGLANG_OMNI,
    "kokoro": known.KOKORO_FASTAPI,
    "resemble-ai": known.TRAVISVN,
    "vllm": known.VLLM_OMNI,
}


@dataclass(frozen=True, slots=True)
class OpenAIDialect:
    """Builds calls for one kind of server.

    Attributes:
        server: Its row.
    """

    server: KnownServer

    def call(self, generation: Generation, model: str) -> Call:
        """Build the request for one generation."""
        server, can = self.server, self.server.capabilities
        body: dict[str, Any] = {
            "model": model,
            "input": generation.text,
            "response_format": server.response_format,
            **server.fields,
        }
        if generation.voice is not None:
            body["voice"] = generation.voice
        if generation.system_prompt is not None and can.scene:
            body["system_prompt"] = generation.system_prompt
        elif generation.system_prompt is not None and can.instructions:
            body["instructions"] = scene_of(generation.system_prompt)
        body |= self._references(generation)
        sampling = generation.sampling
        if can.sampling:
            body |= _given(
                temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k
            )
        if can.seed:
            body |= _given(seed=sampling.seed)
        if server.most_tokens_field is not None:
            body[server.most_tokens_field] = generation.max_tokens
        return Call(server.path, json.dumps(body).encode(), AudioParser())

    def _references(self, generation: Generation) -> dict[str, Any]:
        """The recordings, where this server takes them.

        They travel as data alone: an address would be fetched by the server.
        """
        recordings = [
            (
                "data:audio/wav;base64," + base64.b64encode(reference.wav).decode(),
                reference.transcript,
            )
            for reference in generation.references
        ]
        match self.server.capabilities.references:
            case ReferenceField.REF_AUDIO if recordings:
                url, words = recordings[0]
                return {"ref_audio": url, **_given(ref_text=words or None)}
            case ReferenceField.REFERENCES if recordings:
                return {"references": [{"audio": url, "text": words} for url, words in recordings]}
        return {}


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def recognise_openai(address: str, answers: Answers, *, named: bool) -> Found | None:
    """A server that is known, or any that lists models or voices; see `Recognise`."""
    server, why = _known_server(address, answers)
    if server is known.VLLM_OMNI and not named and not isinstance(answers.voices, dict):
        return None  # the container and a vLLM without speech name the same owner
    if server is None and (named or _lists(answers.models) or _lists(answers.voices)):
        server, why = known.GENERIC, "it speaks OpenAI's API and is no server that is known"
    if server is None:
        return None
    server = server.serving(tuple(answers.told_of_models("id", "root")))
    return Found(OpenAIDialect(server), server.capabilities, why, server)


def _known_server(address: str, answers: Answers) -> tuple[KnownServer | None, str]:
    index, voices = answers.index, answers.voices
    if (urlsplit(address).hostname or "") == "api.openai.com":
        return known.OPENAI, "its address"
    if isinstance(index, dict) and index.get("name") == "speech-gateway":
        return known.GATEWAY, "its index page"
    if answers.alive == LITELLM_ALIVE:
        return known.LITELLM, f"it answers {ALIVE_PATH}"
    for owner in answers.told_of_models("owned_by"):
        if owner in _OWNERS:
            return _OWNERS[owner], f"its models are owned by {owner!r}"
    if answers.models is None and isinstance(voices, dict) and voices.get("status") == "ok":
        return known.DEVNEN, "it lists voices with a status and has no list of models"
    return None, ""


def _lists(answer: Any) -> bool:
    keys = ("data", "voices")
    return isinstance(answer, dict) and any(isinstance(answer.get(key), list) for key in keys)
