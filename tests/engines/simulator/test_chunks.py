"""Which audio leaves the container at which token: docs/contract.md section 2, as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.simulator.chunks import Chunk, Generation, plan_chunks, planned_frames

UNBOUNDED = 8192


def plan(frames: int, size: int = 25, overlap: int = 25, **more: int) -> list[Chunk]:
    """The chunks of an answer that is not cut."""
    generation = Generation(frames, **{"max_tokens": UNBOUNDED, **more})
    return list(plan_chunks(generation, size, overlap))


def test_the_defaults_send_what_was_seen() -> None:
    """17 frames after token 32, 25 after token 68, then every 25; the tail holds the rest."""
    assert plan(120) == [
        Chunk(32, 0, 17),
        Chunk(68, 17, 25),
        Chunk(93, 42, 25),
        Chunk(118, 67, 25),
        Chunk(130, 92, 28),
    ]
    assert Generation(120, UNBOUNDED).natural_tokens == 120 + 11


@pytest.mark.parametrize(
    ("size", "overlap", "frames"),
    [(25, 25, 120), (5, 25, 112), (-3, 25, 77), (25, 1, 96), (25, 11, 120), (8, 11, 120)],
)
def test_knobs_below_the_safe_ones_lose_the_frames_that_were_counted(
    size: int, overlap: int, frames: int
) -> None:
    """Of 120 frames, the container delivered just so many."""
    assert planned_frames(Generation(120, UNBOUNDED), size, overlap) == frames


@pytest.mark.parametrize("overlap", [7, 8, 9, 10])
def test_overlaps_from_7_to_10_drop_up_to_two_frames_of_some_lengths(overlap: int) -> None:
    """The last rows of some answers are too few to be decoded."""
    lost = {
        frames - planned_frames(Generation(frames, UNBOUNDED), 25, overlap)
        for frames in range(2, 300)
    }
    assert 0 in lost
    assert max(lost) == 2


@given(
    frames=st.integers(2, 2000),
    size=st.integers(8, 250),
    overlap=st.integers(11, 60),
    lead=st.integers(0, 1),
)
def test_safe_knobs_lose_and_repeat_nothing(
    frames: int, size: int, overlap: int, lead: int
) -> None:
    """Every frame once, in order, whatever the length."""
    done = token = 0
    for chunk in plan(frames, size, overlap, lead_tokens=lead):
        assert chunk.decoded
        assert chunk.first_frame == done
        assert chunk.at_token >= token
        done, token = done + chunk.frames, chunk.at_token
    assert done == frames


@given(size=st.integers(9, 25), overlap=st.integers(11, 40))
def test_first_and_second_chunk_leave_when_the_formula_says(size: int, overlap: int) -> None:
    """The first after s+7 tokens with s-8 frames, the second after 2s+o-7, then every s."""
    first, second, third, *_ = plan(500, size, overlap)
    assert (first.at_token, first.frames) == (size + 7, size - 8)
    assert (second.at_token, second.frames) == (2 * size + overlap - 7, size)
    assert third.at_token - second.at_token == size


def test_a_chat_is_one_token_later() -> None:
    """Its model says <|audio_out_bos|> itself: frames + 12 tokens."""
    assert plan(120, lead_tokens=1)[0].at_token == 33
    assert Generation(120, UNBOUNDED, lead_tokens=1).natural_tokens == 132


@pytest.mark.parametrize(("max_tokens", "frames"), [(1, 0), (10, 0), (11, 3), (40, 32), (131, 120)])
def test_a_cut_answer_holds_the_rows_that_were_made(max_tokens: int, frames: int) -> None:
    """10 tokens or fewer carry no audio; above, 8 rows of them hold no whole frame."""
    generation = Generation(120, max_tokens)
    assert planned_frames(generation, 25, 25) == frames
    assert generation.truncated == (max_tokens < 131)


def test_a_single_frame_is_too_short_to_be_decoded() -> None:
    """The container answers it with an empty body."""
    assert planned_frames(Generation(1, UNBOUNDED), 25, 25) == 0
    assert planned_frames(Generation(2, UNBOUNDED), 25, 25) == 2


@given(
    frames=st.integers(1, 300),
    size=st.integers(-40, 40),
    overlap=st.integers(-40, 40),
    max_tokens=st.integers(1, 400),
)
def test_no_knob_makes_the_plan_endless(
    frames: int, size: int, overlap: int, max_tokens: int
) -> None:
    """At most one chunk a token and one tail, none after the last token."""
    generation = Generation(frames, max_tokens)
    chunks = list(plan_chunks(generation, size, overlap))
    assert len(chunks) <= generation.tokens + 1
    assert all(0 < chunk.at_token <= generation.tokens for chunk in chunks)
    assert all(chunk.first_frame + chunk.frames <= frames for chunk in chunks)
