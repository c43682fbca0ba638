"""OpenAI's Python SDK, the current release and one of the last that speak through httpx."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from engines.simulator.waveform import expected_pcm
from tests.clients.openai_scenario import FORMATS, TEXT
from tests.clients.scripts import result, started_sdk
from tests.listen import decode
from tests.running import Gateway

SECONDS = len(expected_pcm(TEXT, "en_woman")) / 48_000
CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


@pytest.fixture(scope="module", params=["current", "httpx"])
def told(request: pytest.FixtureRequest, gateway: Gateway) -> dict[str, Any]:
    """What the main scenario found."""
    with started_sdk(request.param, gateway.url + "/v1", "all") as process:
        return result(process)


def test_the_releases_are_of_both_kinds(told: dict[str, Any]) -> None:
    """Release 3 speaks through httpx2, the ones before it through httpx."""
    carriers = {"2": "httpx", "3": "httpx2"}
    assert told["carrier"] == carriers[told["version"].split(".")[0]]


@pytest.mark.parametrize("response_format", FORMATS)
def test_every_format_decodes_to_the_whole_text(told: dict[str, Any], response_format: str) -> None:
    """Read whole or streamed."""
    found = told["formats"][response_format]
    for way in ("whole", "streamed"):
        samples, rate = decode(base64.b64decode(found[way]), response_format)
        assert len(samples) / rate == pytest.approx(SECONDS, abs=0.15)
    assert found["content_type"] == CONTENT_TYPES[response_format]


def test_the_sdk_writes_files(told: dict[str, Any]) -> None:
    """`write_to_file` and `stream_to_file` leave a file that opens."""
    for data in told["files"].values():
        samples, rate = decode(base64.b64decode(data), "flac")
        assert len(samples) / rate == pytest.approx(SECONDS)


def test_the_default_is_mp3(told: dict[str, Any]) -> None:
    """As at OpenAI."""
    assert told["formats"]["default"]["whole"] == told["formats"]["mp3"]["whole"]


def test_pcm_is_the_engine_s_own(told: dict[str, Any]) -> None:
    """To the byte, on every way."""
    pcm = expected_pcm(TEXT, "en_woman")
    assert base64.b64decode(told["formats"]["pcm"]["whole"]) == pcm
    assert base64.b64decode(told["formats"]["pcm"]["streamed"]) == pcm


def test_the_async_client_speaks_several_at_once(told: dict[str, Any]) -> None:
    """And raises the same error classes."""
    assert told["parallel"]["lengths"] == [round(SECONDS * 48_000)] * 3
    assert told["parallel"]["refused"] == "voice_not_found"


@pytest.mark.parametrize("response_format", ["pcm", "mp3"])
def test_events_carry_audio_and_usage(told: dict[str, Any], response_format: str) -> None:
    """Deltas of the response format's bytes, then done with usage, and nothing else."""
    *deltas, done = told["events"][response_format]
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    audio = b"".join(base64.b64decode(event["audio"]) for event in deltas)
    pcm = expected_pcm(TEXT, "belinda")
    if response_format == "pcm":
        assert audio == pcm
    samples, rate = decode(audio, response_format)
    assert len(samples) / rate == pytest.approx(len(pcm) / 48_000, abs=0.15)
    assert done["type"] == "speech.audio.done"
    usage = done["usage"]
    assert usage["output_tokens"] == len(pcm) // 1920  # 25 a second
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


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
        ("stream_format", "BadRequestError", "invalid_request"),
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
    assert error["type"] == "invalid_request_error"
    assert error["request_id"].startswith("req_")
    assert error["message"]


def test_an_answer_that_was_cut_off_is_an_error(told: dict[str, Any]) -> None:
    """Half an answer never passes for a whole one."""
    assert told["cut"] == {"whole": "APIConnectionError", "streamed": "RemoteProtocolError"}


def test_models_are_listed(told: dict[str, Any]) -> None:
    """The served one first."""
    assert told["models"]["listed"][0] == "higgs-audio-v2-generation-3B-base"
    assert told["models"]["one"] == "tts-1"
    assert told["models"]["missing"] == "model_not_found"
