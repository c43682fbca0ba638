"""Normalisation gives the model the text that its official script would give it."""
# ruff: noqa: RUF001 - the look-alikes are the point of the table

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.text.normalise import EVENT_TAGS, normalise


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Hello there", "Hello there."),
        ("Hello there!", "Hello there!"),
        ('He said "no"', 'He said "no"'),
        ("First,", "First,"),
        ("Note:", "Note:."),
        ("  two   words \n \n\n next\tline  ", "two words\n\nnext line."),
        ("one\n\ntwo\u2029three\u2028four", "one\n\ntwo\n\nthree\nfour."),
        ("a (small) aside", "a small aside."),
        ("你好，世界。", "你好, 世界."),
        ("你好：这是（测试）！", "你好:这是 测试 !"),
        ("《书》「引」『文』【注】", '<书>"引""文"[注].'),
        ("“a” ‘b’、c—d…e·f；g？", "\"a\" 'b',c-d...e.f;g?"),
        ("It is 72°F or 22°C", "It is 72 degrees Fahrenheit or 22 degrees Celsius."),
        ("今天20°C左右", "今天20 degrees Celsius左右."),
        ("20 °Celsius", "20 °Celsius."),
        ("That is funny [laugh]", "That is funny <SE>[Laughter]</SE>"),
        ("[music start] la [music end]", "<SE_s>[Music]</SE_s> la <SE_e>[Music]</SE_e>"),
        ("[sing  start] la", "<SE_s>[Singing]</SE_s> la."),
        ("[music start]", "<SE_s>[Music]</SE_s>."),
        ("[Laugh] [unknown]", "[Laugh] [unknown]."),
        ("[SPEAKER0] Hi.\n[SPEAKER1] Ho.", "[SPEAKER0] Hi.\n[SPEAKER1] Ho."),
        ("one\r\ntwo", "one\ntwo."),
        (".", "."),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_text_is_written_as_the_official_script_does(text: str, normal: str) -> None:
    """Punctuation, brackets, temperatures, white space, events and the final stop."""
    assert normalise(text) == normal


def test_every_event_of_the_official_script_is_known() -> None:
    """Event tags become the model's own, with its names of the sounds."""
    assert {tag: normalise(tag).removesuffix(".") for tag in EVENT_TAGS} == EVENT_TAGS
    assert set(EVENT_TAGS) == {
        "[laugh]",
        "[humming start]",
        "[humming end]",
        "[music start]",
        "[music end]",
        "[music]",
        "[sing start]",
        "[sing end]",
        "[applause]",
        "[cheering]",
        "[cough]",
    }


words = st.sampled_from(
    [*EVENT_TAGS, "[music", "start]", "°", "F", "(", "（", "，", "…", " ", "\n"]
)


@settings(deadline=None, max_examples=200)
@given(text=st.lists(words | st.text(max_size=4), max_size=16).map("".join))
def test_a_second_pass_changes_nothing(text: str) -> None:
    """Text that is already normal stays, so it does not matter how often it passes."""
    once = normalise(text)
    assert normalise(once) == once
    assert "\n\n\n" not in once
    assert once == once.strip()
