"""A client of travisvn/chatterbox-tts-api, by the commands of its public documentation."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engines.simulator.waveform import expected_pcm
from tests.clients.curl import Answer, curl
from tests.running import Gateway, wait_until
from tests.voices.recordings import by_ffmpeg, tone

Run = Callable[[str], Answer]


@pytest.fixture(scope="module")
def gateway_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A voice library."""
    return {"voices_dir": tmp_path_factory.mktemp("voices")}


@pytest.fixture
def run(gateway: Gateway, tmp_path: Path) -> Run:
    """Runs a command beside a recording."""
    (tmp_path / "my_voice.mp3").write_bytes(
        by_ffmpeg(tone(3.0, 44_100), 44_100, "mp3", "libmp3lame")
    )
    return lambda command: curl(command, gateway.url, tmp_path)


def check_wav(answer: Answer, text: str, voice: str = "en_woman") -> None:
    """A whole WAV file of a text."""
    assert answer.status == 200, answer.body
    assert answer.content_type == "audio/wav"
    assert answer.body[44:] == expected_pcm(text, voice)


def test_basic_text_to_speech(run: Run) -> None:
    """With and without parameters, on the path that OpenAI's clients use, too."""
    text = "Hello! This is a test."
    for path in ("/v1/audio/speech", "/audio/speech", "/tts"):
        answer = run(
            f"""curl -X POST $ADDRESS{path} \\
                -H "Content-Type: application/json" \\
                -d '{{"input": "{text}"}}' \\
                --output speech.wav"""
        )
        check_wav(answer, text)
        answer = run(
            f"""curl -X POST $ADDRESS{path} -H 'Content-Type: application/json' \\
                -d '{{"input": "Dramatic!", "exaggeration": 1.2, "cfg_weight": 0.3,
                     "temperature": 0.9}}' --output dramatic.wav"""
        )
        assert answer.status == 200


def test_custom_voice_upload(run: Run) -> None:
    """The recording comes with the text, as a form."""
    answer = run(
        """curl -X POST $ADDRESS/v1/audio/speech/upload \\
            -F "input=Hello with my custom voice!" \\
            -F "exaggeration=0.8" -F "voice_file=@my_voice.mp3" \\
            --output custom_voice_speech.wav"""
    )
    assert answer.status == 200, answer.body
    assert answer.content_type == "audio/wav"
    answer = run(
        """curl -X POST $ADDRESS/v1/audio/speech/stream/upload \\
            -F "input=Stream with my voice!" -F "voice_file=@my_voice.mp3" \\
            -F streaming_chunk_size=150 -F streaming_strategy=word --output streaming.wav"""
    )
    assert answer.status == 200, answer.body


def test_streaming(run: Run) -> None:
    """A WAV file as it is made."""
    text = "This will stream as it is generated."
    answer = run(
        f"""curl -X POST $ADDRESS/v1/audio/speech/stream \\
            -H "Content-Type: application/json" \\
            -d '{{"input": "{text}", "streaming_strategy": "sentence",
                 "streaming_chunk_size": 200, "streaming_buffer_size": 3,
                 "streaming_quality": "balanced"}}' \\
            --output streaming.wav"""
    )
    check_wav(answer, text)
    assert struct.unpack("<I", answer.body[40:44])[0] == 0xFFFFFFFF


def test_server_side_events(run: Run) -> None:
    """`stream_format: sse` with curl's `--no-buffer`."""
    text = "Real-time generation."
    answer = run(
        f"""curl -X POST $ADDRESS/audio/speech -H "Content-Type: application/json" \\
            -H "Accept: text/event-stream" --no-buffer \\
            -d '{{"input": "{text}", "stream_format": "sse"}}'"""
    )
    assert answer.content_type.startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line]
    assert events[0]["type"] == "speech.audio.info"
    audio = [base64.b64decode(e["audio"]) for e in events if e["type"] == "speech.audio.delta"]
    assert b"".join(audio) == expected_pcm(text, "en_woman")
    assert events[-1]["type"] == "speech.audio.done"


def test_the_voice_library(run: Run) -> None:
    """Upload, use by name and alias, rename, make it the default, download, delete."""
    answer = run(
        """curl -X POST $ADDRESS/voices -F "voice_name=my-custom-voice" -F "language=en" \\
            -F "voice_file=@my_voice.mp3" """
    )
    assert answer.status == 201, answer.body
    assert answer.value["voice"]["name"] == "my-custom-voice"
    listed = run("curl $ADDRESS/voices").value
    assert listed["count"] == 1
    assert listed["voices"][0]["original_filename"] == "my_voice.mp3"
    assert run('curl -X POST $ADDRESS/voices/my-custom-voice/aliases -F "alias=narrator"').value[
        "aliases"
    ] == ["narrator"]
    usual = run("""curl -X POST $ADDRESS/audio/speech -H 'Content-Type: application/json' \\
        -d '{"input": "Hello!"}'""")
    said = [
        run(f"""curl -X POST $ADDRESS/v1/audio/speech -H "Content-Type: application/json" \\
            -d '{{"input": "Hello!", "voice": "{voice}"}}'""")
        for voice in ("my-custom-voice", "narrator", "NARRATOR.wav")
    ]
    assert said[0].body == said[1].body == said[2].body != usual.body
    renamed = run("curl -X PUT $ADDRESS/voices/my-custom-voice -F new_name=better-name")
    assert renamed.value["new_name"] == "better-name"
    assert run('curl -X POST $ADDRESS/voices/default -d "voice_name=better-name"').status == 200
    now = run("""curl -X POST $ADDRESS/audio/speech -H 'Content-Type: application/json' \\
        -d '{"input": "Hello!"}'""")
    assert now.body[44:] == said[0].body[44:]
    wav = run("curl $ADDRESS/voices/better-name/download --output voice.wav")
    assert wav.body[:4] == b"RIFF"
    assert run("curl -X DELETE $ADDRESS/voices/default").value["default_voice"] is None
    assert run("curl -X DELETE $ADDRESS/voices/better-name").status == 200
    assert run("curl $ADDRESS/voices").value["count"] == 0


def test_health_status_and_memory(run: Run, gateway: Gateway) -> None:
    """What dashboards poll."""
    assert run("curl $ADDRESS/ping").value["status"] == "ok"
    health = run("curl $ADDRESS/health").value
    assert health["status"] == "healthy"
    assert health["model_loaded"] is True
    run("""curl -X POST $ADDRESS/audio/speech -H 'Content-Type: application/json' \\
        -d '{"input": "Hello!"}'""")
    activity = gateway.runtime.activity
    wait_until(lambda: not activity.running, "it is over")
    assert run('curl "$ADDRESS/status/history?limit=5"').value["request_history"]
    assert run('curl "$ADDRESS/status/statistics?include_memory=true"').value["current_memory"]
    assert run('curl "$ADDRESS/memory?cleanup=true"').value["memory_info"]["cpu_memory_mb"] > 0
    assert run("curl $ADDRESS/info").value["uptime_info"]["total_requests"] > 0
    assert run('curl -X POST "$ADDRESS/status/history/clear?confirm=true"').value["success"] is True
