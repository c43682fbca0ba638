"""The dialect of OpenAI's speech API, for every server that speaks it.

What a server takes beyond OpenAI's fields stands in its row of `known_servers`; what it answers is
read by `AudioParser`, whatever it calls it.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from gateway.text.prompt import scene_of
from gateway.upstream.audio_parser import AudioParser, Decode
from gateway.upstream.capabilities import ReferenceField
from gateway.upstream.dialect import Call, Generation
from gateway.upstream.known_servers import KnownServer


class OpenAIDialect:
    """Builds calls for one kind of server.

    Args:
        server: Its row.
        decode: Turns a compressed file into s16le mono and its rate.
    """

    def __init__(self, server: KnownServer, decode: Decode) -> None:
        self.server = server
        self._decode = decode

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
        parser = AudioParser(can.sample_rate_hz, self._decode)
        return Call(server.path, json.dumps(body).encode(), parser)

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
