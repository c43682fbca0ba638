"""Tests of the windows: joins without a gap, exact context, chunks that grow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.higgs.codec_windows import (
    CONTEXT_FRAMES,
    FIRST_FRAMES,
    MOST_FRAMES,
    SIZES,
    Pace,
    frames_wanted,
    next_window,
)
from engines.voice import TOKENS_PER_SECOND


@given(st.integers(1, 400), st.lists(st.integers(1, 60), min_size=1, max_size=400))
def test_windows_give_every_frame_once_with_its_context(total: int, arrivals: list[int]) -> None:
    """However the frames arrive."""
    sent = ready = 0
    lengths = set()
    for step in [*arrivals, total]:
        ready = min(total, ready + step)
        while window := next_window(sent, ready, finished=ready == total):
            assert window.sound_from == sent
            assert 0 <= window.start <= max(0, sent - CONTEXT_FRAMES)
            assert sent < window.sound_to <= ready >= window.stop
            right = window.stop - window.sound_to
            assert right >= CONTEXT_FRAMES or (ready == total == window.stop)
            if window.frames not in SIZES:
                assert ready == total < SIZES[-1], "only the end of a short stream is odd"
            lengths.add(window.frames)
            sent = window.sound_to
    assert sent == total
    assert max(lengths) <= SIZES[-1]


@given(st.integers(0, 300), st.integers(1, 80))
def test_the_frames_wanted_are_just_enough(sent: int, new: int) -> None:
    """With one frame less the window has fewer new ones."""
    wanted = frames_wanted(sent, new)

    def gives(ready: int) -> int:
        window = next_window(sent, ready, finished=False)
        return window.new_frames if window else 0

    enough = min(new, gives(10_000))
    assert gives(wanted) >= enough
    assert gives(wanted - 1) < enough


@pytest.mark.parametrize("frames_per_second", [35, 40, 60, 120, 350])
def test_a_player_that_starts_at_once_never_starves(frames_per_second: int) -> None:
    """From 1.4 times real time on; the clock is simulated."""
    pace = Pace()
    wanted = frames_wanted(0, pace.wanted_frames())
    chunks = []
    for now in np.arange(0, 20, 0.002):
        ready = int(now * frames_per_second)
        if ready >= wanted or now >= pace.due_seconds():
            window = next_window(pace.sent, ready, finished=False)
            if window is not None:
                pace.advance(window.new_frames, float(now))
                chunks.append(window.new_frames)
                wanted = frames_wanted(pace.sent, pace.wanted_frames())
        if pace.began_seconds is not None:
            dry = pace.began_seconds + pace.sent / TOKENS_PER_SECOND
            assert dry >= now, "the player ran dry"
    assert chunks[0] == FIRST_FRAMES
    assert max(chunks) <= MOST_FRAMES
    if frames_per_second >= 60:
        assert chunks[-1] >= 20
