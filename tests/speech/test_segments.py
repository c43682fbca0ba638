"""One segment of a long text by itself: what it does with failures that nobody planned for."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from gateway.errors import UpstreamProtocolError
from gateway.settings import load_settings
from gateway.speech.generation import WatchedGeneration
from gateway.speech.long_text import MOST_TRIES, SegmentAudio
from gateway.speech.prepare import GenerationPlan, prepare
from gateway.speech.request import SpeechRequest
from gateway.text.spoken_text import read_text

REQUEST = SpeechRequest("openai", read_text("Hello.", 10), "pcm", "mabel", "mabel")


Start = Callable[[GenerationPlan], Coroutine[Any, Any, WatchedGeneration]]


def begin(start: Start, *, whole: bool, may_repeat: bool) -> tuple[SegmentAudio, list[None]]:
    """A segment that is being made, and a list with an entry for each time its slot came back."""
    released: list[None] = []
    segment = SegmentAudio(
        REQUEST.text.written,
        prepare(REQUEST, load_settings()).plan(REQUEST.text.written),
        start,
        lambda: released.append(None),
        may_repeat=lambda _: may_repeat,
        keep=True,
        whole=whole,
    )
    return segment, released


def run(start: Start, *, whole: bool, may_repeat: bool = True) -> tuple[BaseException | None, int]:
    """Read a segment to its end; how it failed, and how often its slot came back."""

    async def read() -> tuple[BaseException | None, int]:
        segment, released = begin(start, whole=whole, may_repeat=may_repeat)
        try:
            async with asyncio.timeout(120):
                while await segment.read():
                    pass
        except (UpstreamProtocolError, ZeroDivisionError) as error:
            assert not segment.complete
            return error, len(released)
        return None, len(released)

    return asyncio.run(read())


@pytest.mark.parametrize("whole", [True, False])
def test_an_internal_error_is_never_taken_for_the_end(*, whole: bool) -> None:
    """Silence in place of a segment would look like an honest answer."""

    async def start(plan: GenerationPlan) -> WatchedGeneration:
        raise ZeroDivisionError(plan.generation.text)

    error, released = run(start, whole=whole)
    assert isinstance(error, ZeroDivisionError)
    assert released == 1


@pytest.mark.parametrize("whole", [True, False])
def test_a_segment_is_tried_a_bounded_number_of_times(*, whole: bool) -> None:
    """An upstream that always fails must not be asked for ever."""
    tries: list[GenerationPlan] = []

    async def start(plan: GenerationPlan) -> WatchedGeneration:
        tries.append(plan)
        raise UpstreamProtocolError("no audio")

    error, released = run(start, whole=whole)
    assert isinstance(error, UpstreamProtocolError)
    assert len(tries) == MOST_TRIES
    assert released == 1


@pytest.mark.parametrize("whole", [True, False])
def test_a_segment_is_not_made_again_where_the_retry_budget_is_spent(*, whole: bool) -> None:
    """Retries of segments must not multiply an outage either."""
    tries: list[GenerationPlan] = []

    async def start(plan: GenerationPlan) -> WatchedGeneration:
        tries.append(plan)
        raise UpstreamProtocolError("no audio")

    error, released = run(start, whole=whole, may_repeat=False)
    assert isinstance(error, UpstreamProtocolError)
    assert (len(tries), released) == (1, 1)


def test_a_segment_that_fails_as_it_is_closed_keeps_nothing() -> None:
    """Its failure would lead back to it: a circle that keeps recordings until garbage is sought."""

    async def start(plan: GenerationPlan) -> WatchedGeneration:
        raise ZeroDivisionError(plan.generation.text)

    async def close_at_once() -> weakref.ref[SegmentAudio]:
        segment, released = begin(start, whole=False, may_repeat=False)
        await asyncio.sleep(0)  # it has failed, and nobody has been told
        segment.close()
        await asyncio.sleep(0)
        assert released == [None]
        return weakref.ref(segment)

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(close_at_once())() is None
    finally:
        gc.enable()
