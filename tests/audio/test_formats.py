"""Every response format, decoded back: duration, rate, pitch, level and the samples themselves."""

from __future__ import annotations

import hashlib
import io
import struct
import wave

import numpy as np
import pytest

from gateway.audio.encoders import ENCODERS, RESPONSE_FORMATS, BitRates
from gateway.audio.encoders.mp3 import legal_kbps
from gateway.audio.encoders.wav import header
from gateway.audio.pcm import SAMPLE_RATES_HZ
from gateway.audio.transcoder import Transcoder
from tests.audio.hearing import (
    as_floats,
    blocks,
    correlation,
    delay_of,
    encode,
    hear,
    pitch_hz,
    speechlike,
    tone,
)

LOSSLESS = ("flac", "wav", "pcm")
LOSSY = ("mp3", "opus", "aac")
SPEEDS = (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
PADDING_SECONDS = 0.08
LONGEST_FRAME_SAMPLES = 1152  # MP3's from 32 kHz on; a codec pads by up to two frames
SPEECH = speechlike(2.0)
TONE = tone(150.0, 2.0)
CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


def test_every_response_format_of_the_api_has_an_encoder_and_its_content_type() -> None:
    """The table holds what the API promises, no more and no less."""
    assert tuple(ENCODERS) == RESPONSE_FORMATS
    assert {name: Transcoder(name).content_type for name in ENCODERS} == CONTENT_TYPES


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("response_format", RESPONSE_FORMATS)
def test_duration_follows_the_speed_and_pitch_does_not(response_format: str, speed: float) -> None:
    """Decoded duration within 1 % (and the codec's padding), pitch within 1 %, at every speed."""
    transcoder = Transcoder(response_format, speed=speed)
    heard = hear(encode(transcoder, blocks(TONE)), response_format)
    expected = 2.0 / speed
    assert abs(heard.seconds - expected) <= 0.01 * expected + PADDING_SECONDS
    assert transcoder.output_seconds == pytest.approx(expected, abs=0.001)
    assert pitch_hz(heard.samples, heard.rate_hz) == pytest.approx(150.0, rel=0.01)


@pytest.mark.parametrize("response_format", LOSSLESS)
def test_lossless_formats_return_the_very_samples(response_format: str) -> None:
    """WAV, PCM and FLAC decode to exactly what the engine said."""
    heard = hear(encode(Transcoder(response_format), blocks(SPEECH)), response_format)
    assert np.array_equal(heard.samples, as_floats(SPEECH))


@pytest.mark.parametrize("response_format", LOSSY)
def test_lossy_formats_sound_like_the_original(response_format: str) -> None:
    """After alignment the samples correlate, and loudness is kept within half a decibel."""
    heard = hear(encode(Transcoder(response_format), blocks(SPEECH)), response_format)
    original = as_floats(SPEECH)
    if heard.rate_hz == 48_000:  # Opus decodes to 48 kHz
        original = np.interp(np.arange(original.size * 2) / 2, np.arange(original.size), original)
    assert correlation(heard.samples, original) > 0.98
    decibels = 20 * np.log10(np.std(heard.samples[: original.size]) / np.std(original))
    assert abs(decibels) < 0.5


@pytest.mark.parametrize("sample_rate_hz", SAMPLE_RATES_HZ)
@pytest.mark.parametrize("response_format", RESPONSE_FORMATS)
def test_every_sample_rate_works_in_every_format(response_format: str, sample_rate_hz: int) -> None:
    """The stream says the rate that was asked for, and plays at the right pitch and length."""
    transcoder = Transcoder(response_format, sample_rate_hz=sample_rate_hz)
    data = encode(transcoder, blocks(TONE))
    heard = hear(data, response_format)
    rate_hz = sample_rate_hz if response_format == "pcm" else heard.rate_hz
    if response_format == "opus":
        at = data.index(b"OpusHead") + 12
        carried = {22_050: 24_000, 44_100: 48_000}.get(sample_rate_hz, sample_rate_hz)
        assert struct.unpack_from("<I", data, at)[0] == carried == transcoder.sample_rate_hz
        assert heard.rate_hz == 48_000
    else:
        assert rate_hz == sample_rate_hz == transcoder.sample_rate_hz
    padding_seconds = 0.02 + 2 * LONGEST_FRAME_SAMPLES / rate_hz
    assert heard.samples.size / rate_hz == pytest.approx(2.0, abs=padding_seconds)
    assert pitch_hz(heard.samples, rate_hz) == pytest.approx(150.0, rel=0.01)
    if response_format in LOSSLESS:
        assert heard.samples.size == 2 * sample_rate_hz
        assert np.std(heard.samples) == pytest.approx(np.std(as_floats(TONE)), rel=0.01)


@pytest.mark.parametrize(
    ("response_format", "first_bytes_ms", "held_ms"),
    [
        ("mp3", 40, 79),  # 46 of it is LAME's delay, which every MP3 has
        ("opus", 40, 23),
        ("aac", 100, 128),  # 43 of it is AAC's delay
        ("flac", 20, 1),
        ("wav", 20, 1),
        ("pcm", 20, 1),
    ],
)
def test_a_listener_hears_audio_soon_after_it_was_fed(
    response_format: str, first_bytes_ms: float, held_ms: float
) -> None:
    """First bytes and held-back audio stay under each format's bound, fed 20 ms at a time."""
    delay = delay_of(lambda: Transcoder(response_format), response_format)
    assert delay.first_bytes_ms <= first_bytes_ms + 0.01
    assert delay.held_max_ms <= held_ms


@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize("kbps", [1, 8, 320, 9999])
@pytest.mark.parametrize("sample_rate_hz", [8000, 24_000, 48_000])
@pytest.mark.parametrize("response_format", LOSSY)
def test_any_bit_rate_is_brought_into_the_format_s_range(
    response_format: str, sample_rate_hz: int, kbps: int, *, buffered: bool
) -> None:
    """A bit rate that the format has not at this sample rate is no failure."""
    transcoder = Transcoder(
        response_format,
        sample_rate_hz=sample_rate_hz,
        buffered=buffered,
        bit_rates=BitRates(kbps, kbps, kbps),
    )
    heard = hear(encode(transcoder, [TONE[:24_000]]), response_format)
    assert heard.seconds == pytest.approx(0.5, abs=0.3 if sample_rate_hz == 8000 else 0.1)


def test_a_bit_rate_setting_reaches_its_codec() -> None:
    """Twice the bits, about twice the bytes."""
    for response_format in LOSSY:
        small = encode(Transcoder(response_format, bit_rates=BitRates(32, 32, 32)), [SPEECH])
        large = encode(Transcoder(response_format, bit_rates=BitRates(64, 64, 64)), [SPEECH])
        assert 1.5 < len(large) / len(small) < 2.5, response_format


def test_mp3_bit_rates_keep_to_the_ranges_of_mpeg() -> None:
    """MPEG-1 has 32 to 320 kbit/s, MPEG-2 8 to 160, MPEG-2.5 8 to 64."""
    assert [legal_kbps(kbps, 48_000) for kbps in (8, 96, 400)] == [32, 96, 320]
    assert [legal_kbps(kbps, 24_000) for kbps in (1, 96, 400)] == [8, 96, 160]
    assert [legal_kbps(kbps, 8000) for kbps in (1, 32, 96)] == [8, 32, 64]


def test_mp3_is_frames_from_the_first_byte_on_and_players_know_its_length() -> None:
    """No tag delays the first frame, and the constant bit rate gives the duration."""
    data = encode(Transcoder("mp3"), blocks(SPEECH))
    assert data[0] == 0xFF
    assert data[1] & 0xE0 == 0xE0
    assert b"Xing" not in data[:200]
    assert b"Info" not in data[:200]
    assert hear(data, "mp3").container_seconds == pytest.approx(2.0, abs=PADDING_SECONDS)


def test_a_streamed_wav_says_that_its_length_is_unknown() -> None:
    """Both sizes are 0xFFFFFFFF, as OpenAI streams them, and the header leads the first samples."""
    first = Transcoder("wav").feed(SPEECH[:100])
    assert len(first) == 144
    assert first[:4] == b"RIFF"
    assert struct.unpack_from("<I", first, 4)[0] == 0xFFFFFFFF
    assert first[36:40] == b"data"
    assert struct.unpack_from("<I", first, 40)[0] == 0xFFFFFFFF
    assert first[44:] == SPEECH[:100]


@pytest.mark.parametrize("sample_rate_hz", SAMPLE_RATES_HZ)
def test_a_buffered_wav_has_exact_sizes(sample_rate_hz: int) -> None:
    """Python's strict `wave` reads every sample of it."""
    transcoder = Transcoder("wav", sample_rate_hz=sample_rate_hz, buffered=True)
    data = encode(transcoder, blocks(SPEECH))
    assert struct.unpack_from("<I", data, 4)[0] == len(data) - 8
    with wave.open(io.BytesIO(data)) as file:
        assert file.getframerate() == sample_rate_hz
        assert file.getnframes() == transcoder.output_seconds * sample_rate_hz == 2 * sample_rate_hz
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        assert len(file.readframes(file.getnframes())) == 4 * sample_rate_hz


def test_a_wav_too_long_for_its_header_says_unknown() -> None:
    """Sizes are 32 bits; more than they hold is no small number."""
    assert header(24_000, 2**32)[40:44] == b"\xff" * 4


def test_a_buffered_flac_knows_its_samples_and_their_checksum() -> None:
    """STREAMINFO holds length and MD5, so players can seek and verify."""
    data = encode(Transcoder("flac", buffered=True), blocks(SPEECH))
    assert hear(data, "flac").container_seconds == 2.0
    assert data[26:42] == hashlib.md5(SPEECH, usedforsecurity=False).digest()
    assert np.array_equal(hear(data, "flac").samples, as_floats(SPEECH))


def test_a_streamed_flac_starts_with_audio_and_not_with_padding() -> None:
    """Header and first frame are far below FFmpeg's 8 KB of reserved zeros."""
    assert 0 < len(Transcoder("flac").feed(SPEECH[:960])) < 1200
