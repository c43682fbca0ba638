"""Ends a generation that ran away: audio longer than its text can be, or silence without end.

The decision is taken sample by sample, so any slicing of the audio gives the same result.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gateway.audio.pcm import BYTES_PER_SAMPLE, as_samples, samples_in

QUIET_BELOW = 164  # -46 dBFS: under any voiced sound, over the noise of a quiet room
KEPT_QUIET_SECONDS = 1.0  # pauses of speech are shorter, so a live stream is never held up
KEPT_QUIET_SAMPLES = samples_in(KEPT_QUIET_SECONDS)
LOOK_SAMPLES = 480  # 20 ms: longer than a period of any voice
FADE_SAMPLES = 120  # a cut inside a sound clicks; 5 ms do not

Reason = Literal["too_long", "silence"]


class RunawayGuard:
    """Passes audio through until it must end.

    Silence beyond KEPT_QUIET_SECONDS is held until a sound follows: the long tail of a silent
    runaway never leaves, and a pause inside speech leaves whole. At most `quiet_seconds_limit` of
    audio is held.

    Args:
        max_samples: No more samples than this pass.
        quiet_seconds_limit: Near-silence longer than this ends the audio.

    Attributes:
        ended: Why the audio was ended, or None. Once set, everything further is dropped.
    """

    def __init__(self, max_samples: int, quiet_seconds_limit: float) -> None:
        self.ended: Reason | None = None
        self._max_samples = max_samples
        self._quiet_limit_samples = samples_in(quiet_seconds_limit)
        self._kept_samples = min(KEPT_QUIET_SAMPLES, self._quiet_limit_samples)
        self._seen_samples = 0
        self._quiet_samples = 0  # length of the quiet run that the audio seen so far ends with
        self._held = bytearray()

    def feed(self, pcm: bytes) -> bytes:
        """What may go on; s16le mono 24 kHz in and out, whole samples."""
        if self.ended or not pcm:
            return b""
        room = (self._max_samples - self._seen_samples) * BYTES_PER_SAMPLE
        if self._passes_whole(pcm, room):
            return pcm
        too_long = len(pcm) > room
        out = self._pass(self._fade(as_samples(pcm[:room] if too_long else pcm)))
        if too_long and not self.ended:
            self._end("too_long")
        return out

    def finish(self) -> bytes:
        """The pause that was held, when the audio ended by itself."""
        held = bytes(self._held)
        self._held.clear()
        return held

    def _passes_whole(self, pcm: bytes, room_bytes: int) -> bool:
        """Whether a chunk can be seen to pass as it is, by a look at its end alone.

        So it is with nearly every chunk of speech: nothing is held, no quiet run can have become
        too long within it, and a sound is near its end. What else there is takes the exact way.
        """
        count = len(pcm) // BYTES_PER_SAMPLE
        if (
            self._held
            or count + self._quiet_samples > self._quiet_limit_samples
            or len(pcm) > room_bytes - FADE_SAMPLES * BYTES_PER_SAMPLE
        ):
            return False
        # The last sound is mostly a few samples away: found before numpy would have begun.
        quiet_samples = 0
        for sample in reversed(memoryview(pcm)[-LOOK_SAMPLES * BYTES_PER_SAMPLE :].cast("h")):
            if not -QUIET_BELOW < sample < QUIET_BELOW:
                break
            quiet_samples += 1
        else:
            return False
        if quiet_samples > self._kept_samples:
            return False
        self._quiet_samples = quiet_samples
        self._seen_samples += count
        return True

    def _pass(self, samples: NDArray[np.int16]) -> bytes:
        """Follow the quiet runs; hold the quiet end, or drop it when it is too long."""
        loud = np.flatnonzero((samples >= QUIET_BELOW) | (samples <= -QUIET_BELOW))
        edges = np.concatenate(([-1 - self._quiet_samples], loud, [samples.size]))
        # A run of quiet lies between each pair of neighbours in `edges`.
        runs = np.diff(edges) - 1
        self._seen_samples += samples.size
        over = np.flatnonzero(runs > self._quiet_limit_samples)
        if over.size:
            start = int(edges[over[0]]) + 1  # of the run; negative when it began in earlier chunks
            out = self._release(samples[:start]) if start > 0 else b""
            out += self._kept(samples, start)
            self._end("silence")
            return out
        self._quiet_samples = int(runs[-1])
        start = int(edges[-2]) + 1
        out = self._release(samples[:start]) if loud.size else b""
        return out + self._hold(samples, start)

    def _kept(self, samples: NDArray[np.int16], start: int) -> bytes:
        """The part of a quiet run that may pass at once; `start` is where the run begins."""
        return samples[max(0, start) : max(0, start + self._kept_samples)].tobytes()

    def _hold(self, samples: NDArray[np.int16], start: int) -> bytes:
        """Pass the front of the quiet run at the end of `samples`, hold the rest."""
        self._held += samples[max(0, start + self._kept_samples) :].tobytes()
        return self._kept(samples, start)

    def _release(self, samples: NDArray[np.int16]) -> bytes:
        """All that was held, then `samples`."""
        return self.finish() + samples.tobytes()

    def _fade(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        """Fade the last samples before the bound."""
        fade_samples = min(FADE_SAMPLES, self._max_samples)
        first = self._max_samples - fade_samples - self._seen_samples
        if samples.size <= first:
            return samples
        faded = samples.copy()
        at = np.arange(max(0, first), samples.size)
        gain = (fade_samples - (at - first)) / (fade_samples + 1)
        faded[at] = np.rint(samples[at] * gain).astype(np.int16)
        return faded

    def _end(self, reason: Reason) -> None:
        self.ended = reason
        self._held.clear()
