"""`speech-gateway voices` and `engine --voice-presets-dir`: the folder without a gateway."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from engines.server.presets import PresetFolder
from gateway.commands.main import main
from gateway.voices.library.library import VoiceLibrary
from tests.running import running_engine, wait_until
from tests.voices.recordings import tone, wav


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library's folder, as the environment names it; a sample stands beside it."""
    monkeypatch.setenv("GATEWAY_VOICES_DIR", str(tmp_path / "voices"))
    (tmp_path / "me.wav").write_bytes(wav(tone(1.5, 24_000)))
    return tmp_path / "voices"


def test_the_command_keeps_the_library(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Add, rename, default, list, remove: each tells what it did, each is there for all others."""
    sample = str(folder.parent / "me.wav")
    assert main(["voices", "list"]) == 0
    assert main(["voices", "add", "Anna", sample, "--alias", "Nan", "--language", "de"]) == 0
    told = capsys.readouterr()
    assert "Anna" in told.out
    assert "no transcript given" in told.err
    assert main(["voices", "rename", "nan", "Zoë"]) == 0
    assert main(["voices", "default", "zoë"]) == 0
    voice = VoiceLibrary(folder).snapshot.get("Zoë")
    assert (voice.aliases, voice.language, voice.is_default) == (("Nan",), "de", True)
    assert voice.original_name == "me.wav"
    capsys.readouterr()
    assert main(["voices", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["id"] == voice.id
    assert main(["voices", "default", "--clear"]) == 0
    assert VoiceLibrary(folder).snapshot.default is None
    assert main(["voices", "remove", "zoë"]) == 0
    assert VoiceLibrary(folder).snapshot.voices == ()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["remove", "nobody"], 1, "nobody"),
        (["rename", "nobody", "x"], 1, "nobody"),
        (["default", "nobody"], 1, "nobody"),
        (["add", "../x", "me.wav"], 1, "name"),
        (["add", "x", "missing.wav"], 1, "missing.wav"),
        (["add", "x", "."], 1, "."),
        (["add", "x", "text.wav"], 1, "formats"),
        (["default", "x", "--clear"], 2, "--clear"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    words: str,
) -> None:
    """On the error output, with a status that scripts can see, and nothing is changed."""
    monkeypatch.chdir(folder.parent)
    (folder.parent / "text.wav").write_text("no sound")
    assert main(["voices", *arguments]) == status
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("speech-gateway: ")
    assert words in told.err
    assert told.err.count("\n") == 1
    assert not list(folder.glob("*.wav"))


@pytest.mark.parametrize("arguments", [["list"], ["default"], ["remove", "anna"]])
def test_a_damaged_library_is_not_shown_as_an_empty_one(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Whoever broke config.json shall hear of it."""
    folder.mkdir()
    (folder / "config.json").write_text("{")
    assert main(["voices", *arguments]) == 1
    assert "damaged" in capsys.readouterr().err


def test_a_file_is_no_folder(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong GATEWAY_VOICES_DIR is told at the start, by its name."""
    monkeypatch.setenv("GATEWAY_VOICES_DIR", str(folder.parent / "me.wav"))
    assert main(["voices", "list"]) == 2
    assert "GATEWAY_VOICES_DIR" in capsys.readouterr().err


def test_without_a_setting_the_library_is_in_the_data_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The same that `serve` uses; the command line may name another."""
    monkeypatch.delenv("GATEWAY_VOICES_DIR", raising=False)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path))
    VoiceLibrary(tmp_path / "voices").add("Anna", wav(tone(1.5, 24_000)))
    assert main(["voices", "list"]) == 0
    assert "Anna" in capsys.readouterr().out
    assert main(["voices", "--dir", str(tmp_path / "other"), "list"]) == 0
    assert "no voices" in capsys.readouterr().err


def test_an_engine_shows_the_folders_voices_as_they_change(tmp_path: Path) -> None:
    """The list follows config.json; an unknown voice is the first one's, as in the container."""
    library = VoiceLibrary(tmp_path)
    library.add("Anna", wav(tone(1.5, 24_000)))
    arguments = ("--voice", "simulated", "--voice-presets-dir", str(tmp_path))
    with running_engine(*arguments) as engine:
        url = engine.address + "/v1/audio/"
        assert httpx.get(url + "voices").json() == ["Anna"]
        library.add("Ben", wav(tone(2.5, 24_000)))
        wait_until(lambda: httpx.get(url + "voices").json() == ["Anna", "Ben"], "it is listed")
        for voice, seconds in (("Ben", 2.5), ("nobody", 1.5)):
            body = {"model": model_of(engine.address), "input": "Hello.", "voice": voice}
            assert httpx.post(url + "speech", json=body).status_code == 200
            state = httpx.get(engine.address + "/simulator/state").json()
            assert state["requests"][-1]["reference_seconds"] == pytest.approx(seconds, abs=0.01)
        (tmp_path / "config.json").write_text("{")
        assert httpx.get(url + "voices").json() == ["Anna", "Ben"]
        (tmp_path / "config.json").write_text('{"Anna": {"audio_file": "missing.wav"}}')
        body = {"model": model_of(engine.address), "input": "Hello.", "voice": "Anna"}
        assert httpx.post(url + "speech", json=body).status_code == 500


def model_of(address: str) -> str:
    """The served model."""
    return str(httpx.get(address + "/v1/models").json()["data"][0]["id"])


def test_an_engine_without_a_readable_folder_does_not_start(tmp_path: Path) -> None:
    """The mistake is told at the start, not at the first request."""
    with pytest.raises(ValueError, match="--voice-presets-dir"):
        PresetFolder(tmp_path)
