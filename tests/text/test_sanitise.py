"""Text that reaches the engine holds nothing that its tokenizer would take for a special token."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.text.normalise import normalise
from gateway.text.sanitise import (
    MOST_NAME_CHARACTERS,
    SCENE_END,
    SCENE_START,
    check_text,
    sanitise_system_prompt,
    sanitise_text,
)

quick = settings(deadline=None, max_examples=300)
TOKEN = re.compile(r"<\|\S{0,64}?\|>")

# Pieces that put tokens together in every way when they stand side by side.
pieces = st.lists(
    st.sampled_from(
        ["<", "|", ">", "<|", "|>", "<|a|>", "AUDIO", " ", "\n", "\t", "\0", "\r", "x" * 40]
    )
    | st.sampled_from([SCENE_START, SCENE_END, "<|scene_desc_", "start|>", "end|>"])
    | st.text(max_size=3),
    max_size=24,
).map("".join)


@quick
@given(text=pieces)
def test_no_special_token_is_left_and_a_second_pass_changes_nothing(text: str) -> None:
    """Whatever a client writes, the engine's tokenizer finds plain text."""
    clean = sanitise_text(text)
    assert not TOKEN.search(clean)
    assert sanitise_text(clean) == clean
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", clean)


@quick
@given(text=st.text(max_size=60).filter(lambda text: "<|" not in text or "|>" not in text))
def test_text_without_both_signs_is_unchanged(text: str) -> None:
    """Ordinary text is passed on letter by letter; only control characters go."""
    plain = re.sub(r"\r\n|[\x0b-\x0d\x1c-\x1f\x85]", "\n", text)
    plain = re.sub(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]", "", plain)
    assume("<|" not in plain or "|>" not in plain)
    assert sanitise_text(text) == plain


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("one <|AUDIO|> two", "one  two"),
        ("a | b", "a | b"),
        ("|", "|"),
        ("a || b, |x| and x|y", "a || b, |x| and x|y"),
        ("| name | age |\n|---|---|\n| Ann | 7 |", "| name | age |\n|---|---|\n| Ann | 7 |"),
        ("<| and |", "<| and |"),
        ("a <|b| c", "a <|b| c"),
        ("a |b|> c", "a |b|> c"),
        ("P(A|B) > P(A|C)", "P(A|B) > P(A|C)"),
        ("P(A|B) <|x|> P(A|C)", "P(A|B)  P(A|C)"),
        ("|a| <|AUDIO|> |b|", "|a|  |b|"),
        ("<|<|AUDIO|>AUDIO|>", ""),
        ("<|AUD<|eot_id|>IO|>", ""),
        ("<<|x|>|AUDIO|>", ""),
        ("<|AUDIO|<|x|>>", ""),
        ("<|AU\0DIO|>", ""),
        ("<|reserved_special_token_247|>", ""),
        ("<|__AUDIO_PLACEHOLDER__|>", ""),
        ("<|scene_desc_start|>quiet<|scene_desc_end|>", "quiet"),
        ("<||>", ""),
        ("<|tool▁call|>", ""),
        ("f <| x |> g", "f <| x |> g"),
        ("<|>", "<|>"),
        ("f <| x |> g <|a|>", "f <| x |> g "),
        ("<|> <|a|>", "<|> "),
        ("a <|", "a <|"),
        ("|> b", "|> b"),
        ("<|" + "x" * MOST_NAME_CHARACTERS + "|>", ""),
        ("<|" + "x" * (MOST_NAME_CHARACTERS + 1) + "|>", "<|" + "x" * 65 + "|>"),
        ("a\0b\tc\nd\x1be", "ab\tc\nde"),
        ("one\r\ntwo\rthree\x0cfour\x85five", "one\ntwo\nthree\nfour\nfive"),
        ("👩‍👩‍👧 क्‍ष", "👩‍👩‍👧 क्‍ष"),
        ("", ""),
    ],
)
def test_what_goes_and_what_stays(text: str, clean: str) -> None:
    """Tokens go, also nested and glued ones; operators, emoji and joiners stay."""
    assert sanitise_text(text) == clean


def test_sanitising_comes_after_normalisation() -> None:
    """Brackets that normalisation turns into ASCII make no token, if sanitising is last."""
    assert not TOKEN.search(sanitise_text("《|AUDIO|》"))
    assert TOKEN.search(normalise(sanitise_text("《|AUDIO|》")))
    assert sanitise_text(normalise("say 《|AUDIO|》")) == "say ."


@pytest.mark.parametrize(
    "text",
    ["<|" * 50_000, "<|" * 50_000 + "|>" * 50_000, "<|a|>" * 20_000, "<" * 50_000 + "|>" * 50_000],
)
def test_hostile_text_costs_linear_time(text: str) -> None:
    """A hundred thousand signs are done in well under a second."""
    started = time.thread_time()
    assert not TOKEN.search(sanitise_text(text))
    sanitise_system_prompt(text)
    assert time.thread_time() - started < 2


@quick
@given(text=pieces)
def test_a_system_prompt_keeps_no_token_but_one_scene(text: str) -> None:
    """The scene's own tags may stay, once each and in order; all else goes."""
    clean = sanitise_system_prompt(text)
    assert sanitise_system_prompt(clean) == clean
    rest = clean.replace(SCENE_START, " ").replace(SCENE_END, " ")
    assert not TOKEN.search(rest)
    if rest != clean:
        assert clean.count(SCENE_START) == clean.count(SCENE_END) == 1
        assert clean.index(SCENE_START) < clean.index(SCENE_END)


SCENE = f"Generate audio.\n\n{SCENE_START}\nA quiet room.\n{SCENE_END}"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (SCENE, SCENE),
        ("A quiet room.", "A quiet room."),
        (SCENE.replace("quiet", "<|AUDIO|>"), SCENE.replace("quiet", "")),
        (SCENE_START + "x", "x"),
        (SCENE_END + "x" + SCENE_START, "x"),
        (SCENE_START + SCENE_START + "x" + SCENE_END, "x"),
        ("<|scene_desc_<|x|>start|>x" + SCENE_END, SCENE_START + "x" + SCENE_END),
        (f"<|AUD{SCENE_START}IO|>x{SCENE_END}", "x"),
        (f"<|AUD{SCENE_END * 5}IO|>x", "x"),
    ],
)
def test_which_scenes_stay(text: str, clean: str) -> None:
    """One well-ordered pair stays; any other use of the tags is removed, the words are kept."""
    assert sanitise_system_prompt(text) == clean


@pytest.mark.parametrize("text", ["", " \n\t", "x" * 11, "a\ud800b", "\udc00"])
def test_text_that_cannot_be_spoken_is_refused(text: str) -> None:
    """Empty, blank, over-long and broken text is the client's error, with the field's name."""
    with pytest.raises(InvalidRequest) as caught:
        check_text(text, 10)
    assert caught.value.param == "input"


def test_text_at_the_limit_is_accepted() -> None:
    """The limit itself is allowed, and an emoji counts once."""
    check_text("😀" * 10, 10)
    check_text(".", 10)
