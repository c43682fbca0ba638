"""An uploaded recording as the library keeps it: 24 kHz mono, trimmed, at one level.

Voices of one library then start at once, are equally loud, and cost no prompt tokens for silence.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from gateway.audio.encoders.wav import HEADER_BYTES, wav_file
from gateway.audio.pcm import ENGINE_SAMPLE_RATE_HZ, FULL_SCALE, as_samples, samples_in
from gateway.errors import InvalidRequest
from gateway.voices.samples.prepare import (
    BLOCK_SECONDS,
    PreparedReference,
    ReferenceLimits,
    block_levels,
    pcm_of,
    prepare_reference,
)

# After trimming; a second costs the engine 25 tokens (docs/contract.md section 4).
SHORTEST_SECONDS = 1.0
LONGEST_SECONDS = 30.0
UPLOAD_LIMITS = ReferenceLimits(
    max_bytes=10 * 1024 * 1024,  # OpenAI's limit of a custom voice's sample
    min_seconds=SHORTEST_SECONDS,
    max_seconds=LONGEST_SECONDS,
    spare_seconds=15.0,
)
# A block this far below the loudest one is silence: breath lies at -30 to -40 dB, rooms below.
SILENCE_BELOW_LOUDEST = 0.01
LEAD_SECONDS = 0.1  # kept of the silence: a consonant may begin below the threshold
TAIL_SECONDS = 0.2
TARGET_RMS_DBFS = -20.0  # speech as it is mastered for the web, with room for its peaks
HIGHEST_PEAK_DBFS = -1.0

Floats = NDArray[np.float64]


def normalise_recording(audio: bytes, *, param: str) -> PreparedReference:
    """Decode a file and bring it to the library's form; blocks for up to a second of CPU time.

    Args:
        audio: A whole file in one of the readable formats.
        param: The request field, for errors.

    Raises:
        InvalidRequest: Not such a file, silent, or outside 1-30 s once it is trimmed.
        RequestTooLarge: The file is over 10 MiB.
    """
    prepared = prepare_reference(audio, param=param, limits=UPLOAD_LIMITS)
    samples: Floats = as_samples(prepared.wav[HEADER_BYTES:]) / FULL_SCALE
    trimmed = _levelled(_trimmed(samples))
    seconds = trimmed.size / ENGINE_SAMPLE_RATE_HZ
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise InvalidRequest(
            f"The recording holds {seconds:.1f} s without the silence at its ends; "
            f"{SHORTEST_SECONDS:g} to {LONGEST_SECONDS:g} s are needed.",
            param=param,
        )
    return PreparedReference(wav_file(pcm_of(trimmed * FULL_SCALE)), seconds)


def _trimmed(samples: Floats) -> Floats:
    """Without the silence at both ends, and without a constant offset."""
    levels = block_levels(samples)
    sounding = np.flatnonzero(levels > levels.max() * SILENCE_BELOW_LOUDEST)
    first = int(sounding[0]) * BLOCK_SECONDS - LEAD_SECONDS
    last = (int(sounding[-1]) + 1) * BLOCK_SECONDS + TAIL_SECONDS
    kept = samples[samples_in(max(0.0, first)) : samples_in(last)]
    return cast("Floats", kept - kept.mean())


def _levelled(samples: Floats) -> Floats:
    """With what sounds at the target level, as far as the peaks allow."""
    levels = block_levels(samples)
    sounding = levels[levels > levels.max() * SILENCE_BELOW_LOUDEST]
    rms = float(np.sqrt(np.mean(sounding**2)))
    peak = float(np.abs(samples).max())
    gain = min(10 ** (TARGET_RMS_DBFS / 20) / rms, 10 ** (HIGHEST_PEAK_DBFS / 20) / peak)
    return samples * gain
