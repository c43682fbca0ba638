"""Repairs samples that wrapped around because they were above full scale.

The container's chat route multiplies by 32,767 and casts to 16 bits without a bound, so a value
above full scale changes its sign (docs/contract.md section 4). Where a short run of samples lies
between two jumps that no sound makes, it can only be such a value: it is clipped instead.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gateway.audio.pcm import as_samples

# Three quarters of the 65,536 values: neighbours that differ by more are nearer to each other when
# one is taken as wrapped, and the loudest consonants at 24 kHz stay well below.
JUMP = 49_152
# A peak above full scale lasts less than half a period of the lowest voice (125 Hz): 4 ms.
LONGEST_RUN_SAMPLES = 96
HIGHEST, LOWEST = 32_767, -32_768


class WraparoundRepair:
    """Clips what wrapped; s16le mono in and out, whole samples, in slices of any size.

    A run that is open at a slice's end is held back until its end is known, at most
    LONGEST_RUN_SAMPLES.

    Attributes:
        repaired: Samples that were clipped.
        uncertain: Jumps without a partner: left as they are.
    """

    def __init__(self) -> None:
        self.repaired = 0
        self.uncertain = 0
        self._held = b""
        self._last = 0

    def feed(self, pcm: bytes) -> bytes:
        """The samples that may go on."""
        if not pcm:
            return b""
        pcm = self._held + pcm
        self._held = b""
        samples = as_samples(pcm)
        steps = samples.astype(np.int32)
        steps[1:] -= samples[:-1]
        steps[0] -= self._last
        jumps = np.flatnonzero(np.abs(steps) > JUMP)
        if not jumps.size:
            self._last = int(samples[-1])
            return pcm
        return self._repair(samples.copy(), steps, jumps.tolist())

    def _repair(
        self, samples: NDArray[np.int16], steps: NDArray[np.int32], jumps: list[int]
    ) -> bytes:
        """Clip the runs between paired jumps; hold back one that may still be open."""
        end = samples.size
        while jumps:
            start = jumps.pop(0)
            if not jumps:
                if end - start <= LONGEST_RUN_SAMPLES:
                    self._held = samples[start:].tobytes()
                    end = start
                else:
                    self.uncertain += 1
                break
            stop = jumps[0]
            rises = steps[start] > 0
            if (steps[stop] > 0) == rises or stop - start > LONGEST_RUN_SAMPLES:
                self.uncertain += 1
                continue
            jumps.pop(0)
            samples[start:stop] = LOWEST if rises else HIGHEST
            self.repaired += stop - start
        if end:
            self._last = int(samples[end - 1])
        return samples[:end].tobytes()

    def finish(self) -> bytes:
        """What was held back, as it came: its end never came."""
        held, self._held = self._held, b""
        self.uncertain += bool(held)
        return held
