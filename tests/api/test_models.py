"""Names of models: what clients hard-code works, what nobody knows is told the list."""

from __future__ import annotations

import pytest

from gateway.api.models import list_models_of, resolve_model
from gateway.errors import ModelNotFound

SERVED = ("some/model",)


@pytest.mark.parametrize(
    "name",
    [
        "tts-1", "TTS-1-HD", "gpt-4o-mini-tts-2025-12-15", "tts-1-1106", "kokoro", "Kokoro", "tts",
        "higgs-audio-v2", "bosonai/higgs-audio-v2-generation-3B-base", "chatterbox-anything",
        "openai/tts-1", "hexgrad/Kokoro-82M", "kokoro-v1_0", "tts-1:latest", " tts-1 ",
    ],
)  # fmt: skip
def test_names_of_well_known_clients_mean_what_is_served(name: str) -> None:
    """Whatever their letters' case; the served one's own name goes on as it is."""
    assert resolve_model(name, SERVED) is None
    assert resolve_model(SERVED[0], SERVED) == SERVED[0]


def test_an_operators_names_are_added_and_listed() -> None:
    """In any case, and with a date behind them; the others stay unknown."""
    aliases = ("My-Voice", "orpheus")
    assert resolve_model("my-voice", SERVED, aliases) is None
    assert resolve_model("Orpheus-2026-01-01", SERVED, aliases) is None
    with pytest.raises(ModelNotFound, match=r"some/model, My-Voice, orpheus, tts-1"):
        resolve_model("whisper", SERVED, aliases)
    listed = [model["id"] for model in list_models_of(SERVED, aliases)["data"]]
    assert listed[:3] == [*SERVED, *aliases]


def test_a_star_is_any_name_and_is_not_listed() -> None:
    """For clients whose names nobody can foresee."""
    assert resolve_model("whisper", SERVED, ("*",)) is None
    assert "*" not in [model["id"] for model in list_models_of(SERVED, ("*",))["data"]]
