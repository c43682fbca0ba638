"""The speech request, free of any surface's and any upstream's field names.

Surfaces build a `SpeechRequest`; the straight line reads it and never changes it.
"""

from __future__ import annotations

from dataclasses import field

from gateway import value
from gateway.audio.pcm import ENGINE_SAMPLE_RATE_HZ
from gateway.text.spoken_text import SpokenText
from gateway.upstream.dialect import Reference, Sampling
from gateway.voices.resolve import LIBRARY_LABEL


@value
class SpeechRequest:
    """One thing to say.

    Attributes:
        surface: The surface it came by (a closed set: a metrics label).
        text: What to say.
        response_format: One of RESPONSE_FORMATS.
        voice: A preset of the engine, or None where a scene or a reference decides.
        voice_label: The voice in metrics and the log: a preset's name, or `library`.
        speed: Tempo factor in SPEED_RANGE; pitch stays.
        sample_rate_hz: Rate of the answer, one of SAMPLE_RATES_HZ.
        buffered: The client wants one complete answer: exact sizes, Content-Length.
        system_prompt: The whole scene prompt for the engine, or None for its default.
        references: Voice samples, in order.
        sampling: The engine's knobs.
        model: A model that an upstream lists, or None for whatever is served.
        speaker_voices: Presets of a dialogue's speakers, (speaker, voice); of others, any.
        directed: The client gave words of its own on scene or voices, which must not be lost.
    """

    surface: str
    text: SpokenText
    response_format: str
    voice: str | None = None
    voice_label: str = LIBRARY_LABEL
    speed: float = 1.0
    sample_rate_hz: int = ENGINE_SAMPLE_RATE_HZ
    buffered: bool = False
    system_prompt: str | None = field(default=None, repr=False)
    references: tuple[Reference, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    model: str | None = None
    speaker_voices: tuple[tuple[int, str], ...] = ()
    directed: bool = False
