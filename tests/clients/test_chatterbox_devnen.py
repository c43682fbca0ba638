"""A client of devnen/Chatterbox-TTS-Server, by the commands of its public documentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engines.simulator.waveform import expected_pcm
from tests.clients.curl import Answer, curl
from tests.running import Gateway
from tests.voices.recordings import tone, wav

TEXT = "This is a test."
Run = Callable[[str], Answer]


@pytest.fixture(scope="module")
def gateway_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A voice library, and the name of one of its voices for a preset."""
    return {"voices_dir": tmp_path_factory.mktemp("voices"), "voice_aliases": "emily=belinda"}


@pytest.fixture
def run(gateway: Gateway, tmp_path: Path) -> Run:
    """Runs a command beside a recording."""
    (tmp_path / "my_voice.wav").write_bytes(wav(tone(3.0, 24_000)))
    return lambda command: curl(command, gateway.url, tmp_path)


def test_a_user_interface_starts(run: Run) -> None:
    """It asks for everything at once, then for the lists."""
    data = run("curl $ADDRESS/api/ui/initial-data").value
    assert data["model_info"]["loaded"] is True
    assert data["config"]["generation_defaults"]["exaggeration"] == 0.5
    voices = run("curl $ADDRESS/get_predefined_voices").value
    assert voices == data["predefined_voices"]
    assert {"display_name": "Belinda", "filename": "belinda.wav"} in voices


def test_a_predefined_voice(run: Run) -> None:
    """With every field, by the name that its own server ships."""
    answer = run(
        f"""curl -X POST $ADDRESS/tts -H "Content-Type: application/json" -d '{{
            "text": "{TEXT}", "voice_mode": "predefined", "predefined_voice_id": "Emily.wav",
            "output_format": "wav", "split_text": true, "chunk_size": 120, "temperature": 0.8,
            "exaggeration": 0.5, "cfg_weight": 0.5, "seed": 1234, "speed_factor": 1.0,
            "language": "en"}}' --output out.wav"""
    )
    assert answer.content_type == "audio/wav"
    assert answer.body[44:] == expected_pcm(TEXT, "belinda")


def test_cloning(run: Run) -> None:
    """Upload a recording, find it in the list, speak with it."""
    uploaded = run('curl -X POST $ADDRESS/upload_reference -F "files=@my_voice.wav"').value
    assert uploaded["uploaded_files"] == ["my_voice.wav"]
    assert run("curl $ADDRESS/get_reference_files").value == ["my_voice.wav"]
    answer = run(
        f"""curl -X POST $ADDRESS/tts -H "Content-Type: application/json" -d '{{
            "text": "{TEXT}", "voice_mode": "clone", "output_format": "mp3",
            "reference_audio_filename": "my_voice.wav"}}' --output out.mp3"""
    )
    assert answer.content_type == "audio/mp3"
    assert len(answer.body) > 1000


def test_the_shared_route(run: Run) -> None:
    """`/v1/audio/speech` takes its file names and its seed."""
    answer = run(
        f"""curl -X POST $ADDRESS/v1/audio/speech -H "Content-Type: application/json" -d '{{
            "model": "chatterbox", "input": "{TEXT}", "voice": "Emily.wav",
            "response_format": "wav", "speed": 1.0, "seed": 4321}}' --output out.wav"""
    )
    assert answer.body[44:] == expected_pcm(TEXT, "belinda")


def test_errors_are_sentences(run: Run) -> None:
    """A missing voice, and one that is not there."""
    for fields, status in (("", 400), (', "predefined_voice_id": "Nobody.wav"', 404)):
        answer = run(
            f"""curl -X POST $ADDRESS/tts -H "Content-Type: application/json" \\
                -d '{{"text": "{TEXT}"{fields}}}'"""
        )
        assert answer.status == status
        assert isinstance(answer.value["detail"], str)
