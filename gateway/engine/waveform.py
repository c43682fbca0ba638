"""The simulated voice's sound: a deterministic waveform that tells voice, text and place.

One long table of tone and noise never repeats; voice and text choose where in it a generation
begins, so that a test can name every lost or doubled sample.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

import numpy as np

from gateway.engine.base import BYTES_PER_TOKEN, SAMPLE_RATE_HZ, SAMPLES_PER_TOKEN

TABLE_TOKENS = 16_384
MOST_START = 8_000  # leaves 8,192 tokens, the longest generation, behind every start
TONE_HZ = 180.0
TONE_LEVEL = 6_000
NOISE_LEVEL = 2_000
KEY_BYTES = 16
CHARACTERS_PER_SECOND = 14
TOKENS_PER_SECOND = 25
SHORTEST_TOKENS = 8


@lru_cache(maxsize=1)
def table() -> bytes:
    """All of the waveform: TABLE_TOKENS audio tokens of s16le, 31 MB."""
    count = TABLE_TOKENS * SAMPLES_PER_TOKEN
    time = np.arange(count, dtype=np.float32) * np.float32(2 * np.pi * TONE_HZ / SAMPLE_RATE_HZ)
    tone = np.sin(np.fmod(time, np.float32(2 * np.pi)), dtype=np.float32) * TONE_LEVEL
    noise = np.random.default_rng(1).integers(-NOISE_LEVEL, NOISE_LEVEL, count, dtype=np.int16)
    return bytes((tone.astype(np.int16) + noise).astype("<i2").tobytes())


def start_of(text: str, voice: str) -> int:
    """The token of the table at which this voice begins to say this text."""
    return zlib.crc32(f"{voice}\0{text}".encode("utf-8", "surrogatepass")) % MOST_START


def frames_of(text: str) -> int:
    """Audio tokens that the simulated voice takes for a text."""
    seconds = len(text) / CHARACTERS_PER_SECOND
    return max(SHORTEST_TOKENS, round(seconds * TOKENS_PER_SECOND))


def audio(start: int, first_frame: int, frames: int) -> bytes:
    """Some audio tokens of a generation that begins at `start`."""
    begin = (start + first_frame) * BYTES_PER_TOKEN
    return table()[begin : begin + frames * BYTES_PER_TOKEN]


def expected_pcm(text: str, voice: str, frames: int | None = None) -> bytes:
    """What a whole, honest answer holds.

    Args:
        text: As it reaches the engine.
        voice: The preset; the empty string where the prompt decides.
        frames: Audio tokens; by default those of the text.
    """
    return audio(start_of(text, voice), 0, frames_of(text) if frames is None else frames)


@lru_cache(maxsize=1)
def _places() -> dict[bytes, int]:
    whole = table()
    return {
        whole[token * BYTES_PER_TOKEN : token * BYTES_PER_TOKEN + KEY_BYTES]: token
        for token in range(TABLE_TOKENS)
    }


def places(pcm: bytes) -> list[int | None]:
    """The table's token for each audio token of `pcm`; None where it is none.

    An honest answer is a run of consecutive numbers: a gap is lost audio, a repeat is doubled.
    """
    known = _places()
    return [known.get(pcm[at : at + KEY_BYTES]) for at in range(0, len(pcm), BYTES_PER_TOKEN)]
