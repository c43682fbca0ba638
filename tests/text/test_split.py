# ruff: noqa: RUF001  (the signs of other scripts look like ASCII, and are meant)
from __future__ import annotations

import time
from itertools import islice, pairwise

import pytest
import sentencex
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.text import cuts
from gateway.text.boundary import Boundary
from gateway.text.cuts import SPEAKER_TAG
from gateway.text.estimate import speech_seconds
from gateway.text.split import MOST_SEGMENT_BYTES, Segment, iter_segments
from gateway.text.tokens import CONTEXT_TOKENS, fits_context

SENTENCE = "The river ran slowly past the old mill, and nobody in the village spoke of it again. "
PARAGRAPH = SENTENCE * 4
FRAGMENTS = (
    *("Word ", "a, ", "End. ", "What?! ", "\n", "\n\n", "Dr. ", "3.14", "10:30 ", "“Quoted.” "),
    *("(so) ", "... ", "…", "你好。", "漢字", "かな！", "नमस्ते। ", "हिन्दी", "مرحبا؟ ", "یہ۔ "),
    *(
        "สวัสดี",
        "ລາວ",
        "ខ្មែរ",
        "한국어 ",
        "👩‍👩‍👧",
        "🇩🇪",
        "é",
        "e\u0301",
        "\u00a0",
        "\u2028",
        "\u2029",
    ),
    *("\u0085", "\r\n", "\u200d", "[laugh]", "[humming start]", "<SE>[Laughter]</SE>", "\t"),
    *("[SPEAKER0] ", "[SPEAKER12]", "[SPEAKER1]\n\n", "[", "]", "<|"),
)
ANY_TEXT = st.one_of(
    st.text(max_size=400),
    st.lists(st.sampled_from(FRAGMENTS), max_size=400).map("".join),
    st.builds(
        lambda unit, times: unit * times, st.text(min_size=1, max_size=4), st.integers(1, 900)
    ),
)


def split_text(
    text: str, *, likely_seconds_budget: float = 60.0, shortest_whole_characters: int = 1000
) -> list[str]:
    """All segments of a text."""
    segments = iter_segments(
        text,
        likely_seconds_budget=likely_seconds_budget,
        shortest_whole_characters=shortest_whole_characters,
    )
    return [segment.text for segment in segments]


def segments_of(text: str, likely_seconds_budget: float = 60.0) -> list[Segment]:
    """Segments of a text, however short it is."""
    return list(
        iter_segments(
            text, likely_seconds_budget=likely_seconds_budget, shortest_whole_characters=0
        )
    )


def seconds(text: str) -> float:
    """Likely seconds of audio."""
    return speech_seconds(text).likely_seconds


@given(ANY_TEXT, st.sampled_from([2.0, 10.0, 60.0]), st.sampled_from([0, 100, 1000]))
@settings(max_examples=300, deadline=None)
def test_splitting_loses_and_doubles_nothing(text: str, budget: float, whole: int) -> None:
    """The segments are the text, in order; only white space between them may be missing."""
    at = 0
    for segment in split_text(text, likely_seconds_budget=budget, shortest_whole_characters=whole):
        assert segment
        assert segment == segment.strip()
        start = text.index(segment, at)
        assert not text[at:start].strip()
        at = start + len(segment)
    assert not text[at:].strip()


@given(ANY_TEXT, st.sampled_from([30.0, 60.0]))
@settings(max_examples=200, deadline=None)
def test_no_segment_is_above_the_budget(text: str, budget: float) -> None:
    """A segment never takes longer to say than the budget, nor more bytes than fit a context."""
    for segment in segments_of(text, budget):
        assert seconds(segment.text) <= budget * 1.0001
        assert len(segment.text.encode("utf-8", "surrogatepass")) <= MOST_SEGMENT_BYTES


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=200).map("".join))
@settings(max_examples=200, deadline=None)
def test_speaker_tags_are_never_cut(text: str) -> None:
    """Every tag of the text is found whole, the same number of times, in its segments."""
    found = [tag for segment in segments_of(text, 4.0) for tag in SPEAKER_TAG.findall(segment.text)]
    assert found == SPEAKER_TAG.findall(text)


@pytest.mark.parametrize(
    "text",
    [
        (SENTENCE * 12)[:1000],
        ("你好吗今天天气很好。" * 80)[:700],
        "ok. " * 250,
        "\n\n".join([SENTENCE.strip()] * 11),
        "a" * 1000,
    ],
)
def test_a_text_of_a_thousand_characters_is_one_segment(text: str) -> None:
    """Up to 1,000 characters one voice says it all in one generation, if it fits a context."""
    assert split_text(text) == [text.strip()]


def test_a_short_text_that_no_context_holds_is_split_all_the_same() -> None:
    """1,000 digits may take six minutes to read out, which is more than the engine can make."""
    text = "1234567890" * 100
    assert not fits_context(text)
    assert len(split_text(text)) > 1


def test_references_leave_less_room_for_an_undivided_text() -> None:
    """30 s of reference take 750 tokens, so a text that just fitted does not any more."""
    text = "你" * 750
    assert len(list(iter_segments(text))) == 1
    assert len(list(iter_segments(text, room_tokens=CONTEXT_TOKENS - 1500))) > 1


@pytest.mark.parametrize("blank", ["", " ", "\n\n\n", "\u2029\u00a0", " " * 5000])
def test_blank_text_has_no_segments(blank: str) -> None:
    """There is nothing to say."""
    assert split_text(blank) == []


def test_long_text_is_cut_at_paragraphs_first() -> None:
    """Paragraphs of 24 s go two by two: never is one torn to fill a segment up."""
    paragraph = PARAGRAPH.strip()
    segments = segments_of("\n\n".join([paragraph] * 10))
    assert [segment.text for segment in segments] == [f"{paragraph}\n\n{paragraph}"] * 5
    assert {segment.before for segment in segments} == {Boundary.PARAGRAPH}


def test_a_long_paragraph_is_cut_at_sentences() -> None:
    """No segment begins or ends within a sentence where sentences are of ordinary length."""
    segments = segments_of(SENTENCE * 100)
    assert all(segment.text.startswith("The river") for segment in segments)
    assert all(segment.text.endswith("again.") for segment in segments)
    assert {segment.before for segment in segments[1:]} == {Boundary.SENTENCE}


def test_a_long_sentence_is_cut_at_clauses() -> None:
    """Three hundred clauses without a full stop are cut behind commas."""
    segments = segments_of("and then the rain came down, " * 300)
    assert all(segment.text.endswith("down,") for segment in segments)
    assert {segment.before for segment in segments[1:]} == {Boundary.CLAUSE}


def test_a_sentence_without_commas_is_cut_between_words() -> None:
    """No word is torn."""
    segments = segments_of("and then the rain came down " * 300)
    words = [word for segment in segments for word in segment.text.split()]
    assert set(words) == {"and", "then", "the", "rain", "came", "down"}
    assert {segment.before for segment in segments[1:]} == {Boundary.WORD}


def test_the_parts_of_a_dialogue_are_cut_at_turns() -> None:
    """Every segment of a dialogue of short turns begins with a tag."""
    turns = "".join(f"[SPEAKER{number % 2}] {SENTENCE}{SENTENCE}\n" for number in range(40))
    segments = segments_of(turns)
    assert len(segments) > 5
    assert all(segment.text.startswith("[SPEAKER") for segment in segments)
    assert {segment.before for segment in segments[1:]} == {Boundary.TURN}


@pytest.mark.parametrize("words", [200, 230, 300, 331, 400, 470])
def test_no_few_words_are_left_for_the_last_segment(words: int) -> None:
    """Segments are balanced: the last is never a small rest."""
    text = SENTENCE * (words // 17) + "Yes, he did."
    segments = segments_of(text)
    if len(segments) > 1:
        assert min(seconds(segment.text) for segment in segments) > 15.0


@pytest.mark.parametrize("times", [105, 120, 160, 215, 250])
def test_the_last_segments_are_of_about_one_length(times: int) -> None:
    """What does not fill two budgets is cut in the middle."""
    shares = [seconds(segment.text) for segment in segments_of("stormy night " * times)]
    assert max(shares[-2:]) < 1.5 * min(shares[-2:])


def test_a_paragraph_that_ends_late_leaves_no_small_rest() -> None:
    """A blank line is no reason to leave three words alone."""
    first = (SENTENCE * 8).strip()
    segments = segments_of(first + "\n\nYes, he did.", seconds(first) * 1.02)
    assert len(segments) == 2
    assert min(seconds(segment.text) for segment in segments) > 10.0


def test_the_first_segment_can_be_made_shorter() -> None:
    """Where the others wait for the first one's audio, it is kept to its own budget."""
    segments = list(iter_segments(SENTENCE * 100, first_likely_seconds_budget=15.0))
    assert 4.0 < seconds(segments[0].text) <= 15.0
    assert all(seconds(segment.text) > 30.0 for segment in segments[1:])


def test_a_first_segment_comes_before_the_text_is_read_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """100,000 characters start as soon as 1,000: only some paragraphs are looked at."""
    seen: list[int] = []

    def counting(text: str) -> object:
        seen.append(len(text))
        return segment(text)

    segment = cuts._sentences
    monkeypatch.setattr(cuts, "_sentences", counting)
    segments = iter_segments("\n\n".join([PARAGRAPH] * 300))
    next(segments)
    assert sum(seen) < 5000
    assert len(list(islice(segments, 3))) == 3


def test_a_panic_of_the_sentence_splitter_costs_only_its_boundaries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The splitter's native code panics on rare texts with an error that is no Exception."""

    class PanicException(BaseException):
        pass

    def panicking(_language: str, _text: str) -> list[str]:
        raise PanicException

    monkeypatch.setattr(sentencex, "segment", panicking)
    segments = segments_of("and then, the rain came down. " * 300)
    assert all(segment.text.endswith("then,") for segment in segments[:-1])

    def interrupted(_language: str, _text: str) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(sentencex, "segment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        segments_of(SENTENCE * 30)


HOSTILE = {
    "one word": "x" * 100_000,
    "dots": "." * 100_000,
    "dots and spaces": ". " * 50_000,
    "white space": "a" + " " * 100_000 + "b",
    "line ends": "a" + "\n" * 100_000 + "b",
    "open brackets": "[" * 100_000,
    "tags": "[SPEAKER0]" * 10_000,
    "marks": "a" + "\u0301" * 100_000,
    "joiners": "\u200d" * 100_000,
    "flags": "🇩🇪" * 50_000,
    "quotes": '"' * 100_000,
    "short Chinese sentences": "你好。" * 33_333,
    "Chinese without stops": "你好" * 50_000,
    "blank lines": "\n \n" * 33_333 + "a",
    "list": "1. a\n" * 20_000,
    "surrogates": "a\ud800. " * 25_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_takes_linear_time(name: str) -> None:
    """100,000 characters of any kind are split in about a second, the first part at once."""
    text = HOSTILE[name]
    started = time.process_time()
    segments = iter_segments(text)
    next(segments)
    first_seconds = time.process_time() - started
    for _ in segments:
        pass
    assert first_seconds < 0.5
    assert time.process_time() - started < 1.5  # usually below 0.6 s


def test_segments_follow_each_other_with_the_strongest_boundary_between() -> None:
    """A blank line beats the sentence that ends with it."""
    text = (SENTENCE * 6).strip() + "\n\n" + (SENTENCE * 6).strip() + "\n\n" + SENTENCE * 30
    segments = segments_of(text)
    for one, two in pairwise(segments):
        between = text[text.index(one.text) :][len(one.text) :]
        assert two.before in (Boundary.PARAGRAPH, Boundary.SENTENCE)
        if two.before is Boundary.PARAGRAPH:
            assert between.startswith("\n\n")
