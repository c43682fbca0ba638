"""Names and files that mean harm: nothing is read, served or written outside of the folder."""

from __future__ import annotations

import io
import json
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import GatewayError, InvalidRequest, LibraryUnusable, VoiceNotFound
from gateway.voices.library.library import VoiceLibrary
from gateway.voices.name_rules import clean_name
from tests.voices.recordings import flac_bomb, m4a_bomb, tone, wav

SECRET = b"root:x:0:0"
SAMPLE = wav(tone(1.5, 24_000))
CYRILLIC_A = "\N{CYRILLIC SMALL LETTER A}"
NAMES = {
    "empty": "",
    "blank": "  ",
    "parent": "../outside",
    "deep": "a/../../outside",
    "absolute": "/etc/passwd",
    "windows": "..\\outside",
    "drive": "C:\\x",
    "dots": "..",
    "hidden": ".config",
    "nul": "a\0.wav",
    "line end": "a\nb",
    "10,000 characters": "a" * 10_000,
    "101 characters": "a" * 101,
    "full-width solidus": "\N{FULLWIDTH FULL STOP}" * 2 + "\N{FULLWIDTH SOLIDUS}outside",
    "two dot leader": "\N{TWO DOT LEADER}/x",
    "mixed alphabets": f"Ann{CYRILLIC_A}",
    "right to left": "\N{RIGHT-TO-LEFT OVERRIDE}vaw.anna",
    "zero width": "an\N{ZERO WIDTH SPACE}na",
    "zero width joiner": "an\N{ZERO WIDTH JOINER}na",
    "soft hyphen": "an\N{SOFT HYPHEN}na",
    "combining grapheme joiner": "an\N{COMBINING GRAPHEME JOINER}na",
    "surrogate": "\ud800",
    "special token": "<|AUDIO|>",
    "markup": "<script>alert(1)</script>",
    "shell": "$(touch x)",
    "quote": 'a"b',
    "percent": "%2e%2e%2fx",
    "emoji": "\N{GRINNING FACE}",
}


@pytest.fixture
def secrets(tmp_path: Path) -> None:
    """Files that are nobody's business."""
    (tmp_path / "secret.wav").write_bytes(SAMPLE)
    (tmp_path / "secret.txt").write_bytes(SECRET)


@pytest.fixture
def library(tmp_path: Path) -> VoiceLibrary:
    """A library beside a secret."""
    library = VoiceLibrary(tmp_path / "voices")
    library.add("Anna", SAMPLE)
    return library


@pytest.fixture
def outside(tmp_path: Path, secrets: None) -> Iterator[None]:
    """All that lies outside of the folder is the same afterwards."""

    def seen() -> dict[str, bytes]:
        return {
            str(path.relative_to(tmp_path)): path.read_bytes() if path.is_file() else b""
            for path in tmp_path.rglob("*")
            if "voices" not in path.parts[len(tmp_path.parts) :]
        }

    del secrets
    before = seen()
    assert before
    yield
    assert seen() == before


def entry(audio_file: object) -> dict[str, object]:
    """An entry as a hand writes it."""
    return {"transcript": "Hi.", "audio_file": audio_file}


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_harmful_name_is_refused_everywhere(
    library: VoiceLibrary, tmp_path: Path, name: str
) -> None:
    """As a voice's name, a new name and an alias; and finds nothing."""
    before = {path.name for path in (tmp_path / "voices").iterdir()}
    attempts: list[Callable[[], object]] = [
        lambda: library.add(name, SAMPLE),
        lambda: library.add("fine", SAMPLE, aliases=[name]),
        lambda: library.rename("anna", name),
        lambda: library.add_alias("anna", name),
    ]
    for attempt in attempts:
        with pytest.raises(InvalidRequest):
            attempt()
    for lookup in (library.snapshot.get, library.remove, library.set_default):
        with pytest.raises(VoiceNotFound):
            lookup(name)
    assert {path.name for path in (tmp_path / "voices").iterdir()} == before


@pytest.mark.parametrize(
    "name", ["Anna", "Zoë 2", "M. Dupont-Roy", "voice_1", "Анна", "小明", "ナオミ 2", "हिन्दी"]
)
def test_honest_names_of_all_alphabets_are_taken(name: str) -> None:
    """Letters are letters, wherever people live."""
    assert clean_name(name, param="name") == name


def polyglot() -> bytes:
    """A WAV that a browser would take for a page and an archiver for an archive."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../outside.txt", "x")
    return SAMPLE + b"<script>alert(1)</script>" + archive.getvalue()


@pytest.mark.usefixtures("outside")
def test_of_a_polyglot_only_the_sound_is_kept(library: VoiceLibrary) -> None:
    """What is stored was decoded and written anew."""
    voice = library.add("poly", polyglot())
    kept = library.read_audio(voice)
    assert b"<script>" not in kept
    assert b"PK" not in kept
    assert abs(len(kept) - len(SAMPLE)) < 48_000 * 0.5


def archive_of(size: int) -> bytes:
    """An archive that unpacks to so many bytes."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("voice.wav", bytes(size))
    return archive.getvalue()


FILES = {
    "archive": archive_of(100_000_000),
    "text": SECRET,
    "nothing": b"",
    "playlist": b"#EXTM3U\nfile:///etc/passwd\n",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "header alone": SAMPLE[:44],
    "hours of silence": flac_bomb(7200),
    "millions of packets": m4a_bomb(),
}


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_a_harmful_file_is_refused_and_leaves_nothing(
    library: VoiceLibrary, tmp_path: Path, file: bytes
) -> None:
    """With a client error, and no file of it in the folder."""
    before = sorted(path.name for path in (tmp_path / "voices").iterdir())
    with pytest.raises(GatewayError) as failure:
        library.add("x", file)
    assert failure.value.status in {400, 413}
    assert sorted(path.name for path in (tmp_path / "voices").iterdir()) == before


def test_a_huge_file_is_refused_unread(library: VoiceLibrary) -> None:
    """Above 10 MiB nothing is decoded."""
    with pytest.raises(GatewayError) as failure:
        library.add("x", SAMPLE + bytes(10 * 1024 * 1024))
    assert failure.value.status == 413


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    "audio_file",
    [
        "../secret.wav",
        "/etc/passwd",
        "./../secret.wav",
        "link.wav",
        "pipe.wav",
        "sub",
        "config.json/",
        ".lock",
        "",
        "missing.wav",
        "a\0.wav",
        "x" * 5000,
        7,
        None,
        ["a"],
    ],
)
def test_an_entry_that_points_elsewhere_is_no_voice(
    library: VoiceLibrary, tmp_path: Path, audio_file: object
) -> None:
    """It is never read; it stays in the file, for whoever wrote it."""
    folder = tmp_path / "voices"
    (folder / "link.wav").symlink_to(tmp_path / "secret.wav")
    os.mkfifo(folder / "pipe.wav")
    (folder / "sub").mkdir()
    config = json.loads((folder / "config.json").read_text())
    config["evil"] = entry(audio_file)
    (folder / "config.json").write_text(json.dumps(config))
    assert library.snapshot.find("evil") is None
    library.set_default("anna")
    assert json.loads((folder / "config.json").read_text())["evil"] == entry(audio_file)
    library.purge(unnamed=True)


@pytest.mark.usefixtures("outside")
def test_a_recording_that_turns_into_a_link_is_not_read(
    library: VoiceLibrary, tmp_path: Path
) -> None:
    """Not even when it was a file as config.json was read."""
    voice = library.snapshot.get("anna")
    path = tmp_path / "voices" / voice.audio_file
    path.unlink()
    path.symlink_to(tmp_path / "secret.wav")
    with pytest.raises(VoiceNotFound):
        library.read_audio(voice)


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("name", ["config.json", ".lock"])
def test_a_link_in_place_of_the_librarys_own_files_is_not_followed(
    library: VoiceLibrary, tmp_path: Path, name: str
) -> None:
    """Neither to read nor to write: the change is refused."""
    assert library.snapshot.voices
    path = tmp_path / "voices" / name
    path.unlink()
    path.symlink_to(tmp_path / "secret.txt")
    with pytest.raises(LibraryUnusable):
        library.add("Ben", SAMPLE)
    assert [voice.name for voice in library.snapshot.voices] == ["Anna"]


@pytest.mark.usefixtures("outside")
def test_a_link_under_a_new_file_name_is_replaced_not_followed(
    library: VoiceLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should somebody guess it: the name is random."""
    monkeypatch.setattr(
        "gateway.voices.library.library.secrets.token_hex", lambda count: "a" * 2 * count
    )
    guessed = tmp_path / "voices" / f"voice-{'a' * 24}.wav"
    guessed.symlink_to(tmp_path / "secret.txt")
    library.add("Ben", SAMPLE)
    assert stat.S_ISREG(guessed.lstat().st_mode)


def test_texts_are_bounded_and_cleaned(library: VoiceLibrary) -> None:
    """Transcripts reach the engine's prompt; the rest is shown to others."""
    wrongs: list[dict[str, Any]] = [
        {"transcript": "a" * 5000},
        {"transcript": "\ud800"},
        {"consent": "a" * 5000},
        {"language": "../en"},
        {"language": "a" * 40},
        {"aliases": [f"a{n}" for n in range(17)]},
    ]
    for wrong in wrongs:
        with pytest.raises(InvalidRequest) as failure:
            library.add("x", SAMPLE, **wrong)
        assert failure.value.param == next(iter(wrong))
    voice = library.add("x", SAMPLE, original_name="..\\..\\a/../\x1b[31mb.wav")
    assert voice.original_name == "[31mb.wav"


def test_the_folder_stays_readable_for_the_container(library: VoiceLibrary, tmp_path: Path) -> None:
    """It may run as another user: files are not for their owner alone."""
    for path in (tmp_path / "voices").iterdir():
        assert path.name == ".lock" or path.stat().st_mode & stat.S_IROTH
    assert library.snapshot.voices
