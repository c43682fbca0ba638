"""The tests' own ears: they must hear what is there, and notice what is not."""

from __future__ import annotations

import io
import math
import struct

import av
import numpy as np
import pytest

from tests.listen import (
    Floats,
    decode,
    normalised,
    peak_dbfs,
    pitch_hz,
    rms_dbfs,
    transcribe,
    word_error_rate,
)

RATE_HZ = 24_000


def tone(frequency_hz: float = 220.0, seconds: float = 1.0) -> Floats:
    """A sine at half of full scale."""
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return np.asarray(0.5 * np.sin(2 * np.pi * frequency_hz * time), np.float32)


def encoded(container: str, codec: str) -> bytes:
    """The tone as a file of FFmpeg's."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=RATE_HZ)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        samples = (tone() * 32767).astype(np.int16)[None, :]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = RATE_HZ
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp3", "libmp3lame"), ("ogg", "libopus"), ("adts", "aac"), ("flac", "flac"),
     ("wav", "pcm_s16le")],
)  # fmt: skip
def test_every_response_format_is_decoded(container: str, codec: str) -> None:
    """Duration within the codec's padding, pitch and level as they were."""
    samples, rate_hz = decode(encoded(container, codec))
    assert len(samples) / rate_hz == pytest.approx(1.0, abs=0.09)
    assert pitch_hz(samples, rate_hz) == pytest.approx(220, rel=0.005)
    assert rms_dbfs(samples) == pytest.approx(-9.03, abs=0.6)


def test_a_streamed_wav_and_raw_samples_are_decoded_exactly() -> None:
    """A WAV whose sizes are all ones, and bytes without any header, keep every sample."""
    pcm = (tone() * 32767).astype("<i2").tobytes()
    unknown = 0xFFFFFFFF
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", unknown, b"WAVE", b"fmt ", 16, 1, 1,
                         RATE_HZ, RATE_HZ * 2, 2, 16, b"data", unknown)  # fmt: skip
    for data, response_format in ((header + pcm, None), (pcm, "pcm")):
        samples, rate_hz = decode(data, response_format)
        assert rate_hz == RATE_HZ
        assert np.array_equal(np.rint(samples * 32768), np.frombuffer(pcm, "<i2"))


def test_levels_are_those_of_full_scale() -> None:
    """Half of full scale is -6 dB; a sine's mean lies 3 dB below its peak; silence has a floor."""
    assert peak_dbfs(tone()) == pytest.approx(20 * math.log10(0.5), abs=0.01)
    assert rms_dbfs(tone()) == pytest.approx(-9.03, abs=0.01)
    assert peak_dbfs(np.zeros(10, np.float32)) == rms_dbfs(np.zeros(10, np.float32)) == -120


def test_words_are_compared_without_case_and_punctuation() -> None:
    """Only misheard, missing and added words count."""
    assert normalised("Well-known: it\u2019s HERE!") == "well known it's here"
    assert word_error_rate("One two three four.", "one, two three") == 0.25


def test_noise_is_not_taken_for_words() -> None:
    """The recogniser's score separates speech from what is none."""
    noise = np.random.default_rng(1).standard_normal(3 * RATE_HZ).astype(np.float32) * 0.1
    assert word_error_rate("The old lighthouse keeper walked.", transcribe(noise, RATE_HZ)) > 0.4
    with pytest.raises(ValueError, match="voiced"):
        pitch_hz(noise, RATE_HZ)
