"""What is refused, left out and kept of a text whose script no engine at hand can say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UnspeakableText
from gateway.text.spoken_text import read_text
from gateway.text.writing_systems import foreign_passages, script_of, without_foreign
from gateway.upstream.capabilities import scripts_of

LATIN = frozenset({"LATIN"})


def read(text: str) -> tuple[str, int]:
    """What is spoken of a text, and how many letters are left out."""
    found = read_text(text, 100_000, normalised=False, scripts=LATIN)
    return found.spoken, found.left_out


@pytest.mark.parametrize(
    ("text", "spoken", "left_out"),
    [
        ("Hello there.", "Hello there.", 0),
        ("Café, naïve, Ångström, 5 µm, 1º, ²", "Café, naïve, Ångström, 5 µm, 1º, ²", 0),
        ("The word привет is Russian.", "The word  is Russian.", 6),
        ("Tokyo (東京) is big.", "Tokyo () is big.", 2),
        ("Ω is a letter, and so is Ж.", " is a letter, and so is .", 2),
        ("\N{PARTY POPPER} 12 + 3 = 15!", "\N{PARTY POPPER} 12 + 3 = 15!", 0),
        ("你好世界", "", 4),  # alone, as where a client cut: the cut does not matter
        ("** привет! **", "** ! **", 6),
        ("नमस्ते!", "!", 4),  # vowel signs go with their letters
        ("Ｈｉ, ℓ and K, ｶﾅ.", "Ｈｉ, ℓ and K, .", 2),  # noqa: RUF001
        ("sаle, привет́", "sale, ", 6),  # noqa: RUF001
        ("Неllо wоrld, PDFом", "Hello world, PDF", 2),  # noqa: RUF001
    ],
)
def test_little_is_left_out_and_counted(text: str, spoken: str, left_out: int) -> None:
    """Four words or 19 letters do not lose what a text says."""
    assert read(text) == (spoken, left_out)


@pytest.mark.parametrize(
    ("text", "script", "passage"),
    [
        ("Hello. Это очень важное сообщение для вас.", "Cyrillic", "Это очень важное сообщение"),
        ("One 二三四五六七八九十一二三四五六七八九十一 two", "Cjk", "二三四五六七八九十"),
        ("مرحبا كيف حالك اليوم يا صديقي", "Arabic", "مرحبا كيف"),
        ("а б в г д", "Cyrillic", "а б в г д"),  # noqa: RUF001
        ("а, б; в 1 г - д", "Cyrillic", "а, б"),  # noqa: RUF001
    ],
)
def test_a_long_passage_is_refused_and_named(text: str, script: str, passage: str) -> None:
    """400 with the first one, before the first byte."""
    with pytest.raises(UnspeakableText) as refused:
        read(text)
    assert script in refused.value.message
    assert passage in refused.value.message
    assert len(refused.value.message) < 160


@pytest.mark.parametrize("words", [1, 4, 5, 9])
def test_the_bound_is_five_words_or_twenty_letters(words: int) -> None:
    """Words of one letter, then one word of many."""
    for passage, refused in ((" ".join("ж" * words), words > 4), ("ж" * (15 + words), words > 4)):
        if refused:
            with pytest.raises(UnspeakableText):
                read(f"Well, {passage} it is.")
        else:
            assert read(f"Well, {passage} it is.")[1] > 0


def test_without_a_word_from_the_engines_nothing_is_judged() -> None:
    """An engine that tells no scripts may speak them all."""
    text = "Это очень важное сообщение для вас."
    assert read_text(text, 100, normalised=False).spoken == text


def test_japanese_is_whole_with_all_its_marks() -> None:
    """Marks that lengthen or repeat are letters of no other script."""
    japanese = scripts_of(["ja"])
    text = "コーヒー、らーめん、人々、ｶﾀｶﾅ。"
    assert without_foreign(text, japanese) == (text, 0)


@given(st.text(max_size=200))
def test_passages_hold_all_letters_that_are_left_out(text: str) -> None:
    """None twice, none missed, and what stays has no such letter."""
    kept, left_out = without_foreign(text, LATIN)
    assert sum(passage.letters for passage in foreign_passages(text, LATIN)) == left_out
    assert len(kept) + left_out <= len(text)
    assert all(script_of(character) in {None, "LATIN"} for character in kept)
