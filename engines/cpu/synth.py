"""The CPU voice's sound: one short piece of text to PCM, in one call of a worker thread.

The model's spectrum is read at the harmonics of the voice as it was recorded and sung again at
other ones, so that eight voices come from one and all have the same level.
"""

from __future__ import annotations

import logging
import os
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.cpu.presets import Timbre
from engines.voice import SAMPLE_RATE_HZ, SAMPLES_PER_TOKEN

logger = logging.getLogger(__name__)

Floats = NDArray[np.float32]

BINS = 601  # hibari's dsp: n_fft 1200 at 24 kHz, so 20 Hz a bin
BIN_HZ = 20.0
VOICED_ABOVE_HZ = 40.0  # hibari's dsp.pulses: below it a frame has no pulses
LOWEST_PULSE_HZ = 45.0
# The model's free-phase part keeps a trace of the recorded pitch; in voiced frames it is lowered by
# 8.7 dB (a factor of e), which nobody misses and which halves the peaks.
FREE_PHASE_REDUCTION = 1.0

# One run of the model: 13 s of audio and 250 MB resident at 200 phonemes, 443 MB at 800
# (measured 2026-11). Symbols can make 240 characters into 1,400 phonemes.
LONGEST_RUN_PHONEMES = 260
_PHONEME_RUN = re.compile(
    rf"\S.{{0,{LONGEST_RUN_PHONEMES - 1}}}(?=\s|\Z)|\S{{{LONGEST_RUN_PHONEMES}}}", re.DOTALL
)

# Speech at about -22 dBFS with peaks near -5 dBFS in every voice; what goes above the knee is bent,
# never clipped.
GAIN = 1.8
LIMITER_KNEE = 0.8
LIMITER_CEILING = 0.98

SILENCE_BELOW = 10 ** (-52 / 20)
LEVEL_FRAME_SAMPLES = 240
LEAD_SAMPLES = SAMPLE_RATE_HZ // 50  # 20 ms before the first sound, of the model's 300 ms
TAIL_SAMPLES = SAMPLE_RATE_HZ // 20
FADE_SAMPLES = 96
WARM_UP_TEXT = "Warming up the hibarian voice."  # a word of no lexicon loads the last model too


class CpuVoiceUnavailableError(Exception):
    """The packages of the CPU voice are not installed; the message says what to do."""


class CpuSynthesiser:
    """The loaded model; thread-safe, deterministic.

    Raises:
        CpuVoiceUnavailableError: The extra `cpu` is not installed.
    """

    def __init__(self) -> None:
        # onnxruntime 1.30 and later ask DNS for a telemetry host at import: off, whatever the pin
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        try:
            from hibari import Hibari, dsp  # noqa: PLC0415 - heavy, and absent from GPU installs
        except ImportError as error:
            message = (
                "The CPU voice is not installed: pip install 'higgs-speech-gateway[cpu]', or set"
                " GATEWAY_UPSTREAMS to the address of an engine."
            )
            raise CpuVoiceUnavailableError(message) from error
        self._dsp: Any = dsp
        self._model: Any = Hibari(voice="heart", threads=1)  # any other name would download
        self.pcm(WARM_UP_TEXT, Timbre(1.0), 0.0)

    def pcm(self, text: str, timbre: Timbre, pause_seconds: float) -> bytes:
        """Say one piece.

        Args:
            text: At most a few hundred characters.
            timbre: The voice.
            pause_seconds: Silence to append.

        Returns:
            s16le mono 24 kHz, whole audio tokens (a multiple of 1,920 bytes; the rest of the last
            one is silence); empty if the text has no sound in this voice.
        """
        runs = [self._run(run, timbre) for run in _runs(self._phonemes(" ".join(text.split())))]
        runs = [run for run in runs if len(run)]
        if not runs:
            return b""
        samples = np.concatenate([*runs, np.zeros(int(pause_seconds * SAMPLE_RATE_HZ), np.float32)])
        padding = -len(samples) % SAMPLES_PER_TOKEN
        return bytes(np.rint(np.pad(samples, (0, padding)) * 32767).astype("<i2").tobytes())

    def _phonemes(self, text: str) -> str:
        try:
            return str(self._model.g2p(text))
        except (ValueError, IndexError):  # its number reader, on forms that it does not know
            words = text.split(" ")
            if len(words) == 1:
                logger.warning("a word of %d characters cannot be read", len(text))
                return ""
            return " ".join(filter(None, (self._phonemes(word) for word in words)))

    def _run(self, phonemes: str, timbre: Timbre) -> Floats:
        ids = self._model.ids(phonemes)
        if len(ids) < 3:  # noqa: PLR2004 - the two pads alone
            return np.zeros(0, np.float32)
        inputs = {
            "ids": np.asarray([ids], np.int64),
            "speed": np.asarray([timbre.tempo], np.float32),
        }
        outputs = self._model.sess.run(None, inputs)
        harmonic, rotation, noise, free, free_phase, f0 = (output[0] for output in outputs)
        voiced = f0 >= VOICED_ABOVE_HZ
        harmonic, rotation = resung(harmonic, rotation, np.where(voiced, f0, 180.0), timbre)
        raw = self._dsp.synth(
            harmonic,
            rotation,
            stretched(noise, timbre.formant),
            stretched(free, timbre.formant) - FREE_PHASE_REDUCTION * voiced.astype(np.float32),
            free_phase,
            np.where(voiced, np.maximum(f0 * timbre.pitch, LOWEST_PULSE_HZ), f0),
            np.random.default_rng(0),  # the same text always sounds the same
        )
        return trimmed(limited(np.asarray(raw, np.float32) * GAIN))


def _runs(phonemes: str) -> list[str]:
    """Cut a phoneme string where words end, so that no run of the model is long."""
    return _PHONEME_RUN.findall(phonemes)


def resung(
    harmonic: Floats, rotation: Floats, f0_hz: Floats, timbre: Timbre
) -> tuple[Floats, Floats]:
    """The harmonic branch for another pitch and throat.

    The model's magnitudes mean something only at the harmonics of its own f0; between them, where
    the new harmonics lie, they are read off the line between the two neighbours.

    Args:
        harmonic: Log magnitudes, float32, shape (601, frames).
        rotation: Phases before tanh, same shape.
        f0_hz: The model's own f0, shape (frames,), above 0.
        timbre: The new voice.
    """
    bins_a_harmonic = np.asarray(f0_hz, np.float32)[None, :] / BIN_HZ
    bins = np.arange(BINS, dtype=np.float32)[:, None]
    number = np.maximum(bins / timbre.formant / bins_a_harmonic, 1.0)
    below = np.floor(number)
    weight = number - below
    low = np.minimum(np.rint(below * bins_a_harmonic), BINS - 1).astype(np.int64)
    high = np.minimum(np.rint((below + 1) * bins_a_harmonic), BINS - 1).astype(np.int64)
    magnitude = np.take_along_axis(harmonic, low, 0) * (1 - weight)
    magnitude += np.take_along_axis(harmonic, high, 0) * weight
    # A lower voice has more harmonics in the same band: equal power, not equal amplitude.
    magnitude += np.float32(0.5 * np.log(timbre.pitch))
    nearest = np.where(weight < 0.5, low, high)  # noqa: PLR2004 - phases cannot be averaged
    return magnitude.astype(np.float32), np.take_along_axis(rotation, nearest, 0)


def stretched(spectrum: Floats, factor: float) -> Floats:
    """Move a log spectrum's shape up (factor above 1) or down; shape (601, frames)."""
    if factor == 1.0:
        return spectrum
    source = np.minimum(np.arange(BINS) / factor, BINS - 1)
    low = np.minimum(source.astype(np.int64), BINS - 2)
    weight = (source - low).astype(np.float32)[:, None]
    return np.asarray(spectrum[low] * (1 - weight) + spectrum[low + 1] * weight, np.float32)


def limited(samples: Floats) -> Floats:
    """Bend what is louder than the knee towards the ceiling; quieter samples stay as they are."""
    loud = np.abs(samples)
    room = LIMITER_CEILING - LIMITER_KNEE
    bent = LIMITER_KNEE + room * np.tanh((loud - LIMITER_KNEE) / room)
    return np.where(loud > LIMITER_KNEE, np.sign(samples) * bent, samples).astype(np.float32)


def trimmed(samples: Floats) -> Floats:
    """Cut the silence before and after, but for a short margin, and fade both ends."""
    frames = samples[: len(samples) // LEVEL_FRAME_SAMPLES * LEVEL_FRAME_SAMPLES]
    level = np.abs(frames).reshape(-1, LEVEL_FRAME_SAMPLES).max(axis=1, initial=0.0)
    heard = np.flatnonzero(level > SILENCE_BELOW)
    if len(heard) == 0:
        return np.zeros(0, np.float32)
    start = max(0, int(heard[0]) * LEVEL_FRAME_SAMPLES - LEAD_SAMPLES)
    end = min(len(samples), int(heard[-1] + 1) * LEVEL_FRAME_SAMPLES + TAIL_SAMPLES)
    part = samples[start:end].copy()
    ramp = np.linspace(0.0, 1.0, FADE_SAMPLES, dtype=np.float32)
    part[:FADE_SAMPLES] *= ramp
    part[-FADE_SAMPLES:] *= ramp[::-1]
    return part
