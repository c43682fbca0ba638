"""The page of devnen's server, its own script and markup, in Chromium against the gateway.

Part of `make prove`, which fetches it (`scripts/install-clients prove`).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from engines.simulator.waveform import expected_pcm
from tests.clients.openai_scenario import TEXT
from tests.clients.scripts import NODE, ROOT, chromium, require_fetched, result, started
from tests.listen import decode
from tests.running import running_engine, running_gateway
from tests.voices.recordings import tone, wav

FOLDER = ROOT / ".cache" / "clients" / "devnen_page"
SECONDS = len(expected_pcm(TEXT, "en_woman")) / 48_000

pytestmark = [pytest.mark.prove, pytest.mark.browser]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the page showed to a person who tried everything."""
    browser = chromium()
    require_fetched(FOLDER)
    folder = tmp_path_factory.mktemp("recordings")
    for name, seconds in (("mine.wav", 3.0), ("  .wav", 4.0), (".wav", 4.0), ("long.wav", 31.0)):
        (folder / name).write_bytes(wav(tone(seconds, 24_000)))
    (folder / "notes.wav").write_text("These are words.")
    ui = str(FOLDER / "checkout" / "ui")
    with (
        running_engine("--voice", "simulated", "--tokens-per-second", "4000") as engine,
        running_gateway(
            upstreams=engine.address, voices_dir=tmp_path_factory.mktemp("voices")
        ) as gateway,
        started(
            ["node", "devnen_page.mjs", gateway.url, browser, ui, str(folder), TEXT], NODE
        ) as process,
    ):
        yield result(process)


def test_it_loads_with_its_voices_and_settings(found: dict[str, Any]) -> None:
    """A default voice is chosen already, and no script fails."""
    assert found["model"].endswith("loaded on upstream")
    assert found["chosen"] != "none"
    assert {found["chosen"], "belinda.wav"} <= set(found["voices"])
    assert found["settings"]["exaggeration"] == "0.5"
    assert (found["errors"], found["failed"]) == ([], [])


@pytest.mark.parametrize("way", ["default", "wav", "mp3", "opus"])
def test_it_plays_and_offers_every_format(found: dict[str, Any], way: str) -> None:
    """With its default settings, too: the player has the whole answer."""
    spoken = found["spoken"][way]
    ending = "wav" if way == "default" else way
    assert spoken["name"].endswith(f".{ending}")
    samples, rate = decode(base64.b64decode(spoken["audio"]), ending)
    assert len(samples) / rate == pytest.approx(SECONDS, abs=0.2)
    assert spoken["shown"] == f"0:{int(SECONDS):02}"
    assert found["chosen"] in spoken["voice"]


def test_a_recording_becomes_a_voice_and_speaks(found: dict[str, Any]) -> None:
    """It is chosen at once, and sounds like none of the presets."""
    assert found["uploaded"].endswith("mine.wav")
    assert found["selected"] == "mine.wav"
    assert found["cloned"]["audio"] != found["spoken"]["wav"]["audio"]
    assert "mine.wav" in found["cloned"]["voice"]
    assert "mine.wav" in found["references"]


def test_files_without_a_name_become_one_voice(found: dict[str, Any]) -> None:
    """The same recording twice, once with blanks before the ending."""
    assert "recording-" in found["nameless"]
    assert found["again"] == found["nameless"]
    assert sum(name.startswith("recording-") for name in found["references"]) == 1


def test_it_shows_what_went_wrong_and_why(found: dict[str, Any]) -> None:
    """Its own checks, uploads that cannot be voices, and a voice that is gone."""
    assert found["blank"] == "Please enter some text to generate speech."
    assert "30" in found["long"]
    assert "notes.wav" in found["noSound"]
    assert "mine" in found["gone"]


def test_voices_of_both_lists_can_be_made(found: dict[str, Any]) -> None:
    """The import button of predefined voices, and its list after a refresh."""
    assert found["predefined"].endswith("mine.wav")
    assert "mine.wav" in found["voicesAfter"]


def test_its_settings_are_answered(found: dict[str, Any]) -> None:
    """Whatever it saves, resets and restarts, nothing is an error."""
    for path in ("/save_settings", "/restart_server", "/reset_settings"):
        assert set(found["answers"][path]) == {200}, path
