"""The simulated voice's sound: a deterministic waveform that tells voice, text and place.

One long table of tone and noise never repeats; voice and text choose where in it a generation
begins, so that a test can name every lost or doubled sample.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from engines.voice import (
    BYTES_PER_TOKEN,
    PRESETS,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_TOKEN,
    TOKENS_PER_SECOND,
)
from gateway.audio.pcm import BYTES_PER_SAMPLE

TABLE_TOKENS = 16_384
LONGEST_TOKENS = 8_192  # the container's context
NO_VOICE = len(PRESETS)  # the number of whatever is no preset: the prompt decides
TEXTS = (TABLE_TOKENS - LONGEST_TOKENS) * SAMPLES_PER_TOKEN // (NO_VOICE + 1)  # starts of a voice
TONE_HZ = 180.0
TONE_LEVEL = 6_000
NOISE_LEVEL = 2_000
MURMUR_LEVEL = 8  # near-silence: about -72 dBFS
KEY_SAMPLES = 16  # so many samples tell their place in the table
KEY_BYTES = KEY_SAMPLES * BYTES_PER_SAMPLE
INDEX_STEP_SAMPLES = 64
CHARACTERS_PER_SECOND = 14
SHORTEST_TOKENS = 8


@lru_cache(maxsize=1)
def table() -> bytes:
    """All of the waveform: TABLE_TOKENS audio tokens of s16le, 31 MB."""
    count = TABLE_TOKENS * SAMPLES_PER_TOKEN
    time = np.arange(count, dtype=np.float64) * (2 * np.pi * TONE_HZ / SAMPLE_RATE_HZ)
    tone = np.sin(np.fmod(time, 2 * np.pi).astype(np.float32)) * TONE_LEVEL
    noise = np.random.default_rng(1).integers(-NOISE_LEVEL, NOISE_LEVEL, count, dtype=np.int16)
    return bytes((tone.astype(np.int16) + noise).astype("<i2").tobytes())


@lru_cache(maxsize=1)
def _murmurs() -> bytes:
    count = LONGEST_TOKENS * SAMPLES_PER_TOKEN
    noise = np.random.default_rng(2).integers(-MURMUR_LEVEL, MURMUR_LEVEL, count, dtype=np.int16)
    return bytes(noise.astype("<i2").tobytes())


def murmur(size_bytes: int) -> bytes:
    """So many bytes of near-silence."""
    return _murmurs()[:size_bytes]


def voice_number(voice: str) -> int:
    """Position of a preset; NO_VOICE for every other name."""
    return PRESETS.index(voice) if voice in PRESETS else NO_VOICE


def text_number(text: str) -> int:
    """A number below TEXTS that stands for a text."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % TEXTS


def start_of(text: str, voice: str) -> int:
    """The sample of the table at which this voice begins to say this text."""
    return voice_number(voice) * TEXTS + text_number(text)


def frames_of(text: str) -> int:
    """Audio tokens that the simulated voice takes for a text."""
    seconds = len(text) / CHARACTERS_PER_SECOND
    return max(SHORTEST_TOKENS, round(seconds * TOKENS_PER_SECOND))


def audio(start: int, first_frame: int, frames: int) -> bytes:
    """Some audio tokens of a generation that begins at sample `start`."""
    begin = start * BYTES_PER_SAMPLE + first_frame * BYTES_PER_TOKEN
    return table()[begin : begin + frames * BYTES_PER_TOKEN]


def expected_pcm(text: str, voice: str, frames: int | None = None) -> bytes:
    """What a whole, honest answer holds.

    Args:
        text: As it reaches the engine.
        voice: The preset; the empty string where the prompt decides.
        frames: Audio tokens; by default those of the text.
    """
    return audio(start_of(text, voice), 0, frames_of(text) if frames is None else frames)


@dataclass(frozen=True, slots=True)
class Run:
    """Samples that follow one another in the table.

    Attributes:
        at_sample: Where they begin in what was read.
        table_sample: Where they begin in the table.
        samples: How many.
    """

    at_sample: int
    table_sample: int
    samples: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What a piece of PCM is made of.

    Attributes:
        samples: Its length.
        runs: The honest stretches in it, in order; what lies between them is foreign.
    """

    samples: int
    runs: tuple[Run, ...]

    @property
    def whole(self) -> bool:
        """One stretch without a lost, doubled or foreign sample."""
        return [run.samples for run in self.runs] == [self.samples]

    @property
    def voice(self) -> int | None:
        """`voice_number` of who spoke."""
        return self.runs[0].table_sample // TEXTS if self.runs else None

    @property
    def text(self) -> int | None:
        """`text_number` of what was said, if the beginning is there."""
        return self.runs[0].table_sample % TEXTS if self.runs else None

    @property
    def jumps(self) -> tuple[int, ...]:
        """Samples lost (positive) or doubled (negative) from each stretch to the next."""
        return tuple(
            following.table_sample - (run.table_sample + run.samples)
            for run, following in zip(self.runs, self.runs[1:], strict=False)
        )


@lru_cache(maxsize=1)
def _places() -> dict[bytes, int]:
    """Samples of the table by the KEY_SAMPLES samples that follow, one in INDEX_STEP_SAMPLES."""
    whole = table()
    step = INDEX_STEP_SAMPLES * BYTES_PER_SAMPLE
    return {whole[at : at + KEY_BYTES]: at // BYTES_PER_SAMPLE for at in range(0, len(whole), step)}


def read_waveform(pcm: bytes) -> Reading:
    """Find the places in the table that PCM was taken from.

    Args:
        pcm: s16le at 24 kHz; an odd last byte is ignored. Stretches of fewer than 80 samples may
            be taken for foreign.
    """
    samples = len(pcm) // BYTES_PER_SAMPLE
    heard = np.frombuffer(pcm, "<i2", samples)
    known = np.frombuffer(table(), "<i2")
    places = _places()
    runs: list[Run] = []
    free = at = 0  # nothing before `free` may be taken again
    while at + KEY_SAMPLES <= samples:
        begin = at * BYTES_PER_SAMPLE
        place = places.get(pcm[begin : begin + KEY_BYTES])
        if place is None:
            at += 1
            continue
        back = min(at - free, place)
        before = heard[at - back : at][::-1] == known[place - back : place][::-1]
        back = _leading(before)
        ahead = min(samples - at, len(known) - place)
        run = _leading(heard[at : at + ahead] == known[place : place + ahead])
        runs.append(Run(at - back, place - back, back + run))
        free = at = at + run
    return Reading(samples, tuple(runs))


def _leading(equal: NDArray[np.bool_]) -> int:
    """How many are true before the first that is not."""
    return len(equal) if equal.all() else int(equal.argmin())
