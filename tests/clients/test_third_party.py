"""Programs of others, run unchanged: they are told the gateway's address and nothing else.

SillyTavern 1.19.0 (its providers "Chatterbox" and "TTS WebUI"), and Vercel's AI SDK 5.0.277 with
@ai-sdk/openai 2.0.130.
"""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from engines.simulator.waveform import expected_pcm
from tests.clients.scripts import NODE, SILLYTAVERN, require, result, started
from tests.listen import decode
from tests.running import Gateway
from tests.voices.recordings import tone, wav

TEXT = "Hello there, my friend."

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def gateway_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A library."""
    return {"voices_dir": tmp_path_factory.mktemp("voices")}


@pytest.fixture(scope="module")
def gateway(gateway: Gateway) -> Gateway:
    """A gateway with a library of one voice."""
    httpx.post(
        gateway.url + "/upload_reference",
        files={"files": ("Gianna.wav", wav(tone(2.0, 24_000)))},
        timeout=30,
    ).raise_for_status()
    return gateway


@pytest.fixture(scope="module")
def sillytavern(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What SillyTavern's providers found."""
    require("sillytavern")
    folder = tmp_path_factory.mktemp("providers")
    for name in ("chatterbox.js", "tts-webui.js"):
        shutil.copy(SILLYTAVERN / name, folder)
    script = str(NODE / "sillytavern.mjs")
    with started(["node", script, str(folder), gateway.url], Path(folder)) as process:
        return result(process)


@pytest.fixture(scope="module")
def ai_sdk(gateway: Gateway) -> dict[str, Any]:
    """What the AI SDK found."""
    require("node")
    with started(["node", "ai_sdk.mjs", gateway.url + "/v1"], NODE) as process:
        return result(process)


def audio_of(heard: dict[str, Any]) -> bytes:
    """The bytes that a client got."""
    return base64.b64decode(heard["audio"])


def test_sillytavern_finds_the_server_and_its_voices(sillytavern: dict[str, Any]) -> None:
    """Presets and the library's voices by name, and the library's once more as clones."""
    found = sillytavern["chatterbox"]
    assert found["ready"] is True
    ids = [voice["voice_id"] for voice in found["voices"]]
    assert {"belinda.wav", "Gianna.wav", "ref_Gianna.wav"} <= set(ids)
    assert {"Belinda", "Gianna", "[Clone] Gianna.wav"} <= {v["name"] for v in found["voices"]}


def test_sillytavern_speaks_with_every_voice_that_it_lists(sillytavern: dict[str, Any]) -> None:
    """Each a whole WAV file in its own voice."""
    said = sillytavern["chatterbox"]["said"]
    assert len(said) == len(sillytavern["chatterbox"]["voices"])
    assert {heard["type"] for heard in said.values()} == {"audio/wav"}
    assert audio_of(said["belinda.wav"])[44:] == expected_pcm(TEXT, "belinda")
    assert said["Gianna.wav"] == said["ref_Gianna.wav"]
    assert len({heard["audio"] for heard in said.values()}) == len(said) - 1


def test_sillytavern_may_turn_its_knobs_and_is_told_of_unknown_voices(
    sillytavern: dict[str, Any],
) -> None:
    """The ends of its sliders are no error; a voice that went is one."""
    found = sillytavern["chatterbox"]
    assert found["expressive"]["type"] == "audio/opus"
    samples, rate = decode(audio_of(found["expressive"]), "opus")
    assert len(samples) / rate > 0.3
    assert found["unknown"].startswith("HTTP 404")


def test_sillytavern_s_tts_webui_provider_speaks(sillytavern: dict[str, Any]) -> None:
    """WAV as a stream and as a whole file."""
    found = sillytavern["ttsWebui"]
    assert [voice["voice_id"] for voice in found["voices"]] == ["belinda"]
    for way in ("true", "false"):
        assert audio_of(found["said"][way])[44:] == expected_pcm(TEXT, "belinda")


@pytest.mark.parametrize("response_format", ["mp3", "wav", "opus", "aac", "flac", "pcm"])
def test_the_ai_sdk_generates_speech_in_every_format(
    ai_sdk: dict[str, Any], response_format: str
) -> None:
    """The whole text is in it."""
    heard = ai_sdk[response_format]
    samples, rate = decode(audio_of(heard), response_format)
    expected = len(expected_pcm(TEXT, "en_woman")) / 48_000
    assert len(samples) / rate == pytest.approx(expected, abs=0.15)
    assert heard["type"].startswith("audio/")


def test_the_ai_sdk_takes_the_default_format_instructions_and_refusals(
    ai_sdk: dict[str, Any],
) -> None:
    """It reads MP3 where it asked for nothing, and errors as OpenAI's."""
    assert ai_sdk["default"]["format"] == "mp3"
    assert len(audio_of(ai_sdk["instructed"])) > 1000
    assert ai_sdk["refused"]["status"] == 404
    assert "nobody" in ai_sdk["refused"]["message"]
