"""A client's word for a voice: understood or refused, never guessed."""

from __future__ import annotations

import pytest

from gateway.errors import VoiceNotFound
from gateway.voices.aliases import OPENAI_VOICES, resolve_voice
from gateway.voices.library.config_file import Snapshot
from gateway.voices.resolve import names_of_voices

LISTED = ("belinda", "Broom_Salesman", "en_woman")


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("belinda", "belinda"),
        ("BELINDA", "belinda"),
        ("belinda.wav", "belinda"),
        ("Belinda.WAV", "belinda"),
        (" belinda ", "belinda"),
        ("broom_salesman", "Broom_Salesman"),
        ("alloy", "en_woman"),
        ("Alloy", "en_woman"),
        ("onyx", "belinda"),  # its preset is not listed here: the first one that is
        ("narrator", "belinda"),
    ],
)
def test_names_are_understood(name: str, preset: str) -> None:
    """Case and `.wav` never matter; the OpenAI names work on every engine."""
    assert resolve_voice(name, {**OPENAI_VOICES, "narrator": "belinda"}, LISTED) == preset


@pytest.mark.parametrize("name", ["nobody", "belinda2", "../belinda", "", "x" * 5000, "gone"])
def test_an_unknown_voice_is_refused_with_the_list(name: str) -> None:
    """The engine would answer with its first preset and say nothing."""
    with pytest.raises(VoiceNotFound) as refused:
        resolve_voice(name, {**OPENAI_VOICES, "gone": "not_listed"}, LISTED)
    assert "belinda" in refused.value.message
    assert "alloy" in refused.value.message
    assert refused.value.param == "voice"
    assert len(refused.value.message) < 1000


def test_all_names_are_listed_once() -> None:
    """Pickers show each voice once, presets first."""
    names = names_of_voices({"alloy": "x", "belinda": "y"}, LISTED, Snapshot())
    assert names == ["belinda", "Broom_Salesman", "en_woman", "alloy"]
