"""What locust's users hear is what a player would hear."""

from __future__ import annotations

import pytest

from gateway.audio.transcoder import BitRates, Transcoder
from loadtest.listening import Listener

SECONDS = 4
PCM = bytes(48_000 * SECONDS)


@pytest.mark.parametrize("response_format", ["pcm", "wav", "mp3"])
def test_the_bytes_of_each_format_are_worth_their_time(response_format: str) -> None:
    """Four seconds are four seconds, in whatever pieces they come."""
    codec = Transcoder(
        response_format,
        speed=1.0,
        sample_rate_hz=24_000,
        buffered=False,
        bit_rates=BitRates(96, 48, 64),
    )
    data = codec.feed(PCM) + codec.finish()
    heard = Listener(response_format, asked=10.0)
    for start in range(0, len(data), 3_001):
        heard.hear(data[start : start + 3_001], 10.5)
    assert heard.audio_seconds == pytest.approx(SECONDS, abs=0.15)  # MP3 pads to whole frames
    assert heard.first_audio_seconds == 0.5
    assert heard.underrun_seconds == 0
    assert heard.size_bytes == len(data)


def test_a_player_starves_when_audio_comes_late() -> None:
    """One second was there, the next came half a second after it had been played."""
    heard = Listener("pcm", asked=0.0)
    heard.hear(bytes(48_000), 0.2)
    heard.hear(bytes(48_000), 1.7)
    assert heard.first_audio_seconds == 0.2
    assert heard.underrun_seconds == pytest.approx(0.5)
    assert heard.longest_gap_seconds == pytest.approx(1.5)


def test_the_header_of_a_wav_file_is_no_audio() -> None:
    """A header that comes alone is not the first audio."""
    heard = Listener("wav", asked=0.0)
    heard.hear(bytes(44), 0.1)
    assert heard.first_audio_seconds is None
    heard.hear(bytes(4_800), 0.3)
    assert heard.first_audio_seconds == 0.3
    assert heard.audio_seconds == pytest.approx(0.1)
