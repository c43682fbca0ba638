"""Several writers of one voice library at the same moment, and what a rename leaves behind."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import GatewayError, VoiceExists
from gateway.voices.library import library as library_module
from gateway.voices.library.config_entry import LibraryVoice
from gateway.voices.library.library import GRACE_SECONDS, VoiceLibrary
from gateway.voices.samples.loudness import normalise_recording
from tests.voices.recordings import tone, wav

SAMPLE = wav(tone(2.0, 24_000))
Outcome = LibraryVoice | VoiceExists


class Clock:
    """A time that stands still."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        """Unix time."""
        return self.now


def at_once(works: Sequence[Callable[[], LibraryVoice]]) -> list[Outcome]:
    """Run changes in threads; what each gave, a refused name included."""

    def run(work: Callable[[], LibraryVoice]) -> Outcome:
        try:
            return work()
        except VoiceExists as error:
            return error

    with ThreadPoolExecutor(len(works)) as threads:
        return [future.result(120) for future in [threads.submit(run, work) for work in works]]


@pytest.fixture
def meeting(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Holds so many uploads together after they have seen that their names are free."""

    def meet(writers: int) -> None:
        barrier = threading.Barrier(writers)

        def normalise(*args: Any, **kwargs: Any) -> Any:
            barrier.wait(120)
            return normalise_recording(*args, **kwargs)

        monkeypatch.setattr(library_module, "normalise_recording", normalise)

    return meet


@pytest.mark.parametrize(
    "names",
    [
        [("Anna", []), ("Anna", [])],
        [("Anna", []), ("ANNA.wav", [])],
        [("Cope", []), ("\u0421\u043e\u0440\u0435", [])],  # Cyrillic letters, all of them
        [("Anna", []), ("Ben", ["anna"])],
        [("Anna", ["nan"]), ("Ben", ["Nan"])],
        [("Anna", [])] * 6,
    ],
    ids=["same", "case", "look-alike", "alias of one", "alias of both", "crowd"],
)
def test_a_name_is_given_once_however_many_ask_at_the_same_moment(
    tmp_path: Path, meeting: Callable[[int], None], names: list[tuple[str, list[str]]]
) -> None:
    """Each saw the name free before it decoded its recording; one of them gets it."""
    meeting(len(names))
    outcomes = at_once(
        [
            lambda name=name, aliases=aliases: VoiceLibrary(tmp_path).add(  # type: ignore[misc]
                name, SAMPLE, aliases=aliases
            )
            for name, aliases in names
        ]
    )
    (given,) = [one for one in outcomes if isinstance(one, LibraryVoice)]
    assert len(outcomes) == len(names)
    library = VoiceLibrary(tmp_path)
    assert [voice.id for voice in library.snapshot.voices] == [given.id]
    assert sorted(path.name for path in tmp_path.glob("*.wav")) == [given.audio_file]


def test_writers_of_different_names_lose_nothing(
    tmp_path: Path, meeting: Callable[[int], None]
) -> None:
    """Each change is made on what the one before has left."""
    names = [f"voice {number}" for number in range(8)]
    meeting(len(names))
    outcomes = at_once(
        [lambda name=name: VoiceLibrary(tmp_path).add(name, SAMPLE) for name in names]  # type: ignore[misc]
    )
    assert all(isinstance(one, LibraryVoice) for one in outcomes)
    assert {voice.name for voice in VoiceLibrary(tmp_path).snapshot.voices} == set(names)


def test_two_voices_renamed_to_one_name_at_once_stay_two(tmp_path: Path) -> None:
    """One gets it, the other keeps its own."""
    library = VoiceLibrary(tmp_path)
    for name in ("Anna", "Ben"):
        library.add(name, SAMPLE)
    outcomes = at_once(
        [
            lambda name=name: VoiceLibrary(tmp_path).rename(name, "Cleo")  # type: ignore[misc]
            for name in ("Anna", "Ben")
        ]
    )
    assert sorted(type(one).__name__ for one in outcomes) == ["LibraryVoice", "VoiceExists"]
    names = sorted(voice.name for voice in library.snapshot.voices)
    assert names in (["Ben", "Cleo"], ["Anna", "Cleo"])


def test_the_engine_knows_a_renamed_voice_by_its_old_name_for_the_grace(tmp_path: Path) -> None:
    """A request that runs may ask for it; nobody else may, and the recording is never deleted."""
    clock = Clock()
    library = VoiceLibrary(tmp_path, now=clock)
    library.add("Ben", SAMPLE)
    old = library.add("Anna", SAMPLE, transcript="Hello there.")
    new = library.rename("Anna", "Cleo")

    def config() -> dict[str, Any]:
        value = json.loads((tmp_path / "config.json").read_text("ascii"))
        assert isinstance(value, dict)
        return value

    for moment in (0.0, GRACE_SECONDS - 1):
        clock.now = 1_800_000_000.0 + moment
        library.purge()
        entries = config()
        assert entries[old.preset]["audio_file"] == entries[new.preset]["audio_file"]
        assert entries[old.preset]["transcript"] == "Hello there."
        assert library.snapshot.find("Anna") is None
        assert library.snapshot.hides(old.preset)
        with pytest.raises(GatewayError):
            library.snapshot.get("Anna")
    clock.now += 2
    assert library.purge() == []
    assert set(config()) == {"Ben", new.preset}
    assert library.read_audio(library.snapshot.get("Cleo"))
    assert library.snapshot.get("Cleo").id == old.id


def test_an_old_name_that_is_given_anew_within_the_grace_has_another_key(tmp_path: Path) -> None:
    """The engine would else answer a running request with the new voice."""
    clock = Clock()
    library = VoiceLibrary(tmp_path, now=clock)
    old = library.add("Anna", SAMPLE)
    library.rename("Anna", "Cleo")
    newcomer = library.add("Anna", SAMPLE)
    assert newcomer.name == "Anna"
    assert newcomer.preset != old.preset
    assert library.snapshot.get("anna").id == newcomer.id
    clock.now += GRACE_SECONDS + 1
    library.purge()
    assert {voice.name for voice in library.snapshot.voices} == {"Anna", "Cleo"}
