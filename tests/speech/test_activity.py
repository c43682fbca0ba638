"""The process's memory of what runs and ran: bounded, and without the texts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.errors import UpstreamTimeout
from gateway.speech.activity import HIDDEN, MOST_REMEMBERED, Activity, RequestProgress
from gateway.speech.request import SpeechRequest
from gateway.text.spoken_text import SpokenText
from gateway.upstream.dialect import Sampling


def a_request(
    text: str = "Hello.", voice: str = "alloy", likely_seconds: float = 1.0
) -> SpeechRequest:
    """A request."""
    spoken = SpokenText(text, text, True, (), silent=False, likely_seconds=likely_seconds)
    sampling = Sampling(temperature=0.5)
    return SpeechRequest("chatterbox", spoken, "wav", None, voice, sampling=sampling)


@contextmanager
def noted(activity: Activity, request: SpeechRequest) -> Iterator[RequestProgress]:
    """A request for as long as the block, and with its error."""
    entry = activity.note(request)
    try:
        yield entry
    except BaseException as error:
        entry.close(error)
        raise
    entry.close(None)


def test_texts_are_hidden_unless_the_operator_shows_them() -> None:
    """Whoever may ask for the status has not written the texts."""
    long = "a" * 101
    for show, expected in ((False, HIDDEN), (True, "a" * 100 + "...")):
        activity = Activity(show_texts=show)
        with noted(activity, a_request(long)) as entry:
            assert entry.text_preview == expected
            assert entry.text_length == 101
        assert long not in repr(activity.over)


def test_what_runs_tells_how_far_it_is() -> None:
    """From the audio made so far; it is complete only at the end."""
    activity = Activity()
    made = 0
    with noted(activity, a_request(likely_seconds=200.0)) as entry:
        assert (entry.step, entry.share, entry.likely_end) == ("waiting", 0.0, None)
        entry.speak(lambda: made)
        made = 4_800_000  # a hundred seconds
        assert entry.share == pytest.approx(0.5)
        assert entry.chunks > 1
        assert entry.likely_end is not None
        made = 48_000_000
        assert entry.share < 1
        assert activity.running == [entry]
    entry.judge("ok")
    assert (entry.step, entry.share) == ("completed", 1.0)
    assert activity.running == []
    assert activity.over == [entry]


def test_an_end_is_what_became_of_it() -> None:
    """An error with its words, a client that left, a stream that broke off."""
    activity = Activity()
    with (
        pytest.raises(UpstreamTimeout),
        noted(activity, a_request()),
    ):
        raise UpstreamTimeout("too late")
    assert activity.over[0].step == "failed"
    assert activity.over[0].error == "too late"
    with noted(activity, a_request()) as left:
        pass
    assert left.step == "cancelled"
    with noted(activity, a_request()) as cut:
        cut.speak(lambda: 0)
    cut.judge("truncated")
    assert cut.step == "failed"


def test_the_past_is_bounded_and_can_be_forgotten() -> None:
    """The latest come first; the total goes on."""
    activity = Activity()
    for number in range(MOST_REMEMBERED + 5):
        with noted(activity, a_request(str(number), f"voice{number}")):
            pass
    assert len(activity.over) == MOST_REMEMBERED
    assert activity.over[0].voice == f"voice{MOST_REMEMBERED + 4}"
    assert activity.total == MOST_REMEMBERED + 5
    assert activity.forget() == MOST_REMEMBERED
    assert activity.over == []
    assert activity.total == MOST_REMEMBERED + 5


def test_what_is_over_holds_nothing_of_the_request() -> None:
    """Neither its source of audio nor its text stays in memory."""
    activity = Activity()
    source = bytearray(24_000)
    with noted(activity, a_request()) as entry:
        entry.speak(source.__len__)
        assert entry.share == pytest.approx(0.5)
    source.clear()
    assert entry.share == pytest.approx(0.5)
    assert sys.getrefcount(source) == 2  # this function's own, and the call's
