"""The context is never overfilled: counted with the real Llama 3.1 tokenizer of npm."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.text.dialogue import iter_generations, parse_turns
from gateway.text.estimate import speech_seconds
from gateway.text.normalise import normalise
from gateway.text.split import iter_segments
from gateway.text.tokens import (
    CONTEXT_TOKENS,
    DEFAULT_PROMPT_TOKENS,
    OVERHEAD_TOKENS,
    ROOM_TOKENS,
    TOKENS_PER_SECOND,
    estimate_input_tokens,
    fits_context,
    free_tokens,
    max_tokens,
    text_tokens,
)
from tests.tokenizer import PROSE, TEXTS, count

CHARACTERS = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="0123456789 .,:/-()$€%+", max_size=300),
    st.text(alphabet=st.characters(categories=["So", "Sm", "Sc", "Lu", "Mn"]), max_size=200),
    st.lists(
        st.sampled_from([word for text in TEXTS.values() for word in text.split()]), max_size=200
    ).map(" ".join),
)
quick = settings(deadline=None, max_examples=200)


def bound(text: str, room_tokens: int = ROOM_TOKENS) -> int:
    """The bound of a generation whose prompt leaves so much room."""
    return max_tokens(text, free_tokens(text, room_tokens))


@quick
@given(text=CHARACTERS)
def test_no_text_takes_more_tokens_than_are_counted(text: str) -> None:
    """Scripts, digits and symbols: the bound is one."""
    assert count(text) <= text_tokens(text)


@pytest.mark.parametrize("context_tokens", [CONTEXT_TOKENS, 4096])
@pytest.mark.parametrize("name", TEXTS)
def test_prompt_text_and_bound_fit_the_context(name: str, context_tokens: int) -> None:
    """Every segment of a text can be asked for, and has room for an ordinary reading."""
    text = normalise(TEXTS[name] * 4)
    room_tokens = context_tokens - DEFAULT_PROMPT_TOKENS
    for segment in iter_segments(text, room_tokens=room_tokens):
        said = normalise(segment.text)
        tokens = bound(said, room_tokens)
        assert DEFAULT_PROMPT_TOKENS + count(said) + tokens <= context_tokens
        likely_seconds = speech_seconds(said).likely_seconds
        assert tokens >= OVERHEAD_TOKENS + TOKENS_PER_SECOND * likely_seconds


@quick
@example(text="0" * 260, context_tokens=1024, prompt_share=0.25)  # full before its final stop
@given(
    text=CHARACTERS.map(lambda text: text * 20),
    context_tokens=st.sampled_from([1024, 2048, 4096, CONTEXT_TOKENS]),
    prompt_share=st.floats(0.0, 0.5),
)
def test_any_text_is_split_so_that_each_segment_fits(
    text: str, context_tokens: int, prompt_share: float
) -> None:
    """Whatever the engine's context and the prompt are, no bound overfills it."""
    prompt_tokens = max(DEFAULT_PROMPT_TOKENS, int(context_tokens * prompt_share))
    room_tokens = context_tokens - prompt_tokens
    found = iter_segments(normalise(text), shortest_whole_characters=100, room_tokens=room_tokens)
    for segment in found:
        said = normalise(segment.text)
        assert fits_context(said, room_tokens)
        tokens = bound(said, room_tokens)
        assert prompt_tokens + text_tokens(said) + tokens <= context_tokens
        assert tokens > OVERHEAD_TOKENS


def test_the_parts_of_a_dialogue_fit_a_short_context() -> None:
    """Turns with their tags are counted like any text."""
    turns = parse_turns("".join(f"[SPEAKER{n % 2}] {PROSE * 3}\n" for n in range(30)))
    generations = list(iter_generations(turns, room_tokens=2048 - 512))
    assert all(fits_context(segment.text, 2048 - 512) for segment in generations)
    assert len(generations) > len(list(iter_generations(turns)))


def test_ordinary_english_is_not_bounded_by_its_bytes() -> None:
    """A segment of a minute has room for its longest plausible reading beside a reference."""
    text = (PROSE * 10)[:830].strip() + "."
    longest_seconds = speech_seconds(text).longest_seconds
    assert bound(text) == pytest.approx(25 * longest_seconds + OVERHEAD_TOKENS, abs=1)
    likely_seconds = speech_seconds(text).likely_seconds
    assert bound(text, CONTEXT_TOKENS - 1000) > 4 * 25 * likely_seconds
    assert len(list(iter_segments(PROSE * 60))) == len(
        list(iter_segments(PROSE * 60, room_tokens=CONTEXT_TOKENS - 900))
    )


def test_the_bound_gives_way_to_prompt_and_context() -> None:
    """What does not fit is taken from the bound, token by token."""
    text = PROSE * 40
    tokens = bound(text)
    assert tokens == CONTEXT_TOKENS - DEFAULT_PROMPT_TOKENS - len(text) - 1
    assert bound(text, ROOM_TOKENS - 1000) == tokens - 1000
    assert not fits_context(text, ROOM_TOKENS - 4096)


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 1), ("a", 1), ("Hello there", 3), ("Привет", 3), ("你好世界", 3)]
)
def test_input_tokens_are_a_quarter_of_the_bytes(text: str, tokens: int) -> None:
    """The usage figure follows its documented rule."""
    assert estimate_input_tokens(text) == tokens
