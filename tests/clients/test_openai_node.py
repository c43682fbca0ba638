"""OpenAI's JavaScript SDK, and Chromium as a player; both need Node and `scripts/install`."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.engine.waveform import expected_pcm
from tests.clients.openai_scenario import FORMATS, TEXT
from tests.listen import decode
from tests.running import Gateway, running_engine, running_gateway, wait_until

FOLDER = Path(__file__).with_name("node")
PCM = expected_pcm(TEXT, "en_woman")

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A gateway in front of a simulated engine."""
    if shutil.which("node") is None or not (FOLDER / "node_modules").exists():
        pytest.skip("needs Node, npm and `scripts/install test`")
    with (
        running_engine("--voice", "simulated", "--tokens-per-second", "2000") as engine,
        running_gateway(upstreams=engine.address) as running,
    ):
        yield running


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    """A Node script of this folder."""
    return subprocess.Popen(
        ["node", script, *arguments], cwd=FOLDER, stdout=subprocess.PIPE, text=True
    )


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a script printed."""
    with process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    value = json.loads(output)
    assert isinstance(value, dict)
    return value


@pytest.fixture(scope="module")
def told(gateway: Gateway) -> dict[str, Any]:
    """What the main scenario found."""
    return result(start("scenario.mjs", gateway.url + "/v1", "all"))


@pytest.mark.parametrize("response_format", FORMATS)
def test_every_format_comes_whole_and_streamed(told: dict[str, Any], response_format: str) -> None:
    """With the whole text in it."""
    found = told["formats"][response_format]
    whole = base64.b64decode(found["whole"])
    samples, rate = decode(whole, response_format)
    assert len(samples) / rate == pytest.approx(len(PCM) / 48_000, abs=0.15)
    # Ogg's random serial number aside, the same bytes.
    assert found["streamed"] == len(whole)
    assert found["chunks"] > 1
    assert found["type"].startswith("audio/")


def test_events_carry_the_audio(told: dict[str, Any]) -> None:
    """Read by hand."""
    events = told["events"]
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == PCM
    assert events[-1]["type"] == "speech.audio.done"


@pytest.mark.parametrize(
    ("attempt", "name"),
    [
        ("voice", "NotFoundError"),
        ("model", "NotFoundError"),
        ("input", "BadRequestError"),
        ("speed", "BadRequestError"),
    ],
)
def test_errors_are_the_sdk_s_own_classes(told: dict[str, Any], attempt: str, name: str) -> None:
    """With the field at fault and an id."""
    error = told["errors"][attempt]
    assert error["class"] == name
    assert error["param"] == attempt
    assert error["requestID"].startswith("req_")


def test_models_are_listed(told: dict[str, Any]) -> None:
    """By the SDK's own pager."""
    assert "tts-1" in told["models"]


def test_the_sdk_retries_after_a_503(gateway: Gateway) -> None:
    """It obeys `retry-after-ms`."""
    del gateway  # its skip holds here too
    with (
        running_engine("--voice", "simulated", "--fault", "error") as engine,
        running_gateway(upstreams=engine.address, ready=False) as running,
    ):
        process = start("scenario.mjs", running.url + "/v1", "retry")
        labels = {"surface": "openai", "outcome": "upstream_error"}
        wait_until(lambda: running.metric("gateway_requests_total", **labels) >= 1, "refused")
        httpx.post(engine.address + "/simulator/faults", json={}).raise_for_status()
        assert result(process)["bytes"] == len(PCM)


@pytest.mark.browser
def test_chromium_plays_every_format_to_its_end(gateway: Gateway) -> None:
    """From the streaming endpoint, as it comes."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium")
    played = result(start("play.mjs", gateway.url + "/v1", chromium))
    assert set(played) == {"mp3", "opus", "aac", "flac", "wav"}
    for response_format, end in played.items():
        assert end["ended"], (response_format, end)
        assert end["seconds"] == pytest.approx(len(PCM) / 48_000, abs=0.2), response_format
