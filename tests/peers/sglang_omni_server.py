"""Runs SGLang-Omni's API server with its pipeline replaced: `python sglang_omni_server.py PORT`.

Real: the application, its checks (as for Higgs), its client, the encoding of audio and what happens
when a client leaves. Replaced: the coordinator of the stages.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from tests.peers.stand_ins import RATE_HZ, seconds_of, stand_in, tone

PIECE_SECONDS = 1.0


class Coordinator:
    """The part of the coordinator that the HTTP code uses."""

    def __init__(self, chunk: Any) -> None:
        self._chunk = chunk
        self._aborted: set[str] = set()

    def health(self) -> dict[str, Any]:
        """All is well."""
        return {"running": True}

    async def stream(self, request_id: str, request: Any) -> AsyncIterator[Any]:
        """Make audio in pieces."""
        print(f"PEER begin {request_id}", flush=True)
        left = seconds_of(str(text_of(request.inputs)))
        while left > 0 and request_id not in self._aborted:
            audio = (await asyncio.to_thread(tone, min(left, PIECE_SECONDS))).numpy()
            yield SimpleNamespace(result=self._made(request_id, audio))
            left -= PIECE_SECONDS
        # The terminal chunk holds all of the audio again, or none.
        yield SimpleNamespace(result=self._made(request_id, None, "stop"))
        print(f"PEER end {request_id}", flush=True)

    async def submit(self, request_id: str, request: Any) -> Any:
        """Make all of it."""
        parts = [item.result.audio_data async for item in self.stream(request_id, request)][:-1]
        audio = importlib.import_module("numpy").concatenate(parts) if parts else None
        return self._made(request_id, audio, "stop")

    def _made(self, request_id: str, audio: Any, finish_reason: str | None = None) -> Any:
        return self._chunk(
            request_id,
            modality="audio",
            audio_data=audio,
            sample_rate=RATE_HZ,
            finish_reason=finish_reason,
        )

    async def abort(self, request_id: str) -> bool:
        """Note that a client left."""
        print(f"PEER abort {request_id}", flush=True)
        self._aborted.add(request_id)
        return True


def text_of(inputs: Any) -> Any:
    """The text among a pipeline's inputs."""
    return inputs.get("text") or inputs.get("input") if isinstance(inputs, dict) else inputs


def serve(port: str) -> None:
    """Run the application that `create_app` makes."""
    stand_in("torchvision", "torchaudio", "sglang", "flashinfer", "diffusers")
    server = importlib.import_module("sglang_omni.serve.openai_api")
    types = importlib.import_module("sglang_omni.client.types")
    client = server.Client(Coordinator(types.GenerateChunk), lambda _, result: result)
    app = server.create_app(
        client,
        model_name="stand-in/higgs-audio-v3",
        requires_uploaded_voice_for_named_voice=True,  # models/higgs_tts/config.py
    )
    importlib.import_module("uvicorn").run(app, port=int(port))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    serve(sys.argv[1])
