"""What the tests of the CPU voice say, and how they make it say that."""

from __future__ import annotations

import asyncio

from engines.cpu.voice import CpuVoice
from engines.voice import Job

SENTENCES = (
    "The old lighthouse keeper walked slowly down the winding stairs every single morning.",
    "Please remember to bring your umbrella, because the weather forecast promises heavy rain.",
    "My sister planted tall sunflowers beside the wooden fence behind the house.",
)
PASSAGE = " ".join(SENTENCES)


def job(text: str, preset: str | None = "en_woman", max_tokens: int = 8000, **more: object) -> Job:
    """A job as the engine's app makes it."""
    prompt = more.get("system_prompt")
    references = more.get("references", ())
    assert prompt is None or isinstance(prompt, str)
    assert isinstance(references, tuple)
    return Job(text, preset, prompt, references, max_tokens)


async def collect(voice: CpuVoice, wanted: Job) -> list[bytes]:
    """All items of one stream."""
    return [pcm async for pcm in voice.generate(wanted)]


def say(voice: CpuVoice, wanted: Job) -> bytes:
    """The whole sound of one job."""
    return b"".join(asyncio.run(collect(voice, wanted)))
