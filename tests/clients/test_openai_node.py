"""OpenAI's JavaScript SDK, on Node."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from engines.simulator.waveform import expected_pcm
from tests.clients.openai_scenario import FORMATS, TEXT
from tests.clients.scripts import require, result, started_sdk
from tests.listen import decode
from tests.running import Gateway

PCM = expected_pcm(TEXT, "en_woman")

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    """None; skips where there is no Node."""
    require("node")
    return {}


@pytest.fixture(scope="module")
def told(gateway: Gateway) -> dict[str, Any]:
    """What the main scenario found."""
    with started_sdk("node", gateway.url + "/v1", "all") as process:
        return result(process)


@pytest.mark.parametrize("response_format", FORMATS)
def test_every_format_comes_whole_and_streamed(told: dict[str, Any], response_format: str) -> None:
    """As an ArrayBuffer or read from the body, the whole text is in it."""
    found = told["formats"][response_format]
    for way in ("whole", "streamed"):
        samples, rate = decode(base64.b64decode(found[way]), response_format)
        assert len(samples) / rate == pytest.approx(len(PCM) / 48_000, abs=0.15)
    assert found["chunks"] > 1
    assert found["content_type"].startswith("audio/")


def test_the_default_is_mp3(told: dict[str, Any]) -> None:
    """As at OpenAI."""
    assert told["formats"]["default"]["whole"] == told["formats"]["mp3"]["whole"]


def test_events_carry_the_audio(told: dict[str, Any]) -> None:
    """Read by hand, line by line as they come."""
    events = told["events"]["events"]
    assert told["events"]["content_type"].startswith("text/event-stream")
    assert told["events"]["rest"] == ""
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == PCM
    assert events[-1]["type"] == "speech.audio.done"
    assert events[-1]["usage"]["output_tokens"] == len(PCM) // 1920  # 25 a second


def test_further_arguments_do_what_they_say(told: dict[str, Any]) -> None:
    """Speed, instructions, and a field that the SDK does not know."""
    extras = told["extras"]
    assert extras["plain"] == extras["instructed"] == len(PCM)
    assert extras["fast"] == pytest.approx(len(PCM) / 2, rel=0.01)
    assert extras["low_rate"] == pytest.approx(len(PCM) / 3, rel=0.01)


@pytest.mark.parametrize(
    ("attempt", "name"),
    [
        ("voice", "NotFoundError"),
        ("model", "NotFoundError"),
        ("input", "BadRequestError"),
        ("speed", "BadRequestError"),
        ("response_format", "BadRequestError"),
    ],
)
def test_errors_are_the_sdk_s_own_classes(told: dict[str, Any], attempt: str, name: str) -> None:
    """With the field at fault and an id."""
    error = told["errors"][attempt]
    assert error["class"] == name
    assert error["param"] == attempt
    assert error["type"] == "invalid_request_error"
    assert error["request_id"].startswith("req_")


def test_an_answer_that_was_cut_off_is_an_error(told: dict[str, Any]) -> None:
    """Half an answer never passes for a whole one: `fetch` fails its body with a TypeError."""
    assert told["cut"] == "TypeError"


def test_models_are_listed(told: dict[str, Any]) -> None:
    """By the SDK's own pager."""
    assert "tts-1" in told["models"]["listed"]
    assert told["models"]["one"] == "tts-1"
    assert told["models"]["missing"] == "model_not_found"
