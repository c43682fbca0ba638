"""Runaway audio ends at its bound or in its silence, and honest audio passes untouched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audio.pcm import silence
from gateway.audio.runaway import KEPT_QUIET_SECONDS, QUIET_BELOW, RunawayGuard
from tests.audio.hearing import RATE_HZ, blocks, encode, speechlike

SPEECH = speechlike(1.0)
HOUR_SAMPLES = 3600 * RATE_HZ
KEPT_BYTES = int(KEPT_QUIET_SECONDS * RATE_HZ) * 2


def loud_until(pcm: bytes) -> int:
    """Bytes up to the last loud sample."""
    samples = np.abs(np.frombuffer(pcm, "<i2").astype(int))
    return (int(np.flatnonzero(samples >= QUIET_BELOW)[-1]) + 1) * 2


def test_honest_audio_passes_untouched() -> None:
    """Speech with pauses below the limit comes out as it went in, bound not reached."""
    pcm = SPEECH + silence(2.9) + SPEECH + silence(2.5)
    guard = RunawayGuard(HOUR_SAMPLES, 3.0)
    assert encode(guard, blocks(pcm)) == pcm
    assert guard.ended is None


def test_audio_of_exactly_the_bound_is_not_a_runaway() -> None:
    """The engine's own bound and this one may meet: nothing is cut, nothing counted."""
    guard = RunawayGuard(RATE_HZ, 3.0)
    assert len(encode(guard, blocks(SPEECH))) == len(SPEECH)
    assert guard.ended is None


@pytest.mark.parametrize("block_samples", [1, 333, 480, 100_000])
def test_audio_longer_than_plausible_ends_at_the_bound(block_samples: int) -> None:
    """Whole samples up to the bound, faded over the last 5 ms so that the cut does not click."""
    guard = RunawayGuard(12_345, 3.0)
    out = encode(guard, blocks(SPEECH, block_samples))
    assert guard.ended == "too_long"
    assert len(out) == 12_345 * 2
    fade = 120 * 2
    assert out[:-fade] == SPEECH[: len(out) - fade]
    last = np.abs(np.frombuffer(out, "<i2")[-2:])
    assert last.max() < 600
    assert guard.feed(SPEECH) == b""


@pytest.mark.parametrize("block_samples", [333, 480, 1_000_000])
@pytest.mark.parametrize("noise", [0, QUIET_BELOW - 1])
def test_silence_without_end_is_dropped_but_for_a_second(block_samples: int, noise: int) -> None:
    """Near-silence over the limit ends the audio; a second of it stays as its end."""
    quiet = np.random.default_rng(0).integers(-noise, noise + 1, 10 * RATE_HZ).astype("<i2")
    guard = RunawayGuard(HOUR_SAMPLES, 3.0)
    pcm = SPEECH + quiet.tobytes() + SPEECH
    out = encode(guard, blocks(pcm, block_samples))
    assert guard.ended == "silence"
    speech_bytes = loud_until(SPEECH)
    assert out == pcm[: speech_bytes + KEPT_BYTES]


def test_silence_ends_the_audio_as_soon_as_it_has_lasted_too_long() -> None:
    """The engine is stopped at the limit, not at the end of its tokens."""
    guard = RunawayGuard(HOUR_SAMPLES, 3.0)
    guard.feed(SPEECH)
    guard.feed(silence(2.9))
    assert guard.ended is None
    guard.feed(silence(0.12))
    assert guard.ended == "silence"


def test_silence_from_the_start_is_a_runaway_too() -> None:
    """An engine that says nothing at all is stopped."""
    guard = RunawayGuard(HOUR_SAMPLES, 2.0)
    assert len(encode(guard, blocks(silence(5.0)))) == KEPT_BYTES
    assert guard.ended == "silence"


def test_a_pause_of_speech_is_not_held_up() -> None:
    """Pauses under a second reach the client as they come."""
    guard = RunawayGuard(HOUR_SAMPLES, 8.0)
    guard.feed(SPEECH)
    passed = sum(len(guard.feed(block)) for block in blocks(silence(0.9)))
    assert passed == len(silence(0.9))


def test_the_loudest_negative_sample_is_loud() -> None:
    """-32,768 has no positive twin in 16 bits; it is still no silence."""
    guard = RunawayGuard(HOUR_SAMPLES, 0.5)
    pcm = np.full(RATE_HZ, -32_768, "<i2").tobytes()
    assert encode(guard, blocks(pcm)) == pcm
    assert guard.ended is None


part = st.tuples(st.booleans(), st.integers(1, 900))


@given(
    parts=st.lists(part, min_size=1, max_size=8),
    sizes=st.lists(st.integers(0, 350), min_size=1, max_size=5).filter(any),
    max_samples=st.integers(1, 3000),
    quiet_samples=st.integers(1, 600),
)
@settings(max_examples=150, deadline=None)
def test_any_slicing_gives_the_same_audio_and_the_same_verdict(
    parts: list[tuple[bool, int]], sizes: list[int], max_samples: int, quiet_samples: int
) -> None:
    """Speech and silence of any lengths, cut anywhere."""
    pcm = b"".join((b"\x00\x10" if loud else b"\x05\x00") * count for loud, count in parts)
    limit = quiet_samples / RATE_HZ

    def run(pieces: list[bytes]) -> tuple[bytes, str | None]:
        guard = RunawayGuard(max_samples, limit)
        guard._kept_samples = min(200, quiet_samples)  # so that short audio reaches the holding
        return encode(guard, pieces), guard.ended

    pieces, start, turn = [], 0, 0
    while start < len(pcm):
        size = 2 * sizes[turn % len(sizes)]
        pieces.append(pcm[start : start + size])
        start, turn = start + size, turn + 1
    out, ended = run(pieces)
    assert (out, ended) == run([pcm])
    assert len(out) <= max_samples * 2
    if ended is None:
        assert len(out) == len(pcm)
