"""The bounds of a reading: no honest one is cut or refused, no runaway lasts for minutes."""
# ruff: noqa: RUF001 - text of every script is the point

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.text.estimate import (
    LONGEST_BASE_SECONDS,
    MOST_REMEMBERED,
    MOST_REMEMBERED_WORD_CHARACTERS,
    _measures,
    _paces,
    looks_silent,
    speech_seconds,
)
from gateway.text.normalise import normalise
from gateway.text.tokens import CONTEXT_TOKENS, OVERHEAD_TOKENS, max_tokens

quick = settings(deadline=None, max_examples=200)
PROSE = (
    "It was a bright cold day in April, and the clocks were striking thirteen. Nobody in the "
    "street looked up, for everyone had seen the posters and knew that winter would come back. "
    "An old man sold chestnuts at the corner; two children counted their coins and walked away."
)
SENTENCE = "The quick brown fox jumps over the lazy dog, and the dog does not mind it at all."


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (SENTENCE, len(SENTENCE) / 7),  # a very slow reader
        ("Съешь же ещё этих мягких французских булок, да выпей чаю.", 57 / 6),
        ("今天天气很好我们一起去公园散步吧" * 3, 48 / 3),
        ("きょうはとてもいいてんきですね", 15 / 3.5),
        ("憲法改正手続承認", 8 * 4 / 4),  # four morae a character, four morae a second
        ("안녕하세요 오늘은 날씨가 참 좋네요", 16 / 2),
        ("नमस्ते आप कैसे हैं आज मौसम बहुत अच्छा है", 41 / 5),
        ("مرحبا كيف حالك اليوم الطقس جميل جدا", 35 / 4.5),
        ("สวัสดีครับวันนี้อากาศดีมาก", 26 / 5),
        ("1234567890", 97 / 8),  # one billion two hundred thirty-four million …, slowly
        ("$1,234.56", 62 / 7),  # one thousand two hundred thirty-four dollars and …, very slowly
        ("1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0", 20 * 0.8),
        ("WWW, BBC, NASDAQ, HTTPS, AWS, WTF. " * 3, 3 * 24 * 0.8),
        ("html css sql xml json yaml", 21 * 0.6),
        ("100 % & 50 € + 3 $ = ?", 60 / 4),
        ("[music start] la la la [music end]", 30.0),
        ("[laugh]", 15.0),
        ("[SPEAKER0] Hi.\n[SPEAKER1] Ho.\n" * 4, 4 * 2 * 2.0),
        ("Hm.", 4.0),
        ("😀", 4.0),
        ("𝐛𝐨𝐥𝐝 ｆｕｌｌ", 6.0),
    ],
)
def test_a_slow_reading_is_never_cut(text: str, seconds: float) -> None:
    """Slow speech, spelled letters, long numbers and every script stay inside the bound."""
    for form in (text, normalise(text)):
        assert speech_seconds(form).longest_seconds >= seconds
        assert max_tokens(form, CONTEXT_TOKENS) >= 25 * seconds + OVERHEAD_TOKENS


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (SENTENCE, len(SENTENCE) / 30),
        ("今天天气很好我们一起去公园散步吧", 16 / 10),
        ("안녕하세요 오늘은 날씨가 참 좋네요", 16 / 10),
        ("きょうはとてもいいてんきですね", 15 / 16),
        ("مرحبا كيف حالك اليوم", 20 / 20),
        ("1,000,000,000", 0.6),  # one billion
        ("N" + "o" * 200 + "!", 1.0),
        ("a " + "." * 400, 0.2),
        ("😀" * 100, 0.1),
        ("[laugh] [cough] [SPEAKER0] ok", 0.3),
        ("Hi.", 0.15),
        ("ha" * 200, 0.8),
        ("Ha ha! " * 100, 0.3),
        ("I love you. " * 60, 0.5),
        ("爱你" * 100, 1.0),
        ("To be, or not to be! " * 40, 1.0),
        ("https://example.com/" + "a1b2c3d4e5f6g7h8" * 20, 1.5),
        ("═" * 200 + "x", 0.1),
    ],
)
def test_a_quick_reading_is_never_refused(text: str, seconds: float) -> None:
    """Haste, stretched words and signs that nobody reads out are no sign of a cut answer."""
    assert speech_seconds(text).shortest_seconds <= seconds


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        (SENTENCE, 4.5, 7.0),
        ("今天天气很好我们一起去公园散步吧", 3.0, 4.5),
        ("こんにちは世界", 0.9, 1.5),
        ("1234567890", 3.0, 6.0),
        ("=" * 80, 0.1, 1.0),
        ("0151 23456789, 0170 9876543", 7.0, 10.0),
        ("Привет, как у тебя дела сегодня?", 1.8, 3.2),
    ],
)
def test_the_likely_length_is_an_ordinary_one(text: str, least: float, most: float) -> None:
    """An ordinary reading lies near the estimate."""
    assert least <= speech_seconds(text).likely_seconds <= most


def test_a_runaway_is_far_from_the_engines_own_bound() -> None:
    """A word that never ends is stopped after seconds, not after five minutes."""
    assert speech_seconds("Hello.").longest_seconds < 10
    assert speech_seconds(SENTENCE).longest_seconds < 60


any_text = st.text(max_size=80).filter(lambda text: "[" not in text and "<" not in text)


@quick
@given(text=st.text(max_size=80))
def test_no_figure_is_ever_zero_and_they_are_in_order(text: str) -> None:
    """Any text at all has bounds that a generation can be given."""
    estimate = speech_seconds(text)
    assert 0 < estimate.shortest_seconds <= estimate.likely_seconds <= estimate.longest_seconds


@quick
@given(text=any_text, more=any_text)
def test_more_text_never_has_a_lower_bound(text: str, more: str) -> None:
    """The bounds grow with the text; the shortest one but for a word that more text repeats."""
    short, long = speech_seconds(text), speech_seconds(text + more)
    assert short.likely_seconds <= long.likely_seconds + 1e-9
    assert short.longest_seconds <= long.longest_seconds + 1e-9


def test_the_factor_widens_the_bound_alone() -> None:
    """An operator whose voices are slower widens the bound; the other figures stay."""
    estimate = speech_seconds(SENTENCE)
    assert estimate.widened_seconds(2) > 1.8 * estimate.longest_seconds - 5
    assert estimate.widened_seconds(1) == estimate.longest_seconds
    assert estimate.widened_seconds(0) == max(estimate.likely_seconds, LONGEST_BASE_SECONDS)
    assert max_tokens(SENTENCE, CONTEXT_TOKENS, 2) > max_tokens(SENTENCE, CONTEXT_TOKENS)


@pytest.mark.parametrize(
    "text", ["0151 2345 6789, " * 9, "1234567890" * 15, "WWWXYZ " * 21, "50 % + " * 21, "★→🎉" * 50]
)
def test_a_short_text_never_reserves_minutes(text: str) -> None:
    """150 digits, capitals or signs are no reason to wait for more than two minutes of audio."""
    assert len(text) >= 140
    assert speech_seconds(text).longest_seconds < 122


@pytest.mark.parametrize("share", [0.05, 0.1, 0.15])
def test_an_answer_that_ends_early_is_surely_shorter_than_its_text(share: float) -> None:
    """Ordinary prose that stops after a tenth of its time was cut."""
    seconds = share * len(PROSE) / 14
    assert seconds < speech_seconds(PROSE).shortest_seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "...", "—", " \n\t", "?!", "***", "~~~", "│──│", "• •", "\u200b"),
        *(
            "[SPEAKER0] .",
            "🎉",
            "★★★★★",
            "$$",
            "→",
            "♪",
            "👩🏽\u200d🚀",
            "🇩🇪",
            "❤️",
            "%",
            "€ &",
            "=>",
            "\u3164",
        ),
    ],
)
def test_what_nobody_can_pronounce_is_silent(text: str) -> None:
    """Probes, rules, emoji, arrows and lone signs have nothing to say; no engine is asked."""
    assert looks_silent(text)


@pytest.mark.parametrize(
    "text", ["a", "7", "½", "5 %", "Ⅷ", "٣", "你", "[laugh]", "<SE>[Laughter]</SE>", "ー", "🎉 ok"]
)
def test_what_may_be_said_is_not_silent(text: str) -> None:
    """Letters and numbers of any script and sound events go to the engine."""
    assert not looks_silent(text)


def test_a_long_text_is_estimated_in_no_time() -> None:
    """A hundred thousand characters do not hold up the event loop."""
    text = "Hello wörld, 123! 你好。" * 5000
    speech_seconds(text)
    started = time.thread_time()
    max_tokens(text, CONTEXT_TOKENS)
    assert time.thread_time() - started < 0.5


def test_what_is_remembered_of_words_is_bounded() -> None:
    """Made-up words without end take no memory without end, and are measured as before."""
    before = speech_seconds("Hello there, how are you?")
    for number in range(3 * MOST_REMEMBERED):
        speech_seconds(f"{number} {number:x}")
    speech_seconds("x" * 10_000 + " y")
    for remembered in (_measures, _paces):
        assert 0 < len(remembered) <= MOST_REMEMBERED
        assert max(map(len, remembered)) <= MOST_REMEMBERED_WORD_CHARACTERS
    assert speech_seconds("Hello there, how are you?") == before
