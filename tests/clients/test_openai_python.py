"""OpenAI's Python SDK, the current release and one of the last that speak through httpx."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.engine.waveform import expected_pcm
from tests.clients.openai_scenario import FORMATS, TEXT
from tests.listen import decode
from tests.running import Gateway, running_engine, running_gateway, wait_until

ROOT = Path(__file__).parents[2]
OLD_SDK = ROOT / ".cache" / "openai-2.54.0"
SCENARIO = Path(__file__).with_name("openai_scenario.py")


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A gateway in front of a simulated engine."""
    with (
        running_engine("--voice", "simulated", "--tokens-per-second", "2000") as engine,
        running_gateway(upstreams=engine.address) as running,
    ):
        yield running


def start(sdk: str, gateway: Gateway, scenario: str) -> subprocess.Popen[str]:
    """Run a scenario with one of the releases."""
    environment = dict(os.environ)
    if sdk == "httpx":
        if not (OLD_SDK / ".installed").exists():
            pytest.skip("scripts/install-clients has not been run")
        environment["PYTHONPATH"] = str(OLD_SDK)
    return subprocess.Popen(
        [sys.executable, str(SCENARIO), gateway.url + "/v1", scenario],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a scenario printed."""
    with process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    value = json.loads(output)
    assert isinstance(value, dict)
    return value


@pytest.fixture(scope="module", params=["current", "httpx"])
def told(request: pytest.FixtureRequest, gateway: Gateway) -> dict[str, Any]:
    """What the main scenario found."""
    return result(start(request.param, gateway, "all"))


def test_both_releases_are_what_they_should_be(told: dict[str, Any]) -> None:
    """Version 3 or later, and version 2."""
    assert told["version"].split(".")[0] in {"2", "3"}


@pytest.mark.parametrize("response_format", FORMATS)
def test_every_format_decodes_to_the_whole_text(told: dict[str, Any], response_format: str) -> None:
    """Read whole or streamed."""
    found = told["formats"][response_format]
    expected = len(expected_pcm(TEXT, "en_woman")) / 48_000
    for way in ("whole", "streamed"):
        samples, rate = decode(base64.b64decode(found[way]), response_format)
        assert len(samples) / rate == pytest.approx(expected, abs=0.15)
    assert found["content_type"].startswith("audio/")


def test_the_default_is_mp3(told: dict[str, Any]) -> None:
    """As at OpenAI."""
    assert told["formats"]["default"]["whole"] == told["formats"]["mp3"]["whole"]


def test_pcm_is_the_engine_s_own(told: dict[str, Any]) -> None:
    """To the byte, on every way."""
    pcm = expected_pcm(TEXT, "en_woman")
    assert base64.b64decode(told["formats"]["pcm"]["whole"]) == pcm
    assert told["parallel"] == [len(pcm)] * 3


def test_events_carry_audio_and_usage(told: dict[str, Any]) -> None:
    """Deltas, then done."""
    events = told["events"]
    audio = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
    assert audio == expected_pcm(TEXT, "belinda")
    assert events[-1]["type"] == "speech.audio.done"
    assert events[-1]["usage"]["output_tokens"] == len(audio) // 1920


def test_further_arguments_do_what_they_say(told: dict[str, Any]) -> None:
    """Speed, instructions, extra_body."""
    extras = told["extras"]
    assert extras["fast"] == pytest.approx(extras["plain"] / 2, rel=0.01)
    assert extras["low_rate"] == pytest.approx(extras["plain"] / 3, rel=0.01)
    assert extras["instructed"] == extras["plain"]


@pytest.mark.parametrize(
    ("attempt", "name", "code"),
    [
        ("voice", "NotFoundError", "voice_not_found"),
        ("model", "NotFoundError", "model_not_found"),
        ("input", "BadRequestError", "invalid_request"),
        ("speed", "BadRequestError", "invalid_request"),
        ("response_format", "BadRequestError", "invalid_request"),
    ],
)
def test_errors_are_the_sdk_s_own_classes(
    told: dict[str, Any], attempt: str, name: str, code: str
) -> None:
    """With the field at fault and an id to ask about."""
    error = told["errors"][attempt]
    assert error["class"] == name
    assert error["param"] == attempt
    assert error["code"] == code
    assert error["request_id"].startswith("req_")


def test_models_are_listed(told: dict[str, Any]) -> None:
    """The served one first."""
    assert told["models"]["listed"][0] == "higgs-audio-v2-generation-3B-base"
    assert told["models"]["one"] == "tts-1"


@pytest.mark.parametrize("sdk", ["current", "httpx"])
def test_the_sdk_retries_after_a_429(sdk: str) -> None:
    """It obeys the time that the gateway names."""
    with (
        running_engine("--voice", "simulated", "--tokens-per-second", "200") as engine,
        running_gateway(upstreams=engine.address, max_in_flight=1, max_queued=0) as running,
        httpx.stream(
            "POST",
            running.url + "/v1/audio/speech",
            json={"input": TEXT * 3, "response_format": "pcm"},
            timeout=30,
        ) as busy,
    ):
        chunks = busy.iter_raw()
        next(chunks)
        process = start(sdk, running, "retry")
        wait_until(
            lambda: running.metric("gateway_rejections_total", reason="queue") >= 1,
            "it was refused",
        )
        for _ in chunks:
            pass
        assert result(process)["bytes"] == len(expected_pcm(TEXT, "en_woman"))


@pytest.mark.parametrize("sdk", ["current", "httpx"])
def test_the_sdk_retries_after_a_503(sdk: str) -> None:
    """An engine that still loads its model costs a moment, not an error."""
    with (
        running_engine("--voice", "simulated", "--fault", "error") as engine,
        running_gateway(upstreams=engine.address, ready=False) as running,
    ):
        process = start(sdk, running, "retry")
        wait_until(
            lambda: (
                running.metric("gateway_requests_total", surface="openai", outcome="upstream_error")
                >= 1
            ),
            "it was refused",
        )
        httpx.post(engine.address + "/simulator/faults", json={}).raise_for_status()
        assert result(process)["bytes"] == len(expected_pcm(TEXT, "en_woman"))
