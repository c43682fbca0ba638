"""The seam between the straight line and an engine's wire protocol.

A dialect turns a `Generation` into one HTTP call and names the parser of its answer; neither side
does any I/O. Which dialects there are stands in `dialects.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gateway import value
from gateway.audio.pcm import ENGINE_SAMPLE_RATE_HZ
from gateway.audio.wraparound import WraparoundRepair

SAMPLES_PER_TOKEN = 960  # docs/contract.md section 2
SAFE_OVERLAP_TOKENS = 11  # smaller overlaps lose frames, same section


@value
class Sampling:
    """The engine's sampling fields; None leaves the engine's default.

    Attributes:
        temperature: 0 or more.
        top_p: In (0, 1].
        top_k: 1 or more, or -1 for all.
        max_tokens: Upper bound of audio tokens, 25 a second; the gateway's own bound may be lower.
        seed: For engines that have one; ignored by the others.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """A voice sample that the engine shall imitate.

    Attributes:
        wav: A complete WAV file, 24 kHz mono s16, measured and bounded before it got here.
        transcript: What is said in it; may be empty.
    """

    wav: bytes = field(repr=False)
    transcript: str = field(repr=False)

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return len(self.wav) / (2 * ENGINE_SAMPLE_RATE_HZ)


@dataclass(frozen=True, slots=True)
class Chunking:
    """How much audio the upstream shall gather before it sends a chunk.

    Attributes:
        size_tokens: Audio tokens of a chunk, 8 or more.
        overlap_tokens: Tokens decoded again for the join, 11 or more.
    """

    size_tokens: int
    overlap_tokens: int

    @property
    def first_chunk_samples(self) -> int:
        """Samples in the first chunk of an answer that is not over by then."""
        return (self.size_tokens - 8) * SAMPLES_PER_TOKEN


# With size s and overlap o a player that starts at the first chunk does not starve while the
# engine makes 25 (s + o - 14) / (s - 8) tokens a second: 53, 32 and 50 for these profiles.
PROFILES = {
    "standard": Chunking(25, 25),
    "balanced": Chunking(25, SAFE_OVERLAP_TOKENS),
    "low_latency": Chunking(13, SAFE_OVERLAP_TOKENS),
}
BUFFERED = Chunking(250, 25)  # the largest chunks of a whole answer: fewer joins


@value
class Generation:
    """One piece of speech to be made by one upstream call.

    Attributes:
        text: What to say, sanitised.
        voice: A preset that the upstream lists, or None.
        system_prompt: The whole scene prompt, sanitised, or None for the engine's own.
        references: Voice samples in order.
        sampling: The engine's knobs.
        max_tokens: Bound of the generation, the 11 tokens of overhead included.
        chunking: How the answer shall be cut.
        prompt_tokens: At most so many tokens of context are taken by the prompt, the text included;
            0 where it is surely short.
        model: A model that an upstream lists, or None for the configured or the first one.
        goes_on: It goes on with an answer that has begun, which a drain must not cut.
    """

    text: str = field(repr=False)
    voice: str | None
    system_prompt: str | None = field(repr=False)
    references: tuple[Reference, ...]
    sampling: Sampling
    max_tokens: int
    chunking: Chunking
    prompt_tokens: int = 0
    model: str | None = None
    goes_on: bool = False


class Parser(Protocol):
    """Turns the bytes of an answer into PCM, without I/O."""

    @property
    def wraparound(self) -> WraparoundRepair | None:
        """What repaired samples above full scale; None where the engine clips them."""

    @property
    def finish_blocks(self) -> bool:
        """Whether `finish` takes long: it belongs into a thread."""

    def begin(self, headers: Mapping[bytes, bytes]) -> None:
        """Take note of the answer's headers; their names are lower-case."""

    def feed(self, data: bytes) -> bytes:
        """Return the PCM (s16le mono 24 kHz, whole samples) that `data` completes."""

    def finish(self) -> bytes:
        """Return what is left at the end of the answer, or raise if it ended too early."""


@value
class Call:
    """One HTTP request to an upstream.

    Attributes:
        path: Path below the upstream's base address.
        body: JSON text, UTF-8.
        parser: A fresh parser for the answer.
    """

    path: str
    body: bytes = field(repr=False)
    parser: Parser


class Dialect(Protocol):
    """An upstream's wire protocol."""

    def call(self, generation: Generation, model: str) -> Call:
        """Build the request for one generation."""
