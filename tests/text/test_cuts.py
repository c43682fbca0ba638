# ruff: noqa: RUF001  (the signs of other scripts look like ASCII, and are meant)
from __future__ import annotations

import pytest

from gateway.text.cuts import (
    character_cuts,
    clause_cuts,
    parts,
    sentence_cuts,
    turn_cuts,
    word_cuts,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Smith paid $3.14 for v1.2.3 at 10:30. Then he left.", 2),
        ("J. R. R. Tolkien wrote it. Mr. Lee read it.", 2),
        ('"Is it true?" he asked. "It is!" Nobody spoke.', 3),
        ("He left (it was late.) and came back... And then? What?! Well.", 4),
        ("Das kostet 1.000 Euro, d. h. viel. Am 3. Oktober 2020 war es so.", 2),
        ("Approx. 5 kg, see No. 5 of Example.Com today.", 1),
        ('"Hm! he said, and left. [laugh] Bd. eins fehlt.', 2),
        ("Oui. Y\u00a0.", 2),
        ("你好。你是谁？「我很好！」他说。再见！", 5),
        ("元気ですか？はい。そうです。", 3),
        ("नमस्ते। आप कैसे हैं? मैं ठीक हूँ।", 3),
        ("كيف حالك؟ أنا بخير. هذا جيد۔ شكرا", 4),
        ("One\u00a0two.\u2028Three\u00a0four.\u0085Five.", 3),
    ],
)
def test_sentences_end_where_a_reader_would_stop(text: str, expected: int) -> None:
    """Abbreviations, initials, numbers, quotes and the full stops of other scripts are known."""
    found = list(parts(text, sentence_cuts(text)))
    assert "".join(found) == text
    assert len(found) == expected, found


def test_sentences_longer_than_the_window_are_found_whole() -> None:
    """A window's end is never taken for the end of a sentence."""
    long_sentence = "Word " * 900 + "end. "
    text = "Short one. " + long_sentence + "Another short one. " + long_sentence
    found = list(parts(text, sentence_cuts(text)))
    assert found == ["Short one. ", long_sentence, "Another short one. ", long_sentence]


def test_a_tag_stays_with_the_words_it_governs() -> None:
    """Not even a blank line between them separates a speaker from what is said."""
    text = "[SPEAKER0]\n\nHello there.\n\n[SPEAKER1]\nWell."
    turns = list(parts(text, turn_cuts(text)))
    assert turns == ["[SPEAKER0]\n\nHello there.\n\n", "[SPEAKER1]\nWell."]
    assert list(parts(turns[1], clause_cuts(turns[1]))) == ["[SPEAKER1]\nWell."]


def test_an_event_of_two_words_is_one_word() -> None:
    """`[humming start]` is never torn."""
    text = "so [humming start] la [SPEAKER1] now"
    assert list(parts(text, word_cuts(text))) == [
        "so ",
        "[humming start] ",
        "la ",
        "[SPEAKER1] ",
        "now",
    ]


@pytest.mark.parametrize(
    "unit",
    [
        "e\u0301",
        "👩‍👩‍👧",
        "🇩🇪",
        "👍🏽",
        "हि",
        "क्ष",
        "เก",
        "ที่",
        "각",
        "🏴\U000e0067\U000e007f",
        "\r\n",
    ],
)
def test_a_text_without_spaces_is_cut_between_letters(unit: str) -> None:
    """No mark is torn from its letter, no flag and no family apart."""
    text = unit * 50
    for count in range(2, 40):
        for cut in character_cuts(text, count):
            assert cut % len(unit) == 0


def test_a_number_within_a_script_without_spaces_stays_whole() -> None:
    """A cut in Chinese goes before 2026, not into it."""
    text = "在" * 20 + "2026" + "年" * 18
    assert list(character_cuts(text, 2)) == [20]


@pytest.mark.parametrize("event", ["[humming start]", "<SE>[Laughter]</SE>", "[SPEAKER1] 在"])
def test_an_event_within_a_script_without_spaces_stays_whole(event: str) -> None:
    """Wherever the middle falls, it is moved out of the brackets."""
    for before in range(30):
        text = "在" * before + event + "在" * (30 - before)
        for cut in character_cuts(text, 2):
            assert event in (text[:cut] + "|" + text[cut:])
