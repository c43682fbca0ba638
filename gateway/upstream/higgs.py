"""The dialect of the Higgs Audio v2 container: its speech route for presets, its chat route else.

The speech route knows preset voices but no scene; the chat route takes scenes, references and
dialogue but no preset. Both are asked for raw PCM in a stream (docs/contract.md sections 2, 4).
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from gateway.text.prompt import DEFAULT_SYSTEM_PROMPT
from gateway.upstream.capabilities import HIGGS, told_capabilities
from gateway.upstream.detection import Answers, Found
from gateway.upstream.dialect import Call, Generation, Sampling
from gateway.upstream.parsers import ChatParser, SpeechParser

# The speech route stops at these by itself, the chat route only when told
# (docs/contract.md section 2).
STOP = ("<|eot_id|>", "<|end_of_text|>", "<|audio_eos|>")


def _sampling_fields(sampling: Sampling, *, takes_seed: bool) -> dict[str, Any]:
    """The engine's own defaults, said aloud so that both routes sample alike."""
    fields = {
        "temperature": 1.0 if sampling.temperature is None else sampling.temperature,
        "top_p": 0.95 if sampling.top_p is None else sampling.top_p,
        "top_k": 50 if sampling.top_k is None else sampling.top_k,
    }
    if takes_seed and sampling.seed is not None:
        fields["seed"] = sampling.seed
    return fields


def needs_chat(generation: Generation) -> bool:
    """Whether only the chat route can say this."""
    return (
        generation.voice is None
        or generation.system_prompt is not None
        or bool(generation.references)
    )


@dataclass(frozen=True, slots=True)
class HiggsDialect:
    """Builds calls for `bosonai/higgs-audio-vllm` and engines that honour its contract.

    Attributes:
        takes_seed: The engine has one; the container warns of every field that it does not know.
    """

    takes_seed: bool = False

    def call(self, generation: Generation, model: str) -> Call:
        """Choose the route that can say this generation and build its request."""
        if needs_chat(generation):
            return self._chat(generation, model)
        return self._speech(generation, model)

    def _speech(self, generation: Generation, model: str) -> Call:
        body = {
            "model": model,
            "input": generation.text,
            "voice": generation.voice,
            "response_format": "pcm",
            "max_tokens": generation.max_tokens,
            "audio_chunk_size": generation.chunking.size_tokens,
            "audio_chunk_overlap_size": generation.chunking.overlap_tokens,
            **_sampling_fields(generation.sampling, takes_seed=self.takes_seed),
        }
        # A tenth of json.dumps' cost; it refuses lone surrogates, which a text has not, but a
        # recording's transcript may have.
        return Call("/v1/audio/speech", to_json(body), SpeechParser())

    def _chat(self, generation: Generation, model: str) -> Call:
        size, overlap = generation.chunking.size_tokens, generation.chunking.overlap_tokens
        body = {
            "model": model,
            "messages": self._messages(generation),
            "modalities": ["text", "audio"],
            # The voice must be an OpenAI name and is not used; the format is ignored in streams.
            # The image of July 2025 knows the short names of the knobs, and each image ignores the
            # other's (docs/contract.md section 4).
            "audio": {
                "format": "wav",
                "voice": "alloy",
                "audio_chunk_size": size,
                "audio_chunk_overlap_size": overlap,
                "chunk_size": size,
                "chunk_overlap_size": overlap,
            },
            "max_completion_tokens": generation.max_tokens,
            "stop": list(STOP),
            "stream": True,
            **_sampling_fields(generation.sampling, takes_seed=self.takes_seed),
        }
        return Call("/v1/chat/completions", json.dumps(body).encode(), ChatParser())

    def _messages(self, generation: Generation) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": generation.system_prompt or DEFAULT_SYSTEM_PROMPT}
        ]
        for reference in generation.references:
            audio = base64.b64encode(reference.wav).decode()
            # Inline audio only: an `audio_url` would make the engine fetch what a client names.
            part = {"type": "input_audio", "input_audio": {"data": audio, "format": "wav"}}
            messages += [
                {"role": "user", "content": reference.transcript},
                {"role": "assistant", "content": [part]},
            ]
        messages.append({"role": "user", "content": generation.text})
        return messages


def recognise_higgs(address: str, answers: Answers, *, named: bool) -> Found | None:
    """The container, or an engine that honours its contract; see `Recognise`."""
    del address
    told = answers.capabilities
    if isinstance(told, dict) and "sample_rate_hz" in told and "max_model_len" in told:
        can, why = told_capabilities(told), "it tells its capabilities"
    elif isinstance(answers.voices, list):
        can, why = HIGGS, "its list of voices is a bare array"
    elif named:
        can, why = HIGGS, "the settings say so"
    else:
        return None
    return Found(HiggsDialect(takes_seed=can.seed), can, why)
