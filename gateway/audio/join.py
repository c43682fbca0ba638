"""Segments of speech as one stream: a natural pause at every join, no click, a steady level.

The first segment passes as it comes; of what follows only silence is held back, and the first
second of each later segment, from which its level is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from gateway.audio.pcm import ENGINE_SAMPLE_RATE_HZ, samples_in
from gateway.text.boundary import Boundary

Samples = NDArray[np.int16]

# Near-silence: below -44 dBFS. Breath of the engine's voices and soft consonants may be below too,
# which is why a pause is made of the audio next to the speech first, and of zeros last.
QUIET_LEVEL = 200
MOST_HELD_SECONDS = 0.5
FADE_SECONDS = 0.008
MOST_PAUSE_SECONDS = 10.0
# The part of a pause that belongs to the end before it: speech fades longer than it begins.
TAIL_SHARE = 0.6

LEVEL_SECONDS = 1.0  # of a later segment's speech, to tell its level from
MOST_GAIN = 10 ** (3 / 20)  # +-3 dB: more would be heard as another distance to the microphone
LEVEL_FRAME_SAMPLES = 240  # 10 ms
# Frames above -40 dBFS count as voiced for the level.
_VOICED_RMS = 327.0
_FULL_SCALE = 32767

PAUSES_SECONDS: Mapping[Boundary, float] = {
    Boundary.WORD: 0.05,
    Boundary.CLAUSE: 0.15,
    Boundary.SENTENCE: 0.25,
    Boundary.PARAGRAPH: 0.5,
    Boundary.TURN: 0.3,
    Boundary.CHAPTER: 1.5,
}


class _Phase(Enum):
    PASSING = auto()  # speech goes out as it comes; its trailing silence is held
    LEADING = auto()  # a later segment has not begun to speak
    LEVELLING = auto()  # it speaks; its level is being told


class Joiner:
    """Joins the PCM of segments, one after the other.

    Every way of slicing the input gives the same output. Held at most: MOST_HELD_SECONDS of
    silence, and LEVEL_SECONDS and the longest pause of a later segment.

    Args:
        pauses_seconds: From the last to the first loud sample across a join, by what the cut in
            the text was; those not named are as in PAUSES_SECONDS. 0 to MOST_PAUSE_SECONDS.
        steady_level: Bring later segments to the first one's level, within 3 dB.

    Raises:
        ValueError: A pause is out of range.
    """

    def __init__(
        self,
        pauses_seconds: Mapping[Boundary, float] | None = None,
        *,
        steady_level: bool = True,
    ) -> None:
        pauses = {**PAUSES_SECONDS, **(pauses_seconds or {})}
        if not all(0 <= pause <= MOST_PAUSE_SECONDS for pause in pauses.values()):
            raise ValueError(f"Pauses are 0 to {MOST_PAUSE_SECONDS} seconds.")
        self._pauses = {k: int(pause * ENGINE_SAMPLE_RATE_HZ) for k, pause in pauses.items()}
        self._level_samples = samples_in(LEVEL_SECONDS) if steady_level else 0
        self._phase = _Phase.PASSING
        self._odd = b""  # half a sample of a slice
        self._fed = False  # whether any segment has had audio
        self._heard = False  # whether any of it was loud
        self._pause = 0  # samples wanted at the next join
        self._tail = _NONE  # silence behind the last loud sample, not sent
        self._silence_sent = 0  # silence behind it that was too long to hold
        self._recent = _NONE  # the last samples sent
        self._lead = _NONE  # silence before the next segment's speech
        self._opening = _NONE  # the next segment's speech, until its level is told
        self._gain = 1.0
        self._reference = _Level()
        self._reference_done = False

    def __repr__(self) -> str:
        """What it is at."""
        return f"<Joiner {self._phase.name.lower()} pause={self._pause} held={self._held}>"

    @property
    def _held(self) -> int:
        return len(self._tail) + len(self._lead) + len(self._opening)

    def start_segment(self, kind: Boundary) -> None:
        """The next PCM is another segment's.

        Args:
            kind: What stands in the text before it; nothing of it matters for the first segment.
        """
        self._odd = b""
        if self._fed:
            # Of segments without speech between two others, the longest pause remains.
            self._pause = max(self._pause, self._pauses[kind])
            self._phase = _Phase.LEADING

    def feed(self, pcm: bytes) -> bytes:
        """Take PCM of the segment and give back what can be sent.

        Args:
            pcm: s16le mono, any number of bytes.
        """
        data = self._odd + pcm
        whole = len(data) - len(data) % 2
        self._odd = data[whole:]
        samples = np.frombuffer(data[:whole], dtype="<i2").astype(np.int16)
        if not len(samples):
            return b""
        self._fed = True
        if self._phase is _Phase.PASSING:
            return self._pass_on(samples)
        if self._phase is _Phase.LEADING:
            samples = self._skip_lead(samples)
            if not len(samples):
                return b""
        self._phase = _Phase.LEVELLING
        self._opening = np.concatenate((self._opening, samples))
        if len(self._opening) < self._level_samples:
            return b""
        return self._open_segment()

    def end_segment(self) -> bytes:
        """The segment is complete; give back what of it can be sent."""
        sent = self._open_segment() if self._phase is _Phase.LEVELLING else b""
        self._lead = _NONE
        if self._reference.level is not None:
            self._reference_done = True
        return sent

    def finish(self) -> bytes:
        """All segments are complete; give back the silence that was held."""
        sent = self.end_segment() + self._tail.astype("<i2").tobytes()
        self._tail = _NONE
        return sent

    def _pass_on(self, samples: Samples) -> bytes:
        """Send speech, hold the silence behind it."""
        if self._reference_done:
            samples = _amplify(samples, self._gain)
        else:
            self._reference.add(samples)
        loud = np.flatnonzero(_is_loud(samples))
        if len(loud):
            self._heard = True
            self._silence_sent = 0
        # Silence before the first speech of all is nobody's pause: it goes out as it comes.
        split = int(loud[-1]) + 1 if len(loud) else 0 if self._heard else len(samples)
        ready = samples[:split]
        if split:
            ready = np.concatenate((self._tail, ready))
            self._tail = _NONE
        self._tail = np.concatenate((self._tail, samples[split:]))
        if not self._heard:
            self._silence_sent += split
        excess = len(self._tail) - samples_in(MOST_HELD_SECONDS)
        if excess > 0:
            ready = np.concatenate((ready, self._tail[:excess]))
            self._tail = self._tail[excess:]
            self._silence_sent += excess
        return self._send(ready)

    def _skip_lead(self, samples: Samples) -> Samples:
        """Keep only as much silence before speech as a pause can use; return the speech."""
        loud = np.flatnonzero(_is_loud(samples))
        start = int(loud[0]) if len(loud) else len(samples)
        wanted = self._pause - int(self._pause * TAIL_SHARE)
        lead = np.concatenate((self._lead, samples[:start]))
        self._lead = lead[len(lead) - min(len(lead), wanted) :]
        return samples[start:]

    def _open_segment(self) -> bytes:
        """Send the pause and the beginning of a later segment."""
        # Exactly as much counts as any slicing would have shown.
        level = _Level()
        level.add(self._opening[: self._level_samples])
        self._gain = _gain(self._reference.level, level.level)
        opening, self._opening = self._opening, _NONE
        lead, self._lead = _amplify(self._lead, self._gain), _NONE
        sent = self._send(self._make_pause(lead))
        if len(lead) < _FADE_SAMPLES:  # it begins in the middle of a sound
            count = min(_FADE_SAMPLES, len(opening))
            opening = opening.copy()
            opening[:count] = _scale(opening[:count], _FADE_IN[:count])
        self._tail, self._silence_sent, self._pause = _NONE, 0, 0
        self._phase = _Phase.PASSING
        return sent + self._pass_on(opening)

    def _make_pause(self, lead: Samples) -> Samples:
        """The end of one segment, zeros, and the beginning of the next, as long as wanted."""
        fade_out = _FADE_IN[::-1]
        wanted = max(len(fade_out), self._pause - self._silence_sent - len(lead))
        tail = self._tail[:wanted].copy()
        if len(tail) + self._silence_sent < len(fade_out):
            # It ended in the middle of a sound, which has been sent: let its mirror fade away.
            mirror = np.concatenate((self._recent, tail))[: -len(fade_out) - 1 : -1]
            tail = np.concatenate((tail, _scale(mirror, fade_out[: len(mirror)])))
        else:
            count = min(len(fade_out), len(tail))
            end = len(tail) - count
            tail[end:] = _scale(tail[end:], fade_out[len(fade_out) - count :])
        zeros = np.zeros(max(0, wanted - len(tail)), dtype=np.int16)
        count = min(_FADE_SAMPLES, len(lead))
        lead = lead.copy()
        lead[:count] = _scale(lead[:count], _FADE_IN[:count])
        return np.concatenate((tail, zeros, lead))

    def _send(self, samples: Samples) -> bytes:
        if len(samples):
            count = _FADE_SAMPLES
            self._recent = np.concatenate((self._recent, samples[-count:]))[-count:]
        return samples.astype("<i2").tobytes()


class _Level:
    """The RMS of the voiced parts of what is added, frame by frame from the first sample."""

    def __init__(self) -> None:
        self._rest = _NONE
        self._energy = 0.0
        self._frames = 0

    def add(self, samples: Samples) -> None:
        """Count whole frames; a rest waits for more."""
        samples = np.concatenate((self._rest, samples))
        count = len(samples) // LEVEL_FRAME_SAMPLES
        self._rest = samples[count * LEVEL_FRAME_SAMPLES :]
        frames = samples[: count * LEVEL_FRAME_SAMPLES].astype(np.float64)
        energies = np.square(frames.reshape(count, LEVEL_FRAME_SAMPLES)).mean(axis=1)
        # Squares of whole numbers are exact in any grouping; the sum is kept so by rounding.
        voiced = energies[energies > _VOICED_RMS**2]
        self._energy += float(np.rint(voiced).sum())
        self._frames += len(voiced)

    @property
    def level(self) -> float | None:
        """The RMS in sample units, or None where nothing was voiced."""
        return float(np.sqrt(self._energy / self._frames)) if self._frames else None


_NONE: Samples = np.zeros(0, dtype=np.int16)


def _gain(wanted: float | None, found: float | None) -> float:
    if wanted is None or found is None:
        return 1.0
    return min(MOST_GAIN, max(1 / MOST_GAIN, wanted / found))


def _amplify(samples: Samples, gain: float) -> Samples:
    if gain == 1.0:
        return samples
    return _to_samples(np.clip(samples * gain, -_FULL_SCALE, _FULL_SCALE))


def _scale(samples: Samples, factors: NDArray[np.float64]) -> Samples:
    return _to_samples(samples * factors)


def _to_samples(values: NDArray[np.float64]) -> Samples:
    return np.rint(values).astype(np.int16)


def _is_loud(samples: Samples) -> NDArray[np.bool_]:
    loud: NDArray[np.bool_] = (samples > QUIET_LEVEL) | (samples < -QUIET_LEVEL)
    return loud


_FADE_SAMPLES = samples_in(FADE_SECONDS)
# Half a cosine from 0 to 1.
_FADE_IN = 0.5 - 0.5 * np.cos(np.pi * (np.arange(_FADE_SAMPLES) + 0.5) / _FADE_SAMPLES)
