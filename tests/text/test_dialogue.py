from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.text.boundary import Boundary
from gateway.text.cuts import SPEAKER_TAG
from gateway.text.dialogue import (
    Turn,
    dialogue_text,
    is_dialogue,
    iter_generations,
    parse_turns,
    speakers_of,
)
from gateway.text.estimate import speech_seconds

SENTENCE = "The river ran slowly past the old mill, and nobody in the village spoke of it again. "
WORDS = st.text(st.characters(exclude_characters="[]"), min_size=1, max_size=60).filter(str.strip)
TURNS = st.lists(
    st.builds(
        lambda speaker, text, times: Turn(speaker, (text.strip() + " ") * times),
        st.integers(0, 3),
        WORDS,
        st.sampled_from([1, 1, 1, 30, 200]),
    ),
    max_size=20,
)


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("", []),
        ("Hello.", [Turn(0, "Hello.")]),
        ("[SPEAKER1] Hi.", [Turn(1, "Hi.")]),
        (
            "[SPEAKER0] Hi.\n[SPEAKER1] Well.\n\n[SPEAKER0]Bye.",
            [Turn(0, "Hi."), Turn(1, "Well."), Turn(0, "Bye.")],
        ),
        ("Once upon a time. [SPEAKER1] Hi.", [Turn(0, "Once upon a time."), Turn(1, "Hi.")]),
        ("[SPEAKER0] [SPEAKER1] \n [SPEAKER2] Here.", [Turn(2, "Here.")]),
        ("[SPEAKER0]", []),
        ("  \n[SPEAKER7]\n\nOne.\n\nTwo.", [Turn(7, "One.\n\nTwo.")]),
        ("[SPEAKER12] a [SPEAKER012] b", [Turn(12, "a"), Turn(12, "b")]),
        ("[SPEAKER] a [S1] [speaker1] b", [Turn(0, "[SPEAKER] a [S1] [speaker1] b")]),
        ("[SPEAKER1] He said [laugh] no.", [Turn(1, "He said [laugh] no.")]),
    ],
)  # fmt: skip
def test_turns_are_read_from_their_tags(text: str, turns: list[Turn]) -> None:
    """Every tag begins a turn; what stands before the first is the first speaker's."""
    assert parse_turns(text) == turns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello.", False),
        ("[SPEAKER0] Hello.", False),
        ("[SPEAKER0] Hello. [SPEAKER0] Again.", False),
        ("[SPEAKER1] Hello. [SPEAKER01] Again.", False),
        ("[SPEAKER0] Hello. [SPEAKER1] Hi.", True),
    ],
)
def test_a_dialogue_has_two_speakers(text: str, *, expected: bool) -> None:
    """Two or more different tags make a dialogue."""
    assert is_dialogue(text) is expected


def test_speakers_are_told_in_the_order_of_their_first_words() -> None:
    """Each once."""
    assert speakers_of("[SPEAKER2] a [SPEAKER0] b [SPEAKER2] c") == (2, 0)


def test_a_short_dialogue_is_one_generation() -> None:
    """The model speaks a dialogue best in one go."""
    turns = parse_turns("[SPEAKER0] Hi. [SPEAKER1] Well. [SPEAKER0] Bye.")
    (segment,) = iter_generations(turns)
    assert segment.text == "[SPEAKER0] Hi.\n[SPEAKER1] Well.\n[SPEAKER0] Bye."


def test_a_long_dialogue_is_cut_between_turns() -> None:
    """No turn of ordinary length is torn, and every generation fits the budget."""
    turns = [Turn(number % 3, SENTENCE.strip()) for number in range(60)]
    segments = list(iter_generations(turns))
    assert [turn for segment in segments for turn in parse_turns(segment.text)] == turns
    assert {segment.before for segment in segments[1:]} == {Boundary.TURN}
    assert 6 <= len(segments) <= 12


def test_a_monologue_in_a_dialogue_keeps_its_speaker() -> None:
    """The parts of a turn that is too long each begin with its tag."""
    turns = [Turn(0, "Tell me."), Turn(1, (SENTENCE * 40).strip()), Turn(0, "I see.")]
    segments = list(iter_generations(turns))
    assert len(segments) > 3
    assert all(SPEAKER_TAG.match(segment.text) for segment in segments)
    spoken = [turn for segment in segments for turn in parse_turns(segment.text)]
    assert [turn.speaker for turn in spoken] == [0, *[1] * (len(spoken) - 2), 0]
    assert {segment.before for segment in segments[1:]} <= {Boundary.SENTENCE, Boundary.TURN}


def test_a_turn_follows_a_monologue_as_a_turn() -> None:
    """The pause behind the last part of a long turn is that between speakers."""
    turns = [Turn(1, (SENTENCE * 40).strip()), Turn(0, (SENTENCE * 9).strip())]
    *_, last = iter_generations(turns)
    assert last.text.startswith("[SPEAKER0]")
    assert last.before is Boundary.TURN


def test_each_turn_can_be_a_generation_of_its_own() -> None:
    """Then the pauses between turns are the gateway's to set."""
    turns = [Turn(0, "Hi."), Turn(0, "Still me."), Turn(1, "Well.")]
    segments = list(iter_generations(turns, one_turn_each=True))
    assert [segment.text for segment in segments] == [dialogue_text([turn]) for turn in turns]
    assert [segment.before for segment in segments[1:]] == [Boundary.TURN] * 2


@given(turns=TURNS, one_turn_each=st.booleans(), budget=st.sampled_from([10.0, 60.0]))
@settings(max_examples=150, deadline=None)
def test_regrouping_loses_no_word_and_no_speaker(
    turns: list[Turn], *, one_turn_each: bool, budget: float
) -> None:
    """Whoever said a sign before still says it, in the same order, in a generation that fits."""
    before = [(t.speaker, sign) for t in turns for sign in "".join(t.text.split())]
    segments = list(
        iter_generations(
            turns,
            likely_seconds_budget=budget,
            shortest_whole_characters=0,
            one_turn_each=one_turn_each,
        )
    )
    spoken = [turn for segment in segments for turn in parse_turns(segment.text)]
    assert [(t.speaker, sign) for t in spoken for sign in "".join(t.text.split())] == before
    for segment in segments:
        assert SPEAKER_TAG.match(segment.text)
        assert speech_seconds(segment.text).likely_seconds <= budget * 1.02


def test_a_dialogue_without_turns_says_nothing() -> None:
    """Tags alone are not spoken."""
    assert list(iter_generations([])) == []
