"""What an engine's refusal may tell a log, and the figures that it gives."""

from __future__ import annotations

import pytest

from gateway.upstream.refusals import context_figures, scrub


def test_figures_of_a_refusal_for_length() -> None:
    """VLLM's own sentence, docs/contract.md section 2."""
    sentence = (
        "This model's maximum context length is 8192 tokens. However, you requested 8300 tokens "
        "(310 in the messages, 7990 in the completion). Please reduce the length of the messages "
        "or completion."
    )
    assert context_figures(sentence) == (8192, 310)
    assert context_figures("top_p must be in (0, 1], got 3.0.") is None
    assert context_figures("maximum context length is " + "9" * 5000) is None


@pytest.mark.parametrize(
    ("sentence", "texts", "told"),
    [
        ("top_p must be in (0, 1], got 3.0.", ["Hello"], "top_p must be in (0, 1], got 3.0."),
        (
            "[{'loc': ('body', 'voice'), 'input': {'input': 'My secret word', 'x': 1}}]",
            ["My secret word"],
            "[{'loc': ('body', 'voice'), 'input': {'input': 'My […] x': 1}}]",
        ),
        ("No such file /models/higgs/a.wav here", [], "No such file […] here"),
        ("Cannot fetch http://10.0.0.1/x?k=1 now", [], "Cannot fetch […] now"),
        ("input '这是秘密' bad", ["这是秘密"], "input ' ' bad"),
    ],
)
def test_a_logged_sentence_holds_nothing_of_the_request(
    sentence: str, texts: list[str], told: str
) -> None:
    """No word of the texts, no path, no address."""
    assert scrub(sentence, texts) == " ".join(told.split())


def test_a_logged_sentence_is_bounded() -> None:
    """However long the engine's answer is."""
    assert len(scrub("word " * 100_000, ["other"])) <= 300
