"""Which voice a name means: the library, the engine's list, aliases; and how the engine is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.errors import VoiceNotFound
from gateway.voices.aliases import OPENAI_VOICES
from gateway.voices.library.library import VoiceLibrary
from gateway.voices.resolve import (
    SETTLED_SECONDS,
    ChosenVoice,
    choose_voice,
    names_of_voices,
    recorded_voice,
)
from tests.voices.recordings import tone, wav

THEN = 1_800_000_000.0
SETTLED = THEN + SETTLED_SECONDS + 1
SAMPLE = wav(tone(1.5, 24_000))


def seed(folder: Path, name: str, **keys: str) -> None:
    """An entry that did not come through the gateway, such as the image's own presets."""
    (folder / "seed.wav").write_bytes(SAMPLE)
    config = json.loads((folder / "config.json").read_text())
    config[name] = {"transcript": "Hi.", "audio_file": "seed.wav", **keys}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def library(tmp_path: Path) -> VoiceLibrary:
    """Anna, also called Nan."""
    library = VoiceLibrary(tmp_path, now=lambda: THEN)
    library.add("Anna", SAMPLE, aliases=["Nan"])
    return library


def choose(
    library: VoiceLibrary,
    name: str | None,
    listed: tuple[str, ...],
    *,
    now: float = SETTLED,
    aliases: dict[str, str] | None = None,
) -> ChosenVoice:
    """The voice, with the settings' usual aliases and default."""
    found = choose_voice(
        name,
        listed,
        library.snapshot,
        default="alloy",
        aliases=OPENAI_VOICES if aliases is None else aliases,
    )
    if isinstance(found, str):
        return ChosenVoice(found)
    return recorded_voice(found, listed, library.snapshot, now)


@pytest.mark.parametrize("name", ["anna", "NAN.wav", "Anna"])
def test_a_voice_that_the_engine_lists_goes_by_name(library: VoiceLibrary, name: str) -> None:
    """It costs no upload, and is counted as the library's."""
    chosen = choose(library, name, ("Anna",))
    assert (chosen.preset, chosen.label) == ("Anna", "library")


def test_a_voice_that_the_engine_does_not_list_goes_as_a_reference(library: VoiceLibrary) -> None:
    """So it works with every engine."""
    chosen = choose(library, "anna", ("en_woman",))
    assert chosen.preset is None
    assert chosen.recorded == library.snapshot.get("anna")


def test_a_voice_that_the_engine_does_not_list_yet_goes_as_a_reference(
    library: VoiceLibrary,
) -> None:
    """It reads the folder, but has missed a change so far."""
    library.add("Ben", SAMPLE)
    assert choose(library, "ben", ("Anna",)).preset is None


def test_the_images_own_presets_keep_their_names_in_metrics(
    library: VoiceLibrary, tmp_path: Path
) -> None:
    """Seeded into the folder they are voices of the library; their names are the operator's."""
    seed(tmp_path, "en_woman")
    chosen = choose(library, "alloy", ("Anna", "en_woman"))
    assert (chosen.preset, chosen.label) == ("en_woman", "en_woman")


def test_a_voice_of_another_folder_with_the_same_name_is_not_taken_for_it(
    library: VoiceLibrary,
) -> None:
    """An engine that lists more than this folder holds reads another one."""
    assert choose(library, "anna", ("Anna", "en_woman")).preset is None


def test_a_voice_just_made_goes_as_a_reference(library: VoiceLibrary) -> None:
    """The engine may still take its name for an earlier voice."""
    assert choose(library, "anna", ("Anna",), now=THEN + 1).preset is None


def test_a_removed_voice_is_not_found_although_the_engine_lists_it(library: VoiceLibrary) -> None:
    """The engine keeps it for requests that run; new ones get an honest 404."""
    library.add("Ben", SAMPLE)
    library.remove("anna")
    for name in ("anna", "nan"):
        with pytest.raises(VoiceNotFound):
            choose(library, name, ("Anna", "Ben"))
    assert "Anna" not in names_of_voices({}, ("Anna", "Ben"), library.snapshot)


def test_a_vanished_voice_is_not_found_although_the_engine_lists_it(
    library: VoiceLibrary, tmp_path: Path
) -> None:
    """The engine's list is older than a hand's change of config.json."""
    assert library.snapshot.voices
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(VoiceNotFound):
        choose(library, "Anna", ("Anna",))


def test_the_engines_own_presets_stay(library: VoiceLibrary) -> None:
    """Beside the library, with aliases to them."""
    listed = ("en_woman", "belinda")
    assert choose(library, "Belinda.wav", listed) == ChosenVoice("belinda")
    assert choose(library, "coral", listed) == ChosenVoice("belinda")
    assert choose(library, None, listed) == ChosenVoice("en_woman")


def test_an_alias_may_mean_a_voice_of_the_library(library: VoiceLibrary) -> None:
    """GATEWAY_VOICE_ALIASES moves OpenAI's names to one's own voices."""
    chosen = choose(library, "alloy", ("en_woman",), aliases={"alloy": "nan"})
    assert chosen.recorded == library.snapshot.get("anna")
    assert choose(library, None, ("en_woman",), aliases={"alloy": "nan"}) == chosen


def test_a_library_voice_named_like_an_alias_wins(library: VoiceLibrary) -> None:
    """Whoever calls a voice Nova wants that voice."""
    nova = library.add("Nova", SAMPLE)
    assert choose(library, "nova", ("mabel",)).recorded == nova


@pytest.mark.parametrize("name", sorted(OPENAI_VOICES))
def test_openais_names_work_with_a_library_alone(library: VoiceLibrary, name: str) -> None:
    """An engine that reads the folder lists nothing else; its first voice stands in."""
    assert choose(library, name, ("Anna",)).preset == "Anna"


def test_the_librarys_default_is_spoken_where_none_is_named(library: VoiceLibrary) -> None:
    """It goes before the setting."""
    library.set_default("anna")
    assert choose(library, None, ("en_woman",)).recorded == library.snapshot.get("anna")


def test_default_is_the_default_voice_unless_something_is_called_so(tmp_path: Path) -> None:
    """wyoming-openai and RealtimeTTS send it where nothing is configured."""
    library = VoiceLibrary(tmp_path, now=lambda: THEN)
    presets = ("en_woman", "vex")
    for name in ("default", "Default", " DEFAULT "):
        assert choose(library, name, presets).preset == "en_woman"
    assert choose(library, "default", (*presets, "Default")).preset == "Default"
    assert choose(library, "default", presets, aliases={"default": "vex"}).preset == "vex"
    library.add("Anna", SAMPLE)
    library.set_default("Anna")
    assert choose(library, "default", presets).recorded == library.snapshot.get("Anna")


def test_a_default_that_a_client_set_answers_to_the_six_names_of_its_server(
    tmp_path: Path,
) -> None:
    """An operator's alias and a voice of that name are stronger; OpenAI's other seven stay."""
    library = VoiceLibrary(tmp_path, now=lambda: THEN)
    library.add("Anna", SAMPLE)
    presets = ("en_woman", "vex", "chadwick", "mabel")
    assert choose(library, "onyx", presets).preset == "chadwick"
    library.set_default("Anna")
    for name in ("alloy", "echo", "fable", "onyx", "nova", "shimmer", "Nova"):
        assert choose(library, name, presets).recorded == library.snapshot.get("Anna"), name
    assert choose(library, "cedar", presets).preset == "chadwick"
    moved = {**OPENAI_VOICES, "onyx": "vex"}
    assert choose(library, "onyx", presets, aliases=moved).preset == "vex"
    assert choose(library, "onyx", (*presets, "Onyx")).preset == "Onyx"
    library.add("Nova", SAMPLE)
    assert choose(library, "nova", presets).recorded == library.snapshot.get("Nova")
