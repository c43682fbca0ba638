"""What an engine's voice gets and gives: the seam between the contract's HTTP and the sound.

The HTTP app parses and validates; a `Voice` turns a `Job` into PCM, chunk by chunk.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.audio.encoders.wav import HEADER_BYTES, header
from gateway.audio.pcm import BYTES_PER_SAMPLE

SAMPLE_RATE_HZ = 24_000
TOKENS_PER_SECOND = 25
SAMPLES_PER_TOKEN = 960
BYTES_PER_TOKEN = 1920  # docs/contract.md section 2: 960 samples of s16le
OVERHEAD_TOKENS = 11  # tokens used = frames + 11, same section
CUT_OVERHEAD_TOKENS = 8  # of an answer that max_tokens cuts, same section
DEFAULT_CHUNK_TOKENS = 25  # audio_chunk_size and its overlap, same section
PRESETS = (  # docs/contract.md section 1, GET /v1/audio/voices
    "belinda",
    "broom_salesman",
    "chadwick",
    "en_man",
    "en_woman",
    "mabel",
    "vex",
    "zh_man_sichuan",
)


def cut_frames(max_tokens: int) -> int:
    """Frames of an answer that max_tokens cuts: those whose rows were made, and none of so few."""
    return max_tokens - CUT_OVERHEAD_TOKENS if max_tokens >= OVERHEAD_TOKENS else 0


def plain_pcm(recording: bytes) -> memoryview | None:
    """Samples of a WAV file as the gateway writes one: 24 kHz mono s16, with exact sizes.

    Libraries ask for such a file piece by piece, and wait for the interpreter each time.

    Args:
        recording: A whole audio file.

    Returns:
        s16le, or None for any other file.
    """
    pcm = memoryview(recording)[HEADER_BYTES:]
    if recording[:HEADER_BYTES] != header(SAMPLE_RATE_HZ, len(pcm)) or len(pcm) % BYTES_PER_SAMPLE:
        return None
    return pcm


@dataclass(slots=True)
class Ending:
    """How far a generation has come, and how it ended.

    Attributes:
        finish_reason: `stop`, or `length` from the moment in which max_tokens is reached: the
            tail of the audio comes after that.
        tokens: Generated so far, the overhead included; None where the voice does not count them.
    """

    finish_reason: str = "stop"
    tokens: int | None = None


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
        seed: Of the sampling, or None; engines without one ignore it.
        request_id: The engine's own id for it.
        chunk_tokens, overlap_tokens: How the audio shall be cut.
        prompt_tokens: Length of the prompt, references included.
        reference_seconds: Length of all references together.
        every_token: The client sees tokens pass (a streamed chat): the voice may yield empty
            pieces in between, having set `ending.tokens`.
        ending: Filled in by the voice.
    """

    text: str = field(repr=False)
    preset: str | None
    system_prompt: str | None
    references: tuple[tuple[str, bytes], ...]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 0.95
    top_k: int = 50
    seed: int | None = None
    request_id: str = ""
    chunk_tokens: int = DEFAULT_CHUNK_TOKENS
    overlap_tokens: int = DEFAULT_CHUNK_TOKENS
    prompt_tokens: int = 0
    reference_seconds: float = 0.0
    every_token: bool = False
    ending: Ending = field(default_factory=Ending)


class UnspeakableError(Exception):
    """The voice has no sound for this text; the app answers 400 with the message."""


class EngineFailureError(Exception):
    """The generation failed inside the engine; before any audio, or after it.

    Args:
        message: The exception's text, which the container shows.
        buffered: PCM that was generated but not yet sent: it follows the error's text.

    Attributes:
        status: HTTP status, where none has been sent yet.
    """

    status = 500

    def __init__(self, message: str, buffered: bytes = b"") -> None:
        super().__init__(message)
        self.buffered = buffered


class PromptTooLongError(EngineFailureError):
    """The text fits the context, but not together with its references."""

    status = 400


class EngineBusyError(EngineFailureError):
    """All slots are taken and the queue is full."""

    status = 429


class EngineDownError(EngineFailureError):
    """The engine cannot generate any more; a restart may help."""

    status = 503


@dataclass(frozen=True, slots=True)
class Metric:
    """One sample of an engine's own for `/metrics`.

    Attributes:
        name: With its prefix, `vllm:` where vLLM has the same metric.
        kind: `gauge` or `counter`.
        value: The sample.
        labels: Further labels, as `name="value"`.
    """

    name: str
    kind: str
    value: float
    labels: str = ""


class Voice(Protocol):
    """A maker of audio. One instance serves all requests of the process.

    Engines inherit from it; what has a default here need not be there.

    Attributes:
        model_id: What `/v1/models` lists.
        presets: What `/v1/audio/voices` lists.
        running: Generations that run or wait now.
        aborted_total: Generations whose client left.
        audio_tokens_total: Audio tokens handed out.
    """

    model_id: str
    presets: tuple[str, ...]
    running: int
    aborted_total: int
    audio_tokens_total: int

    @property
    def waiting(self) -> int:
        """Generations that wait for a place."""
        return 0

    @property
    def cache_usage(self) -> float | None:
        """Share of the room for running generations that is taken; None where there is no bound."""
        return None

    async def start(self) -> None:
        """Load and warm up; called once before the first request."""

    async def stop(self) -> None:
        """Release threads and memory; called once at the end."""

    def failure(self) -> str | None:
        """Why it cannot generate, for `/health`; None while it can."""
        return None

    def capabilities(self) -> dict[str, Any]:
        """What it can do beyond the contract, for `/capabilities`."""
        return {}

    def metrics(self) -> Iterable[Metric]:
        """Samples of its own for `/metrics`."""
        return ()

    def generate(self, job: Job) -> AsyncGenerator[bytes, None]:
        """Yield PCM (s16le mono 24 kHz) in whole audio tokens: multiples of 1,920 bytes.

        An empty item says that tokens passed without audio (see `Job.every_token`).

        Closing the generator early (client gone) stops the work at once.

        Raises:
            UnspeakableError: Before the first item, when nothing in the text can be said.
            EngineFailureError: Something broke.
        """
        ...
