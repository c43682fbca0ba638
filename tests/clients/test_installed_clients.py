"""Clients with many dependencies, each run as it is installed, in an environment of its own.

Part of `make prove`, which installs them (`scripts/install-clients prove`, 1.9 GB).
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from engines.simulator.waveform import expected_pcm
from loadtest.processes import free_port
from tests.clients.installed.common import TEXT
from tests.clients.scripts import ROOT
from tests.listen import decode
from tests.running import Gateway, running_engine, running_gateway, wait_until

pytestmark = pytest.mark.prove

INSTALLED = ROOT / ".cache" / "clients"
PROGRAMS = Path(__file__).with_name("installed")
DEADLINE_SECONDS = 300.0


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A gateway with its default settings; its engine is slow enough to leave."""
    arguments = ("--voice", "simulated", "--tokens-per-second", "500")
    with running_engine(*arguments) as engine, running_gateway(upstreams=engine.address) as running:
        yield running


def environment(client: str) -> Path:
    """The folder of a client's installation; the test is skipped where there is none."""
    folder = INSTALLED / client
    if not (folder / ".installed").exists():
        pytest.skip(f"needs {client}: `scripts/install-clients prove`")
    return folder


def run(client: str, *arguments: str, **variables: str) -> dict[str, Any]:
    """What a client's program printed."""
    python = environment(client) / "bin" / "python"
    command = [str(python), str(PROGRAMS / f"{client}.py"), *arguments]
    path = {"PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin", "HOME": str(INSTALLED)}
    ended = subprocess.run(
        command,
        env={**path, **variables},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    value = json.loads(ended.stdout.splitlines()[-1])
    assert isinstance(value, dict)
    return value


@cache
def seconds_of(voice: str) -> float:
    """How long the sentence is."""
    return len(expected_pcm(TEXT, voice)) / 48_000


def check(found: dict[str, Any], *, refused: str) -> None:
    """Every answer is whole, and an unknown name is an error with its words."""
    for name, said in found["heard"].items():
        audio = base64.b64decode(said["audio"])
        samples, rate = decode(audio, said["format"])
        assert len(samples) / rate == pytest.approx(seconds_of("en_woman"), abs=0.2), name
    assert refused in found["refused"]


@contextmanager
def leaves_once(gateway: Gateway) -> Iterator[None]:
    """The client leaves one answer in the middle, which frees its slot."""

    def left() -> float:
        return gateway.metric("gateway_requests_total", surface="openai", outcome="cancelled")

    before = left()
    yield
    wait_until(lambda: left() == before + 1, "the request is cancelled")
    assert not gateway.metric("gateway_in_flight_requests")


def test_livekit_s_plugin_speaks(gateway: Gateway) -> None:
    """livekit-plugins-openai: events of MP3 by default, other models and formats."""
    with leaves_once(gateway):
        check(run("livekit_tts", gateway.url + "/v1"), refused="404")


def test_pipecat_s_service_speaks_in_a_pipeline(gateway: Gateway) -> None:
    """pipecat-ai: PCM at 24 kHz, an interruption frees the engine."""
    with leaves_once(gateway):
        check(run("pipecat_tts", gateway.url + "/v1"), refused="whisper-9")


def test_litellm_speaks(gateway: Gateway) -> None:
    """The SDK of litellm: both clients, every format."""
    check(run("litellm_sdk", gateway.url + "/v1"), refused="nobody")


def test_home_assistant_s_engine_speaks(gateway: Gateway) -> None:
    """The integration openai_tts (3.7): whole and streamed."""
    checkout = str(environment("home_assistant_engine") / "openai_tts")
    with leaves_once(gateway):
        check(run("home_assistant_engine", gateway.url + "/v1", checkout), refused="404")


def test_open_webui_reads_a_message_aloud(gateway: Gateway, tmp_path: Path) -> None:
    """open-webui's audio routes: menus, speech, its cache, a refusal."""
    variables = {
        "USE_SLIM_DOCKER": "true",
        "FROM_INIT_PY": "true",  # it is a package, and no checkout
        "VECTOR_DB": "unused",
        "DATA_DIR": str(tmp_path),
        "WEBUI_SECRET_KEY": "unused",
    }
    found = run("open_webui_audio", gateway.url + "/v1", **variables)
    check(found, refused="404")
    assert {"alloy", "belinda"} <= {voice["id"] for voice in found["voices"]}
    assert "tts-1" in {model["id"] for model in found["models"]}
    assert found["types"][0].startswith("audio/mpeg")
    assert found["heard"]["0"] == found["heard"]["1"]


def test_wyoming_openai_speaks_with_its_shipped_chatterbox_settings(gateway: Gateway) -> None:
    """The variables of its docker-compose.chatterbox.yml, with the gateway's address."""
    folder = environment("wyoming_voice")
    port = free_port()
    settings = {
        "WYOMING_URI": f"tcp://127.0.0.1:{port}",
        "WYOMING_LANGUAGES": "en",
        "TTS_OPENAI_URL": gateway.url + "/v1",
        "TTS_MODELS": "tts-1-hd",
        "TTS_BACKEND": "OPENAI",
        "TTS_VOICES": "default",
        "TTS_SPEED": "1.0",
    }
    command = [str(folder / "bin" / "python"), "-m", "wyoming_openai"]
    with leaves_once(gateway), subprocess.Popen(command, env=settings) as server:
        try:
            found = run("wyoming_voice", str(port))
        finally:
            server.kill()
    check(found, refused="")
    assert found["voices"] == ["default"]
