"""What an engine's voice gets and gives: the seam between the contract's HTTP and the sound.

The HTTP app parses and validates; a `Voice` turns a `Job` into PCM, token by token.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

SAMPLE_RATE_HZ = 24_000
TOKENS_PER_SECOND = 25
SAMPLES_PER_TOKEN = 960
BYTES_PER_TOKEN = 1920  # CONTRACT.md section 2: 960 samples of s16le
PRESETS = (  # CONTRACT.md section 1, GET /v1/audio/voices
    "belinda",
    "broom_salesman",
    "chadwick",
    "en_man",
    "en_woman",
    "mabel",
    "vex",
    "zh_man_sichuan",
)


@dataclass(frozen=True, slots=True)
class Job:
    """One generation.

    Attributes:
        text: What to say; may hold `[SPEAKERn]` turns.
        preset: One of the engine's presets, or None (chat: the prompt decides).
        system_prompt: Scene prompt, or None.
        references: (transcript, audio file bytes) pairs in order.
        max_tokens: Bound of tokens, the 11 of overhead included.
        temperature, top_p, top_k: Sampling, as validated.
        request_id: The engine's own id for it.
    """

    text: str = field(repr=False)
    preset: str | None
    system_prompt: str | None
    references: tuple[tuple[str, bytes], ...]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 0.95
    top_k: int = 50
    request_id: str = ""


class UnspeakableError(Exception):
    """The voice has no sound for this text; the app answers 400 (flat envelope, as all of its 400s)."""


class Voice(Protocol):
    """A maker of audio. One instance serves all requests of the process."""

    model_id: str
    presets: tuple[str, ...]

    async def start(self) -> None:
        """Load and warm up; called once before the first request."""

    async def stop(self) -> None:
        """Release threads and memory; called once at the end."""

    def generate(self, job: Job) -> AsyncIterator[bytes]:
        """Yield PCM (s16le mono 24 kHz) in whole audio tokens: every item is a multiple of 1,920 bytes.

        Closing the iterator early (client gone) stops the work at once.

        Raises:
            UnspeakableError: Before the first item, when nothing in the text can be said.
        """
        ...
