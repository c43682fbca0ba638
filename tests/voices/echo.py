"""An engine that says nothing but the recording of the voice that it was asked for.

It speaks the container's contract, reads a presets folder as the container does, and answers an
unknown name with the folder's first voice: whoever hears a wrong voice hears other samples.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile

from engines.server.app import Engine, EngineOptions, create_engine_app
from engines.server.presets import PresetFolder
from engines.voice import BYTES_PER_TOKEN, Job, Voice
from tests.engines.serving import serving
from tests.voices.recordings import tone, wav

PIECE_BYTES = 5 * BYTES_PER_TOKEN
PIECE_SECONDS = 0.01


def pcm_of(file: bytes) -> bytes:
    """A recording as the engine says it: whole audio tokens of s16le, 24 kHz mono."""
    samples, _ = soundfile.read(io.BytesIO(file), dtype="int16")
    pcm = np.asarray(samples, "<i2").tobytes()
    return pcm[: len(pcm) // BYTES_PER_TOKEN * BYTES_PER_TOKEN]


class EchoVoice(Voice):
    """Says the first reference; without one, a tone."""

    model_id = "echo"
    presets: tuple[str, ...] = ("built_in",)
    running = 0
    aborted_total = 0
    audio_tokens_total = 0

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    async def start(self) -> None:
        """Nothing to load."""

    async def stop(self) -> None:
        """Nothing to release."""

    async def generate(self, job: Job) -> AsyncGenerator[bytes, None]:
        """The recording, in pieces."""
        self.jobs.append(job)
        pcm = pcm_of(job.references[0][1] if job.references else wav(tone(3.0, 24_000)))
        for start in range(0, len(pcm), PIECE_BYTES):
            yield pcm[start : start + PIECE_BYTES]
            await asyncio.sleep(PIECE_SECONDS)


class EchoEngine(Engine):
    """The routes around the voice; remembers by which route a voice came."""

    voice: EchoVoice

    def __init__(self, folder: Path | None) -> None:
        presets = PresetFolder(folder) if folder else None
        super().__init__(EchoVoice(), EngineOptions(presets=presets))


@contextmanager
def running_echo(folder: Path | None = None) -> Iterator[tuple[str, EchoVoice]]:
    """The engine on a loopback port: its address and its voice."""
    engine = EchoEngine(folder)
    with serving(create_engine_app(engine)) as address:
        yield address, engine.voice
