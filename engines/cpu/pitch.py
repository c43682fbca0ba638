"""The pitch of a voice sample: the median fundamental frequency of its voiced parts.

The CPU voice imitates a reference by this one number alone; normalised autocorrelation, as in
Boersma's method (IFA Proceedings 17, 1993), is exact enough for that and needs only numpy.
"""

from __future__ import annotations

import io

import numpy as np
import soundfile
from numpy.typing import NDArray

LOWEST_HZ = 60.0
HIGHEST_HZ = 420.0
FRAME_SECONDS = 0.05  # three periods of the lowest voice
HOP_SECONDS = 0.02
VOICED_CORRELATION = 0.6
# Of two candidates this close, the shorter period is the true one; the longer is its double.
OCTAVE_CAUTION = 0.9
QUIET_OF_LOUD = 0.1  # frames below this share of the loud parts' level are not looked at
FEWEST_VOICED_FRAMES = 5
LONGEST_REFERENCE_SECONDS = 30
MOST_REFERENCE_VALUES = 8_000_000  # decoded float32 values of all channels: 32 MB


class UnreadableAudioError(ValueError):
    """A reference that is no audio file which libsndfile can read."""


def reference_pitch_hz(audio: bytes) -> float | None:
    """The median pitch of an audio file's first 30 seconds, or None if nothing in it is voiced.

    Args:
        audio: A complete file (WAV, FLAC, OGG, MP3): any rate, any number of channels.

    Raises:
        UnreadableAudioError: libsndfile cannot read it.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(audio)) as file:
            frames = min(
                LONGEST_REFERENCE_SECONDS * file.samplerate, MOST_REFERENCE_VALUES // file.channels
            )
            samples = file.read(frames, dtype="float32", always_2d=True).mean(axis=1)
            rate_hz = int(file.samplerate)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise UnreadableAudioError("the reference audio cannot be read") from error
    return median_pitch_hz(samples, rate_hz)


def median_pitch_hz(samples: NDArray[np.float32], rate_hz: int) -> float | None:
    """The median fundamental frequency of the voiced frames, or None if there are too few.

    Args:
        samples: Mono, float32 in [-1, 1], shape (n,).
        rate_hz: Its sample rate, 1,000 or more.
    """
    length = int(FRAME_SECONDS * rate_hz)
    samples = np.nan_to_num(samples)
    if rate_hz < 1000 or len(samples) < length:  # noqa: PLR2004 - no pitch below 500 Hz of band
        return None
    windows = np.lib.stride_tricks.sliding_window_view(samples, length)
    frames = windows[:: max(1, int(HOP_SECONDS * rate_hz))].astype(np.float32)
    frames -= frames.mean(axis=1, keepdims=True)
    level = np.sqrt((frames**2).mean(axis=1))
    loud = float(np.percentile(level, 95))
    frames = frames[(level > QUIET_OF_LOUD * loud) & (level > 0)]
    if len(frames) < FEWEST_VOICED_FRAMES:
        return None
    correlation = _autocorrelation(frames)
    periods = [_period(row, rate_hz) for row in correlation]
    voiced = [rate_hz / period for period in periods if period]
    return float(np.median(voiced)) if len(voiced) >= FEWEST_VOICED_FRAMES else None


def _autocorrelation(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Autocorrelation of windowed frames over that of the window; row[0] is 1."""
    length = frames.shape[1]
    size = 1 << (2 * length - 1).bit_length()
    window = np.hanning(length)
    spectrum = np.fft.rfft(frames * window, size)
    own = np.fft.irfft(np.abs(spectrum) ** 2, size)[:, :length]
    windowed = np.fft.irfft(np.abs(np.fft.rfft(window, size)) ** 2, size)[:length]
    normal = np.maximum(windowed / windowed[0], 1e-3)
    return np.asarray(own / np.maximum(own[:, :1], 1e-12) / normal, np.float32)


def _period(correlation: NDArray[np.float32], rate_hz: int) -> float | None:
    """The period in samples, between them by a parabola, or None for an unvoiced frame."""
    shortest = max(2, int(rate_hz / HIGHEST_HZ))
    longest = min(int(rate_hz / LOWEST_HZ), len(correlation) // 2)
    part = correlation[shortest - 1 : longest + 2]
    inner = part[1:-1]
    peaks = np.flatnonzero((inner >= part[:-2]) & (inner > part[2:]))
    if len(peaks) == 0 or inner[peaks].max() < VOICED_CORRELATION:
        return None
    peak = int(peaks[inner[peaks] >= OCTAVE_CAUTION * inner[peaks].max()][0])
    before, top, after = (float(value) for value in part[peak : peak + 3])
    bend = before - 2 * top + after
    return shortest + peak + (0.5 * (before - after) / bend if bend else 0.0)
