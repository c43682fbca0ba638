"""A line of prose is read by a look at it, and as the general way would read it."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.text import spoken_text
from gateway.text.dialogue import speakers_of
from gateway.text.estimate import looks_silent, speech_seconds
from gateway.text.normalise import normalise
from gateway.text.sanitise import sanitise_text
from gateway.text.spoken_text import read_text, spoken_form

PIECES = st.sampled_from(
    [
        *(
            "Hello",
            "a",
            "B",
            "7",
            "www",
            "http",
            "https",
            "mailto",
            "data",
            "x",
            "SPEAKER0",
            "laugh",
        ),
        *(" ", " ", " ", "  ", ".", ",", ":", ";", "!", "?", "'", '"', "-", "-", "--", "/", "//"),
        *(
            "1.",
            "12:30",
            "3.5",
            "well-known",
            "e.g.",
            "http:",
            "www.",
            "(",
            ")",
            "_",
            "*",
            "#",
            "é",
        ),
    ]
)


@settings(deadline=None, max_examples=1000)
@given(text=st.lists(PIECES, min_size=1, max_size=12).map("".join))
@example(text="1. a well-known fact")
@example(text="see http:")
@example(text="see http: ")
@example(text="www.7")
@example(text="www.,7")
@example(text="7-7")
@example(text="a - b")
@example(text="- b")
def test_prose_is_read_as_by_the_general_way(text: str) -> None:
    """What the look takes for prose comes out of markup, normalisation and sanitising the same."""
    if not text.strip():
        return
    found = read_text(text, 1000)
    assert found.spoken == spoken_form(text) == normalise(spoken_form(text))
    assert found.silent == looks_silent(sanitise_text(found.spoken))
    assert found.speakers == speakers_of(found.spoken)
    assert found.likely_seconds == speech_seconds(found.spoken).likely_seconds
    assert read_text(text, 1000, scripts=frozenset({"LATIN"})).spoken == found.spoken


@pytest.mark.parametrize(
    "text",
    [
        "It is a well-known fact: the North Sea, deep and cold, froze in 1963.",
        "Don't! 'Why \"not\"', she said; what for? He left at 12:30 for example.com",
    ],
)
def test_prose_is_not_parsed_as_markup(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hyphen or a colon costs no look for tables and lists."""
    monkeypatch.setattr(spoken_text, "readable", lambda _: pytest.fail("parsed"))
    assert read_text(text, 1000).spoken.startswith(text)
