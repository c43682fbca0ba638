"""The bounds of a reading: no honest one is cut or refused, no runaway lasts for minutes."""
# ruff: noqa: RUF001 - text of every script is the point

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.text.estimate import (
    CONTEXT_TOKENS,
    DEFAULT_PROMPT_TOKENS,
    OVERHEAD_TOKENS,
    estimate_input_tokens,
    looks_silent,
    max_tokens,
    speech_seconds,
)
from gateway.text.normalise import normalise

quick = settings(deadline=None, max_examples=200)
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
        ("1234567890", 97 / 7),  # one billion two hundred thirty-four million …, very slowly
        ("1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0", 20 * 0.8),
        ("WWW, BBC, NASDAQ, HTTPS, AWS, WTF. " * 3, 3 * 24 * 0.8),
        ("html css sql xml json yaml", 21 * 0.6),
        ("100 % & 50 € + 3 $ = ?", 20.0),
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
        assert max_tokens(form) >= 25 * seconds + OVERHEAD_TOKENS


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
    assert OVERHEAD_TOKENS < max_tokens(text) < CONTEXT_TOKENS
    assert estimate_input_tokens(text) > 0


@quick
@given(text=any_text, more=any_text)
def test_more_text_never_has_a_lower_bound(text: str, more: str) -> None:
    """The bounds grow with the text."""
    short, long = speech_seconds(text), speech_seconds(text + more)
    assert short.shortest_seconds <= long.shortest_seconds + 1e-9
    assert short.likely_seconds <= long.likely_seconds + 1e-9
    assert short.longest_seconds <= long.longest_seconds + 1e-9


def test_the_factor_widens_the_bound_alone() -> None:
    """An operator whose voices are slower widens the bound; the other figures stay."""
    plain, wide = speech_seconds(SENTENCE), speech_seconds(SENTENCE, seconds_per_character_factor=2)
    assert wide.longest_seconds > 1.8 * plain.longest_seconds - 5
    assert (wide.shortest_seconds, wide.likely_seconds) == (
        plain.shortest_seconds,
        plain.likely_seconds,
    )
    assert max_tokens(SENTENCE, seconds_per_character_factor=2) > max_tokens(SENTENCE)


def test_the_bound_leaves_the_prompt_its_place_in_the_context() -> None:
    """The container refuses prompt plus bound above its context, so the bound gives way."""
    text = SENTENCE * 40
    tokens = max_tokens(text)
    assert tokens + DEFAULT_PROMPT_TOKENS + estimate_input_tokens(text) <= CONTEXT_TOKENS
    assert tokens == CONTEXT_TOKENS - DEFAULT_PROMPT_TOKENS - -(-len(text) // 3)
    assert max_tokens(text, prompt_tokens=1096) == tokens - 1000
    assert max_tokens(text, ceiling=4000) < 4000
    assert max_tokens(text, ceiling=10) == OVERHEAD_TOKENS + 25


@pytest.mark.parametrize(
    "text",
    ["", ".", "...", "—", " \n\t", "?!", "***", "~~~", "│──│", "• •", "\u200b", "[SPEAKER0] ."],
)
def test_punctuation_alone_is_silent(text: str) -> None:
    """Probes and rules have nothing to say; no engine is asked."""
    assert looks_silent(text)


@pytest.mark.parametrize(
    "text", ["a", "7", "½", "%", "&", "€", "😀", "→", "你", "[laugh]", "♪", "ー"]
)
def test_what_may_be_said_is_not_silent(text: str) -> None:
    """Letters, digits, signs with a name and emoji go to the engine."""
    assert not looks_silent(text)


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 1), ("a", 1), ("Hello there", 3), ("Привет", 3), ("你好世界", 3)]
)
def test_input_tokens_are_a_quarter_of_the_bytes(text: str, tokens: int) -> None:
    """The usage figure follows its documented rule."""
    assert estimate_input_tokens(text) == tokens


def test_a_long_text_is_estimated_in_no_time() -> None:
    """A hundred thousand characters do not hold up the event loop."""
    text = "Hello wörld, 123! 你好。" * 5000
    speech_seconds(text)
    started = time.process_time()
    max_tokens(text)
    assert time.process_time() - started < 0.5
