from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.audio.join import (
    FADE_SECONDS,
    LEVEL_SECONDS,
    MOST_HELD_SECONDS,
    PAUSES_SECONDS,
    QUIET_LEVEL,
    Joiner,
)
from gateway.text.boundary import Boundary

RATE_HZ = 24_000
Samples = NDArray[np.int16]


def tone(seconds: float, level: int = 8000, hz: float = 220.0, phase: float = 0.0) -> Samples:
    """A voice, as far as a joiner is concerned."""
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return np.asarray(np.rint(level * np.sin(2 * np.pi * hz * time + phase)), dtype=np.int16)


def hush(seconds: float, level: int = 30) -> Samples:
    """A room in which nobody speaks: near-silence, not zeros."""
    random = np.random.default_rng(5)
    return random.integers(-level, level + 1, int(seconds * RATE_HZ), dtype=np.int16)


def speech(lead: float, voiced: float, tail: float, level: int = 8000) -> Samples:
    """A segment as engines give it."""
    return np.concatenate((hush(lead), tone(voiced, level), hush(tail)))


def join(
    segments: list[tuple[Boundary, Samples]],
    slice_bytes: int = 48_000,
    joiner: Joiner | None = None,
) -> Samples:
    """The stream that a joiner makes of segments, fed in slices."""
    joiner = joiner or Joiner()
    out = b""
    for kind, samples in segments:
        joiner.start_segment(kind)
        pcm = samples.tobytes()
        for at in range(0, len(pcm), slice_bytes):
            out += joiner.feed(pcm[at : at + slice_bytes])
        out += joiner.end_segment()
    return np.frombuffer(out + joiner.finish(), dtype=np.int16)


def gaps_seconds(samples: Samples) -> list[float]:
    """Pauses within a stream, those of a tone's zero crossings left out."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > QUIET_LEVEL)
    steps = np.diff(loud)
    return [float(step) / RATE_HZ for step in steps[steps > 0.004 * RATE_HZ]]


def rms(samples: Samples) -> float:
    """Root mean square in sample units."""
    return float(np.sqrt(np.mean(np.square(samples.astype(np.float64)))))


@pytest.mark.parametrize(
    "segment",
    [
        speech(0.3, 1.0, 0.46),
        speech(0, 0.5, 0),
        speech(0, 0.2, 3.0),
        hush(2.0),
        hush(0),
        tone(0.0001),
        np.concatenate((speech(0.1, 0.3, 2.0), speech(0.2, 0.3, 0.1))),
    ],
)
def test_a_single_segment_passes_unchanged(segment: Samples) -> None:
    """Who asks for one sentence gets the engine's audio, to the sample."""
    assert np.array_equal(join([(Boundary.PARAGRAPH, segment)]), segment)


def test_the_first_segment_is_sent_as_it_comes() -> None:
    """No speech waits, not even the silence before it: only silence behind it is held."""
    joiner = Joiner()
    joiner.start_segment(Boundary.PARAGRAPH)
    lead, voice = hush(0.3).tobytes(), tone(0.5, phase=0.5)
    assert joiner.feed(lead) == lead
    while abs(int(voice[-1])) <= QUIET_LEVEL:
        voice = voice[:-1]
    assert joiner.feed(voice.tobytes()) == voice.tobytes()
    assert joiner.feed(hush(MOST_HELD_SECONDS).tobytes()) == b""
    assert len(joiner.feed(hush(0.25).tobytes())) == int(0.25 * RATE_HZ) * 2


@pytest.mark.parametrize("kind", list(Boundary))
@pytest.mark.parametrize(("lead", "tail"), [(0.3, 0.46), (0.0, 0.0), (0.01, 0.3), (1.5, 0.02)])
def test_a_join_pauses_as_long_as_its_kind_wants(kind: Boundary, lead: float, tail: float) -> None:
    """Whatever silence the engine put around its segments, the pause is the same."""
    joined = join(
        [(Boundary.PARAGRAPH, speech(0.2, 1.0, tail)), (kind, speech(lead, 1.0, 0.1))],
    )
    (gap,) = gaps_seconds(joined)
    # Within the fades, and a few samples of a tone's own zero crossing.
    assert gap == pytest.approx(PAUSES_SECONDS[kind], abs=2 * FADE_SECONDS + 0.002)


def test_pauses_can_be_set() -> None:
    """A dialogue may breathe between its turns as its author likes."""
    segments = [(Boundary.TURN, speech(0.3, 1.0, 0.4)) for _ in range(3)]
    joined = join(segments, joiner=Joiner({Boundary.TURN: 1.2}))
    assert gaps_seconds(joined) == pytest.approx([1.2, 1.2], abs=0.02)
    touching = join(segments, joiner=Joiner({Boundary.TURN: 0.0}))
    assert max(gaps_seconds(touching), default=0.0) < 3 * FADE_SECONDS


def test_every_join_has_its_own_pause() -> None:
    """A long pause does not linger."""
    kinds = (Boundary.PARAGRAPH, Boundary.PARAGRAPH, Boundary.SENTENCE, Boundary.CLAUSE)
    joined = join([(kind, speech(0.3, 1.0, 0.4)) for kind in kinds])
    assert gaps_seconds(joined) == pytest.approx([0.5, 0.25, 0.15], abs=0.02)


@pytest.mark.parametrize("pause", [-0.1, 10.1, float("nan")])
def test_a_pause_out_of_range_is_refused(pause: float) -> None:
    """Ten seconds of nothing are the most that anyone gets."""
    with pytest.raises(ValueError, match="Pauses"):
        Joiner({Boundary.WORD: pause})


def test_silence_already_sent_counts_for_the_pause() -> None:
    """Behind two seconds of silence there is no further pause."""
    joined = join(
        [
            (Boundary.PARAGRAPH, speech(0.1, 0.5, 2.0)),
            (Boundary.PARAGRAPH, speech(0.3, 0.5, 0.1)),
        ]
    )
    (gap,) = gaps_seconds(joined)
    assert 1.5 < gap < 1.75


def test_a_segment_without_speech_leaves_one_pause() -> None:
    """Between two paragraphs, a segment of silence is not heard at all."""
    joined = join(
        [
            (Boundary.PARAGRAPH, speech(0.1, 0.5, 0.3)),
            (Boundary.PARAGRAPH, hush(4.0)),
            (Boundary.SENTENCE, hush(0)),
            (Boundary.CLAUSE, speech(0.3, 0.5, 0.1)),
        ]
    )
    assert gaps_seconds(joined) == pytest.approx([0.5], abs=0.02)


@pytest.mark.parametrize("phase", [0.0, 0.7, 1.57, 3.0])
def test_segments_cut_within_a_sound_are_joined_without_a_click(phase: float) -> None:
    """No step in the waveform is larger than the voice's own."""
    voice = tone(0.7, phase=phase)[:-37]
    joined = join([(Boundary.WORD, voice), (Boundary.WORD, voice), (Boundary.SENTENCE, voice)])
    largest = int(np.abs(np.diff(voice.astype(np.int32))).max())
    assert int(np.abs(np.diff(joined.astype(np.int32))).max()) <= largest * 1.5 + 2


@pytest.mark.parametrize(
    ("level", "expected"),
    [(8000, 8000), (6500, 8000), (10_000, 8000), (2000, 2000 * 1.4125), (24_000, 24_000 / 1.4125)],
)
def test_later_segments_are_brought_to_the_level_of_the_first(level: int, expected: float) -> None:
    """As loud as the first where 3 dB suffice, and never changed by more."""
    first = speech(0.2, 1.5, 0.3)
    joined = join(
        [(Boundary.SENTENCE, first), (Boundary.SENTENCE, speech(0.2, 2.0, 0.3, level))],
    )
    assert np.array_equal(joined[: int(1.6 * RATE_HZ)], first[: int(1.6 * RATE_HZ)])
    assert rms(joined[-int(1.5 * RATE_HZ) : -int(0.5 * RATE_HZ)]) * np.sqrt(2) == pytest.approx(
        expected, rel=0.03
    )


def test_pauses_within_a_segment_do_not_make_it_louder() -> None:
    """The level is that of the voice, not of the silence between its words."""
    halting = np.concatenate([speech(0.05, 0.1, 0.2)] * 8)
    joined = join([(Boundary.SENTENCE, speech(0, 1.0, 0)), (Boundary.SENTENCE, halting)])
    assert int(np.abs(joined).max()) <= 8200


def test_a_gain_never_overflows() -> None:
    """Samples near full scale are clipped, not wrapped around."""
    quiet_start = np.concatenate((tone(1.2, 9000), tone(0.5, 32_000)))
    joined = join([(Boundary.WORD, tone(1.0, 15_000)), (Boundary.WORD, quiet_start)])
    assert int(joined.max()) == 32_767
    steps = np.abs(np.diff(joined.astype(np.int32)))
    assert int(steps.max()) < 6000


def test_levels_can_be_left_alone() -> None:
    """Then a later segment's speech is sent as it comes, too."""
    joiner = Joiner(steady_level=False)
    segments = [(Boundary.SENTENCE, tone(1.0)), (Boundary.SENTENCE, tone(1.0, 5000))]
    joined = join(segments, joiner=joiner)
    assert int(np.abs(joined[-RATE_HZ // 2 :]).max()) == 5000


def test_what_is_held_is_bounded() -> None:
    """An hour of silence or of speech leaves no more behind than a second."""
    joiner = Joiner()
    held = []
    for kind in (Boundary.SENTENCE, Boundary.PARAGRAPH, Boundary.TURN):
        joiner.start_segment(kind)
        for part in (hush(1.0), tone(1.0), hush(1.0), tone(0.3)):
            for _ in range(20):
                joiner.feed(part.tobytes())
                held.append(joiner._held)
        joiner.end_segment()
    most = LEVEL_SECONDS + MOST_HELD_SECONDS + max(PAUSES_SECONDS.values())
    assert 0 < max(held) <= most * RATE_HZ


PARTS = st.one_of(
    st.builds(hush, st.sampled_from([0.0, 0.002, 0.1, 0.7])),
    st.builds(
        tone,
        st.sampled_from([0.0005, 0.05, 0.4, 1.3]),
        st.sampled_from([150, 500, 8000, 30_000]),
        st.sampled_from([110.0, 997.0]),
        st.sampled_from([0.0, 1.0]),
    ),
)
SEGMENTS = st.lists(
    st.tuples(
        st.sampled_from(list(Boundary)),
        st.lists(PARTS, min_size=1, max_size=4).map(np.concatenate),
    ),
    min_size=1,
    max_size=4,
)


@given(SEGMENTS, st.integers(150, 9000), st.integers(1, 9000), st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_any_slicing_gives_the_same_audio(
    segments: list[tuple[Boundary, Samples]], least: int, span: int, seed: int
) -> None:
    """However the upstream's chunks fall, odd bytes included, the stream is the same."""
    at_once = join(segments, slice_bytes=10**9)
    random = np.random.default_rng(seed)
    joiner = Joiner()
    out = b""
    for kind, samples in segments:
        joiner.start_segment(kind)
        pcm = samples.tobytes()
        cuts = np.cumsum(random.integers(least, least + span, len(pcm) // least + 1)).tolist()
        for low, high in pairwise([0, *[cut for cut in cuts if cut < len(pcm)], len(pcm)]):
            out += joiner.feed(pcm[low:high])
        out += joiner.end_segment()
    out += joiner.finish()
    assert np.array_equal(np.frombuffer(out, dtype=np.int16), at_once)


@given(SEGMENTS)
@settings(max_examples=60, deadline=None)
def test_no_speech_is_lost_at_a_join(segments: list[tuple[Boundary, Samples]]) -> None:
    """The stream has as many loud stretches' worth of samples as its segments, fades aside."""

    def span(samples: Samples) -> int:
        loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > QUIET_LEVEL)
        return int(loud[-1] - loud[0]) + 1 if len(loud) else 0

    joined = join(segments, joiner=Joiner(steady_level=False))
    assert len(joined) >= sum(span(samples) for _, samples in segments)


def test_half_a_sample_at_a_segments_end_shifts_nothing() -> None:
    """An upstream that breaks off in the middle of a sample does not turn the rest to noise."""
    joiner = Joiner()
    joiner.start_segment(Boundary.SENTENCE)
    out = joiner.feed(tone(0.5).tobytes() + b"\x7f") + joiner.end_segment()
    joiner.start_segment(Boundary.SENTENCE)
    out += joiner.feed(tone(1.5).tobytes()) + joiner.finish()
    assert len(out) % 2 == 0
    assert int(np.abs(np.frombuffer(out, dtype=np.int16)).max()) <= 8100


def test_its_state_can_be_read() -> None:
    """For logs and for whoever debugs a join."""
    joiner = Joiner()
    joiner.start_segment(Boundary.SENTENCE)
    joiner.feed(tone(0.5).tobytes())
    joiner.start_segment(Boundary.SENTENCE)
    assert repr(joiner).startswith("<Joiner leading pause=6000")
