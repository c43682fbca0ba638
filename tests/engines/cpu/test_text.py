"""Cutting and reading text for the CPU voice."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.cpu.text import (
    CLAUSE_PAUSE_SECONDS,
    PARAGRAPH_PAUSE_SECONDS,
    PIECE_CHARACTERS,
    SENTENCE_PAUSE_SECONDS,
    TURN_PAUSE_SECONDS,
    cut,
    pieces,
    readable,
    refusal,
    turns,
)
from gateway.text.normalise import normalise

PROSE = st.lists(
    st.one_of(
        st.sampled_from(
            [". ", ", ", "\n", "\n\n", "! ", "?” ", "; ", " — ", "...", "   ", "\u0301"]
        ),
        st.text(alphabet="abcXYZé0.,\u2019🙂漢", min_size=1, max_size=300),
        st.text(min_size=1, max_size=20),
    ),
    max_size=30,
).map("".join)


def letters(text: str) -> str:
    """All characters but white space."""
    return "".join(text.split())


@given(PROSE, st.sampled_from([40, 120, PIECE_CHARACTERS]))
def test_cutting_loses_nothing_and_doubles_nothing(text: str, first_limit: int) -> None:
    """Whatever the text, its pieces in a row are the text, but for the space between them."""
    said = [piece for piece, _ in cut(text, first_limit)]
    assert letters("".join(said)) == letters(text)
    assert all(0 < len(piece) <= PIECE_CHARACTERS for piece in said)
    assert all(piece == piece.strip() for piece in said)


@given(st.lists(st.tuples(st.integers(0, 999), PROSE), max_size=6))
def test_every_turn_is_said_by_its_own_speaker(dialogue: list[tuple[int, str]]) -> None:
    """A dialogue's words reach the voice of the tag before them, in order."""
    dialogue = [(speaker, words.replace("[", "(")) for speaker, words in dialogue]
    text = "".join(f"[SPEAKER{speaker}]{words}" for speaker, words in dialogue)
    assert list(turns(text))[1:] == dialogue
    said = list(pieces(text))
    expected = "".join(letters(words) for _, words in dialogue)
    assert "".join(letters(piece.text) for piece in said) == expected
    speakers = {speaker for speaker, words in dialogue if letters(words)}
    assert {piece.speaker for piece in said} == speakers


@given(st.text(max_size=200))
def test_reading_never_fails_and_changes_nothing_twice(text: str) -> None:
    """Any text that a client can send is read; plain words stay as they are."""
    once = readable(text)
    assert readable(once) == once or "<" in text
    assert readable("It was plain, wasn't it?") == "It was plain, wasn't it?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One two. Three!", [("One two.", SENTENCE_PAUSE_SECONDS), ("Three!", None)]),
        ("Dr. Smith met J. K. Rowling.", [("Dr. Smith met J. K. Rowling.", None)]),
        ("It costs 3.50 e.g. in shops.", [("It costs 3.50 e.g. in shops.", None)]),
        ("A wrapped\nline goes on.", [("A wrapped\nline goes on.", None)]),
        ("A title\nThe text.", [("A title", SENTENCE_PAUSE_SECONDS), ("The text.", None)]),
        ("End.\n\nNext.", [("End.", PARAGRAPH_PAUSE_SECONDS), ("Next.", None)]),
        ("“Yes.” No.", [("“Yes.”", SENTENCE_PAUSE_SECONDS), ("No.", None)]),
    ],
)
def test_pieces_end_where_a_reader_would_pause(
    text: str, expected: list[tuple[str, float | None]]
) -> None:
    """Sentences, titles and paragraphs end a piece; abbreviations and wrapped lines do not."""
    said = list(cut(text))
    assert [piece for piece, _ in said] == [piece for piece, _ in expected]
    for (_, pause), (_, wanted) in zip(said, expected, strict=True):
        assert wanted is None or pause == wanted


def test_a_long_sentence_is_cut_at_a_clause_and_a_long_word_at_the_limit() -> None:
    """A sentence without end is cut at commas first, at words next, within a word only last."""
    clauses = ", ".join(["the rain went on and on over the hills"] * 12)
    said = list(cut(clauses))
    assert all(piece.endswith(",") for piece, _ in said[:-1])
    assert said[0][1] == CLAUSE_PAUSE_SECONDS
    words = [piece for piece, _ in cut("over " * 200)]
    assert all(piece.startswith("over") and piece.endswith("over") for piece in words)
    assert [len(piece) for piece, _ in cut("x" * 500)] == [240, 240, 20]


def test_the_first_piece_is_short_where_a_comma_allows_it() -> None:
    """The time to first audio is that of a clause, not of a long sentence."""
    text = "When the morning came at last over the hills, " + "the travellers went on and on " * 6
    first, second, *_ = pieces(text)
    assert first.text == "When the morning came at last over the hills,"
    assert second.text.startswith("the travellers")


def test_a_change_of_speaker_is_a_pause() -> None:
    """Two speakers do not fall into each other's words."""
    first, second = pieces("[SPEAKER0] Hello there. [SPEAKER1] Good morning.")
    assert (first.text, first.speaker) == ("Hello there.", 0)
    assert (second.text, second.speaker) == ("Good morning.", 1)
    assert first.pause_seconds == TURN_PAUSE_SECONDS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "\uff28\uff45\uff4c\uff4c\uff4f \ufb01ne \U0001d41b\U0001d428\U0001d425\U0001d41d",
            "Hello fine bold",
        ),
        ("H₂O and x² ①", "H2O and x² 1"),
        ("soft\u00adhyphen zero\u200bwidth", "softhyphen zerowidth"),
        ("a\x00b\ud800c", "a b c"),
        ("Well <SE>[Laughter]</SE> then", "Well   then"),
        ("<|scene_desc_start|>quiet<|scene_desc_end|>Hi<|AUDIO|>", " Hi "),
        ("12345678901234567890", "1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0"),
        ("1,234,567", "1,234,567"),
    ],
)
def test_text_is_made_readable(text: str, expected: str) -> None:
    """Odd forms of letters and digits are read like plain ones; markup is not read out."""
    assert readable(text) == expected


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("你好\uff0c世界", "Chinese"),
        ("Hello 你好", "Chinese"),
        ("こんにちは", "Japanese"),
        ("안녕하세요", "Hangul"),
        ("Привет, мир", "Cyrillic"),
        ("مرحبا", "Arabic"),
        ("नमस्ते", "Devanagari"),
        ("[SPEAKER0] 你好", "Chinese"),
        ("Καλημέρα κόσμε", "Greek"),
    ],
)
def test_scripts_that_the_voice_cannot_say_are_named(text: str, script: str) -> None:
    """Words that would silently be left out are refused, and the client learns why."""
    reason = refusal(readable(text))
    assert reason is not None
    assert script in reason


@pytest.mark.parametrize(
    "text",
    ["Hello! 👋🙂", "Café Zürich, naïve Łódź", "What is π?", "5 µm at 20 °C", "1234", ".", ""],
)
def test_stray_signs_beside_english_are_no_reason_to_refuse(text: str) -> None:
    """Emoji, accents, lone Greek letters and symbols stand in English texts all the time."""
    assert refusal(readable(text)) is None


def test_a_long_text_is_cut_only_as_far_as_it_is_wanted() -> None:
    """A text of a million characters gives its first piece at once."""
    text = "This is a sentence of some words. " * 30_000
    started = time.thread_time()  # of a processor: what else the machine does is no matter
    assert next(pieces(text)).text == "This is a sentence of some words."
    assert time.thread_time() - started < 0.5
    assert sum(1 for _ in cut("word " * 20_000)) > 400  # linear: else this takes minutes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3x - 4", "3x minus 4"),
        ("x - y", "x minus y"),
        ("5 - 3 = 2", "5 minus 3 = 2"),
        ("9 - 4", "9 minus 4"),
        ("3 - 5 = -2", "3 minus 5 = -2"),
        ("It is \u22124 today", "It is  minus 4 today"),
        ("3 * 4", "3 times 4"),
        ("6 / 2", "6 divided by 2"),
        ("5 €", "€5"),
        ("1,50 € or 20$", "€1.50 or $20"),
        ("1 000 € or 12 345,67 €", "€1000 or €12345.67"),
        ("1\u00a0000\u00a0000 people in 2000 300 times", "1000000 people in 2000 300 times"),
        ("1\N{VULGAR FRACTION ONE HALF} cups", "1 and \N{VULGAR FRACTION ONE HALF} cups"),
        ("10\u2076 or 10\u00b2\u00b3", "10 to the power of 6 or 10 to the power of 23"),
        ("10\u207b\u00b3, x\u00b2", "10 to the power of -3, x\u00b2"),
        ("1.5e-3 or 2E10", "1.5 times 10 to the power of -3 or 2 times 10 to the power of 10"),
        ("abc1e5, 3e8a, 0x1e5", "abc1e5, 3e8a, 0x1e5"),
        ("10 - 12 people, 2020 - 2024", "10 - 12 people, 2020 - 2024"),
        ("Room 5 - a good one", "Room 5 - a good one"),
        ("I - a man - said so", "I - a man - said so"),
        ("$5, £3.50 and/or 24/7", "$5, £3.50 and/or 24/7"),
    ],
)
def test_arithmetic_and_money_are_written_as_they_are_read(text: str, words: str) -> None:
    """The voice says "to" for a minus, and nothing for a sign of money behind its number."""
    assert readable(text) == words


def test_a_paragraph_pauses_longer_than_a_sentence_behind_the_gateway() -> None:
    """The gateway's normalising leaves the blank line that tells a paragraph."""
    said = list(pieces(readable(normalise("One is here.\n \n\nTwo is. Three is."))))
    assert [piece.text for piece in said] == ["One is here.", "Two is.", "Three is."]
    assert said[0].pause_seconds > said[1].pause_seconds == SENTENCE_PAUSE_SECONDS
