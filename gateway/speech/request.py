"""What a client wants spoken, free of any surface's field names and of any upstream's.

Surfaces build a `SpeechRequest`; the straight line reads it and never changes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

RESPONSE_FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
SPEED_RANGE = (0.25, 4.0)  # OpenAI's API reference, speech endpoint
ENGINE_SAMPLE_RATE_HZ = 24_000  # docs/contract.md section 2: s16le mono 24 kHz
SAMPLE_RATES_HZ = (8000, 16_000, 22_050, 24_000, 44_100, 48_000)


@dataclass(frozen=True, slots=True)
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
class SpeechRequest:
    """One thing to say.

    Attributes:
        surface: The surface it came by (a closed set: a metrics label).
        text: What to say, as the client sent it.
        voice: A preset of the engine, or None where a scene or a reference decides.
        response_format: One of RESPONSE_FORMATS.
        speed: Tempo factor in SPEED_RANGE; pitch stays.
        sample_rate_hz: Rate of the answer, one of SAMPLE_RATES_HZ.
        buffered: The client wants one complete answer: exact sizes, Content-Length.
        system_prompt: The whole scene prompt for the engine, or None for its default.
        references: Voice samples, in order.
        sampling: The engine's knobs.
        model: A model that an upstream lists, or None for whatever is served.
    """

    surface: str
    text: str = field(repr=False)
    voice: str | None
    response_format: str
    speed: float = 1.0
    sample_rate_hz: int = ENGINE_SAMPLE_RATE_HZ
    buffered: bool = False
    system_prompt: str | None = field(default=None, repr=False)
    references: tuple[Reference, ...] = ()
    sampling: Sampling = Sampling()
    model: str | None = None
