"""The voice library's folder: what the engine reads in it, what people write, what survives."""

from __future__ import annotations

import io
import json
import math
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from gateway.errors import InvalidRequest, LibraryUnusable, VoiceExists, VoiceNotFound
from gateway.voices.library.library import VoiceLibrary
from tests.voices.recordings import good_files, tone, wav

FULL_WIDTH = "".join(unicodedata.lookup(f"FULLWIDTH LATIN SMALL LETTER {x}") for x in "ANNA")


class Clock:
    """A time that stands still."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        """Unix time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The library's time."""
    return Clock()


@pytest.fixture
def library(tmp_path: Path, clock: Clock) -> VoiceLibrary:
    """An empty library."""
    return VoiceLibrary(tmp_path / "voices", now=clock)


def config_of(folder: Path) -> dict[str, Any]:
    """config.json as the engine reads it."""
    config = json.loads((folder / "voices" / "config.json").read_text("ascii"))
    assert isinstance(config, dict)
    return config


def sample(seconds: float = 2.0) -> bytes:
    """A recording to upload."""
    return wav(tone(seconds, 24_000))


def by_hand(folder: Path, entries: dict[str, Any]) -> None:
    """What a person or the container's init step puts into the folder."""
    (folder / "voices").mkdir(exist_ok=True)
    (folder / "voices" / "config.json").write_text(json.dumps(entries), "utf-8")
    for entry in entries.values():
        if isinstance(entry, dict) and isinstance(entry.get("audio_file"), str):
            name = entry["audio_file"]
            if "/" not in name:
                (folder / "voices" / name).write_bytes(sample())


def test_the_engine_can_read_every_entry(library: VoiceLibrary, tmp_path: Path) -> None:
    """config.json has for each voice the transcript and audio file that the container needs."""
    library.add("Anna", sample(), transcript="Hello there.")
    library.add("Ben", good_files()["mp3 of 2"])
    config = config_of(tmp_path)
    assert config["Anna"]["transcript"] == "Hello there."
    assert config["Ben"]["transcript"] == "Please speak naturally."
    for entry in config.values():
        info = soundfile.info(tmp_path / "voices" / entry["audio_file"])
        assert (info.samplerate, info.channels, info.subtype) == (24_000, 1, "PCM_16")


def test_a_missing_transcript_is_told_as_missing(library: VoiceLibrary) -> None:
    """The engine's own default stands in, and the library does not take it for a transcript."""
    given, missing = library.add("Anna", sample(), transcript="Hi."), library.add("Ben", sample())
    assert (given.transcript, missing.transcript) == ("Hi.", None)
    found = library.snapshot.get("ben")
    assert (found.transcript, found.prompt_transcript) == (None, "Please speak naturally.")


@pytest.mark.parametrize("asked", ["Anna", "ANNA", "anna.wav", " anna.WAV ", FULL_WIDTH, "Nan"])
def test_case_and_ending_never_matter(library: VoiceLibrary, asked: str) -> None:
    """Chatterbox clients send file names; people do not mind capitals."""
    voice = library.add("Anna.wav", sample(), aliases=["nan"])
    assert library.snapshot.get(asked).id == voice.id
    assert library.snapshot.get(voice.id) == library.snapshot.get("anna")


def test_recordings_are_trimmed_and_levelled(library: VoiceLibrary) -> None:
    """Silence around the speech goes, but for a margin, and quiet and loud voices sound alike."""
    silence = np.zeros(24_000 * 4)
    levels = []
    for name, level in (("quiet", 0.02), ("loud", 0.9)):
        samples = np.concatenate([silence, tone(3.0, 24_000, level), silence])
        voice = library.add(name, wav(samples))
        assert voice.duration_seconds == pytest.approx(3.3, abs=0.05)
        kept, _ = soundfile.read(io.BytesIO(library.read_audio(voice)))
        levels.append(20 * math.log10(np.sqrt(np.mean(kept[4800:-7200] ** 2))))
    assert levels == pytest.approx([-20.0, -20.0], abs=0.5)


def test_thirty_seconds_of_speech_may_stand_in_silence(library: VoiceLibrary) -> None:
    """The bound is on what remains after trimming, not on what was uploaded."""
    silence = np.zeros(24_000 * 5)
    padded = np.concatenate([silence, tone(29.0, 24_000), silence])
    assert library.add("long", wav(padded)).duration_seconds == pytest.approx(29.3, abs=0.1)


@pytest.mark.parametrize("seconds", [0.5, 31.0, 60.0])
def test_too_short_and_too_long_are_refused(
    library: VoiceLibrary, tmp_path: Path, seconds: float
) -> None:
    """Nothing is cut without a word; nothing of a refused voice stays."""
    with pytest.raises(InvalidRequest) as failure:
        library.add("x", sample(seconds), audio_param="audio_sample")
    assert failure.value.param == "audio_sample"
    assert " s" in failure.value.message
    assert not list((tmp_path).rglob("*.wav"))


def test_a_short_word_in_long_silence_is_refused(library: VoiceLibrary) -> None:
    """One second is asked for after trimming."""
    silence = np.zeros(24_000 * 3)
    with pytest.raises(InvalidRequest, match="without the silence"):
        library.add("x", wav(np.concatenate([silence, tone(0.6, 24_000), silence])))


def test_a_name_is_given_once(library: VoiceLibrary, tmp_path: Path) -> None:
    """Neither as a name nor as an alias, in no other case, and no alphabet that looks the same."""
    library.add("Anna", sample(), aliases=["Nan"])
    for taken in (
        "anna",
        "NAN",
        "Anna.wav",
        unicodedata.lookup("FULLWIDTH LATIN SMALL LETTER N") + "an",
    ):
        with pytest.raises(VoiceExists):
            library.add(taken, sample())
    library.add("cop", sample())
    with pytest.raises(VoiceExists):
        library.add("сор", sample())  # noqa: RUF001 (Cyrillic)
    with pytest.raises(VoiceExists):
        VoiceLibrary(tmp_path, lambda: ["Belinda"]).add("belinda", sample())
    with pytest.raises(VoiceExists):
        library.add_alias("Anna", "COP")


def test_a_renamed_voice_keeps_its_id_and_recording(library: VoiceLibrary) -> None:
    """And answers to its new name only; its aliases go with it."""
    before = library.add("Anna", sample(), transcript="Hi.", aliases=["nan"], consent="yes")
    after = library.rename("nan", "Zoë")
    now = library.snapshot
    assert after == now.get("zoë") == now.get("nan") == now.get(before.id)
    assert after.name == "Zoë"
    assert (after.audio_file, after.transcript, after.consent) == (
        before.audio_file,
        "Hi.",
        "yes",
    )
    assert library.snapshot.find("anna") is None
    assert library.rename("Zoë", "ZOË").name == "ZOË"


def test_a_removed_voice_is_gone_at_once_and_its_file_after_a_grace(
    library: VoiceLibrary, tmp_path: Path, clock: Clock
) -> None:
    """The engine keeps what a running request may still ask it for, then all of it goes."""
    library.add("Anna", sample())
    voice = library.add("Ben", sample())
    library.remove("ben")
    assert library.snapshot.find("ben") is None
    assert library.snapshot.hides("Ben")
    assert (tmp_path / "voices" / voice.audio_file).exists()
    assert "Ben" in config_of(tmp_path)
    with pytest.raises(VoiceNotFound):
        library.remove("ben")
    clock.now += 6 * 3600
    assert library.purge(unnamed=True) == [voice.audio_file]
    assert list(config_of(tmp_path)) == ["Anna"]
    assert library.snapshot.hides("Ben"), "the engine's list may be older than the folder"


def test_a_name_that_comes_back_gets_another_key_and_file(
    library: VoiceLibrary, tmp_path: Path, clock: Clock
) -> None:
    """A running request that asked for the old recording by its key never hears the new one."""
    old = library.add("Anna", sample())
    library.remove("Anna")
    new = library.add("Anna", sample(3.0))
    config = config_of(tmp_path)
    assert config["Anna"]["audio_file"] == old.audio_file
    assert config[new.preset]["audio_file"] == new.audio_file
    assert library.snapshot.get("anna") == new
    assert new.preset != "Anna"
    clock.now += 6 * 3600
    library.set_default("anna")
    assert list(config_of(tmp_path)) == [new.preset]


def test_the_engine_never_sees_an_empty_list(
    library: VoiceLibrary, tmp_path: Path, clock: Clock
) -> None:
    """With no preset at all the container answers 500 to everything: the last entry stays."""
    library.add("Anna", sample())
    library.remove("Anna")
    clock.now += 7 * 3600
    library.purge(unnamed=True)
    assert library.snapshot.voices == ()
    assert list(config_of(tmp_path)) == ["Anna"]
    library.add("Ben", sample())
    assert list(config_of(tmp_path)) == ["Ben"]


def test_entries_by_hand_are_voices_and_stay_as_they_are(
    library: VoiceLibrary, tmp_path: Path
) -> None:
    """The image's own presets, extra keys and all, appear and survive every change."""
    entries = {
        "en_woman": {"transcript": "A.", "audio_file": "en_woman.wav", "note": [1, {"b": None}]},
        "scene": {"transcript": "", "audio_file": "s.wav", "system_prompt": "Speak low."},
        "odd": "not an object",
        "no_transcript": {"audio_file": "x.wav"},
    }
    by_hand(tmp_path, entries)
    assert [voice.name for voice in library.snapshot.voices] == ["en_woman", "scene"]
    woman_id = library.snapshot.get("en_woman").id
    library.add("Anna", sample())
    library.set_default("en_woman")
    library.add_alias("en_woman", "lady")
    after = config_of(tmp_path)
    ours = after["en_woman"].pop("gateway")
    assert ours["aliases"] == ["lady"]
    assert {name: after[name] for name in entries} == entries
    assert library.snapshot.get("lady").id == library.snapshot.get(woman_id).id == woman_id
    assert library.snapshot.get("scene").system_prompt == "Speak low."


def test_the_default_is_one_voice_or_none(library: VoiceLibrary) -> None:
    """Setting another takes it from the one before; it goes with its voice."""
    library.add("Anna", sample())
    library.add("Ben", sample())
    assert library.snapshot.default is None
    library.set_default("anna")
    library.set_default("BEN")
    default = library.snapshot.default
    assert default is not None
    assert [v.name for v in library.snapshot.voices if v.is_default] == [default.name] == ["Ben"]
    library.rename("ben", "Bob")
    assert [v.name for v in library.snapshot.voices if v.is_default] == ["Bob"]
    library.remove("bob")
    assert library.snapshot.default is None
    library.set_default("anna")
    assert library.set_default(None) is None
    assert library.snapshot.default is None


def test_a_full_library_takes_no_more(
    library: VoiceLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of voices is bounded; one that goes makes room."""
    monkeypatch.setattr("gateway.voices.library.library.MOST_VOICES", 2)
    for name in ("anna", "ben"):
        library.add(name, wav(tone(1.5, 24_000)))
    with pytest.raises(InvalidRequest, match="full"):
        library.add("carl", wav(tone(1.5, 24_000)))
    library.remove("anna")
    assert library.add("carl", wav(tone(1.5, 24_000))).name == "carl"


def test_aliases_come_and_go(library: VoiceLibrary) -> None:
    """Each of them finds the voice until it is taken away."""
    library.add("Anna", sample())
    assert library.add_alias("anna", "Nan").aliases == ("Nan",)
    assert library.snapshot.get("nan").name == "Anna"
    assert library.remove_alias("anna", "NAN").aliases == ()
    assert library.snapshot.find("nan") is None
    with pytest.raises(VoiceNotFound):
        library.remove_alias("anna", "nan")


@pytest.mark.parametrize("broken", ["", "{", "[]", '"x"', "nul", '{"a": ' * 5000])
def test_a_broken_config_keeps_the_last_good_one_and_is_never_written_over(
    library: VoiceLibrary, tmp_path: Path, broken: str
) -> None:
    """What a hand has broken a hand shall mend; the voices go on until then."""
    library.add("Anna", sample())
    path = tmp_path / "voices" / "config.json"
    good = path.read_text()
    assert library.snapshot.find("anna")
    path.write_text(broken)
    assert library.snapshot.find("anna")
    with pytest.raises(LibraryUnusable):
        library.add("Ben", sample())
    with pytest.raises(LibraryUnusable):
        library.purge(unnamed=True)
    assert path.read_text() == broken
    path.write_text(good)
    library.add("Ben", sample())
    assert {voice.name for voice in library.snapshot.voices} == {"Anna", "Ben"}


def test_another_process_change_is_seen_at_once(library: VoiceLibrary, tmp_path: Path) -> None:
    """Several gateways and commands share one folder."""
    other = VoiceLibrary(tmp_path / "voices")
    assert not other.snapshot.voices
    library.add("Anna", sample())
    assert [voice.name for voice in other.snapshot.voices] == ["Anna"]
    other.remove("anna")
    assert library.snapshot.voices == ()


def test_what_a_killed_writer_left_is_cleaned_up(library: VoiceLibrary, tmp_path: Path) -> None:
    """Its own files only: what people put into the folder stays."""
    library.add("Anna", sample())
    folder = tmp_path / "voices"
    (folder / f".{'a' * 16}.tmp").write_bytes(b"half")
    (folder / f"voice-{'b' * 24}.wav").write_bytes(b"no entry names it")
    (folder / "notes.txt").write_text("mine")
    (folder / "mine.wav").write_bytes(b"mine")
    assert sorted(library.purge(unnamed=True)) == [f".{'a' * 16}.tmp", f"voice-{'b' * 24}.wav"]
    assert {"notes.txt", "mine.wav"} < {path.name for path in folder.iterdir()}


def test_a_lost_config_costs_no_recordings(library: VoiceLibrary, tmp_path: Path) -> None:
    """Cleaning up behind an accident would make it final."""
    voice = library.add("Anna", sample())
    (tmp_path / "voices" / "config.json").unlink()
    assert library.snapshot.voices == ()
    assert library.purge(unnamed=True) == []
    assert (tmp_path / "voices" / voice.audio_file).exists()


def test_special_tokens_never_reach_the_folder(library: VoiceLibrary, tmp_path: Path) -> None:
    """The engine reads the transcript as it stands; one such token would kill it."""
    library.add("Anna", sample(), transcript="Hi <|AUDIO|> there <|eot_id|>.")
    assert "<|" not in config_of(tmp_path)["Anna"]["transcript"]
