"""Tempo and sample rate alone: delay, duration, fidelity."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.audio.resample import Resampler
from gateway.audio.tempo import Tempo, tempo_filters
from tests.audio.hearing import RATE_HZ, as_floats, as_pcm, blocks, encode, pitch_hz, tone

SPEEDS = (0.25, 0.4, 0.5, 0.75, 1.1, 1.5, 2.0, 3.0, 4.0)
RATES_HZ = (8000, 16_000, 22_050, 44_100, 48_000)


@pytest.mark.parametrize("speed", SPEEDS)
def test_tempo_changes_duration_and_not_pitch(speed: float) -> None:
    """Four seconds become 4/speed seconds to the sample, at the same pitch, to the very end."""
    out = as_floats(encode(Tempo(speed), blocks(tone(150.0, 4.0))))
    assert out.size == round(4.0 * RATE_HZ / speed)
    assert np.std(out[-1440:]) > 0.6 * np.std(out)
    assert pitch_hz(out, RATE_HZ) == pytest.approx(150.0, rel=0.01)


@pytest.mark.parametrize("speed", SPEEDS)
def test_tempo_speaks_soon(speed: float) -> None:
    """The first output comes after at most 160 ms of input, more follows steadily."""
    tempo = Tempo(speed)
    lengths = [len(tempo.feed(block)) for block in blocks(tone(150.0, 1.0))]
    first = next(index for index, length in enumerate(lengths) if length)
    assert (first + 1) * 20 <= 160
    fed, out = 1.0, sum(lengths) / 2 / RATE_HZ
    assert fed - out * speed <= 0.16


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("samples", [1, 2, 481, 961, 2403])
def test_tempo_takes_audio_of_any_length(speed: float, samples: int) -> None:
    """One sample or a sample more than the filter's blocks: still the right length."""
    out = encode(Tempo(speed), [tone(150.0, 1.0)[: samples * 2]])
    assert len(out) // 2 == round(samples / speed)


def test_speeds_below_a_half_are_two_equal_steps() -> None:
    """FFmpeg's filter ends at 0.5; 0.25 is 0.5 twice, and 1 is no filter at all."""
    assert [options["tempo"] for _, options in tempo_filters(0.25)] == ["0.5", "0.5"]
    assert len(tempo_filters(0.5)) == 1
    assert tempo_filters(1.0) == []


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_resampling_keeps_length_level_and_phase(rate_hz: int) -> None:
    """A 1 kHz tone comes out as a 1 kHz tone, sample for sample, noise 70 dB down."""
    time = np.arange(2 * RATE_HZ) / RATE_HZ
    pcm = as_pcm(0.5 * np.sin(2 * np.pi * 1000 * time))
    out = as_floats(encode(Resampler(rate_hz), blocks(pcm)))
    assert out.size == 2 * rate_hz
    ideal = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(out.size) / rate_hz)
    middle = slice(rate_hz // 10, -rate_hz // 10)
    error = np.std(out[middle] - ideal[middle])
    assert 20 * np.log10(error / np.std(ideal)) < -70


@pytest.mark.parametrize("hz", [5000, 7000, 9000])
def test_resampling_down_lets_no_alias_through(hz: int) -> None:
    """What 8 kHz cannot carry is gone and not folded into the speech."""
    time = np.arange(RATE_HZ) / RATE_HZ
    out = as_floats(encode(Resampler(8000), blocks(as_pcm(0.5 * np.sin(2 * np.pi * hz * time)))))
    assert 20 * np.log10(np.std(out[400:-400]) + 1e-9) < -70


@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
def test_resampling_up_makes_no_image_of_high_sounds(rate_hz: int) -> None:
    """A hiss at 10.5 kHz does not come back mirrored at 13.5 kHz."""
    time = np.arange(RATE_HZ) / RATE_HZ
    pcm = as_pcm(0.5 * np.sin(2 * np.pi * 10_500 * time))
    out = as_floats(encode(Resampler(rate_hz), blocks(pcm)))[2000:-2000]
    power = np.abs(np.fft.rfft(out * np.hanning(out.size))) ** 2
    hz = np.fft.rfftfreq(out.size, 1 / rate_hz)
    assert 10 * np.log10(power[hz > 12_500].max() / power.max()) < -70


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_resampling_holds_back_almost_nothing(rate_hz: int) -> None:
    """At most 5 ms of audio wait inside."""
    resampler, fed, got = Resampler(rate_hz), 0, 0
    for block in blocks(tone(150.0, 0.5)):
        fed += len(block) // 2
        got += len(resampler.feed(block)) // 2
        assert fed / RATE_HZ - got / rate_hz < 0.005
