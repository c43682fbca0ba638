"""`/v1/audio/speech` without a model: travisvn's server answers, with one OpenAI does."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

import anyio
import httpx
import pytest

from engines.simulator.waveform import expected_pcm
from gateway.api.endpoint import Spoken
from gateway.api.error_bodies import TRAVISVN
from gateway.api.modelless import ANSWERED_AS, AsChatterbox, is_modelless
from tests.running import Gateway, running_gateway

PATH, TEXT = "/v1/audio/speech", "Hello there, my friend."
SAY = {"input": TEXT, "voice": "belinda"}
PCM = expected_pcm(TEXT, "belinda")


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """Server-sent events of an answer."""
    lines = answer.text.splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line]


@pytest.mark.parametrize("unset", [{}, {"model": None}, {"model": ""}])
def test_without_a_model_it_is_a_wav_file_of_exact_size(
    client: httpx.Client, unset: dict[str, Any]
) -> None:
    """And a header says whose answer it is."""
    answer = client.post(PATH, json={**SAY, **unset})
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers[ANSWERED_AS] == "chatterbox"
    assert answer.content[44:] == PCM
    assert int.from_bytes(answer.content[40:44], "little") == len(PCM)


def test_with_a_model_it_is_openai_s(client: httpx.Client) -> None:
    """MP3, and no word of another server."""
    answer = client.post(PATH, json={**SAY, "model": "tts-1"})
    assert answer.headers["content-type"] == "audio/mpeg"
    assert ANSWERED_AS not in answer.headers


def test_events_are_those_that_its_front_end_reads(client: httpx.Client) -> None:
    """What the samples are, the samples, and the usage; with a model there is no such event."""
    told = events_of(client.post(PATH, json={**SAY, "stream_format": "sse"}))
    assert told[0] == {
        "type": "speech.audio.info",
        "sample_rate": 24_000,
        "channels": 1,
        "bits_per_sample": 16,
    }
    audio = b"".join(base64.b64decode(event.get("audio", "")) for event in told)
    assert audio == PCM
    assert told[-1]["type"] == "speech.audio.done"
    openai = events_of(client.post(PATH, json={**SAY, "model": "tts-1", "stream_format": "sse"}))
    assert {event["type"] for event in openai} == {"speech.audio.delta", "speech.audio.done"}


def test_a_voice_that_is_unknown_is_the_default_one(client: httpx.Client) -> None:
    """As that server has it; with a model it is 404."""
    answer = client.post(PATH, json={"input": TEXT, "voice": "nobody"})
    assert (answer.status_code, answer.headers["x-voice-fallback"]) == (200, "default")
    known = client.post(PATH, json={"input": TEXT, "voice": "nobody", "model": "tts-1"})
    assert known.status_code == 404


def test_errors_have_that_server_s_shape(client: httpx.Client) -> None:
    """A list of fields; with a model OpenAI's envelope."""
    answer = client.post(PATH, json={**SAY, "exaggeration": 9})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "exaggeration"]
    answer = client.post(PATH, json={"input": ""})
    assert answer.status_code == 422
    answer = client.post(PATH, json={"input": "", "model": "tts-1"})
    assert answer.json()["error"]["param"] == "input"


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "tts-1"},
        {"instructions": "Whispered."},
        {"stream": False},
        {"references": []},
        {"ref_audio": "UklG"},
        {"voice": {"id": "voice_1"}},
    ],
)
def test_who_asks_for_what_only_openai_s_surface_has_speaks_to_that(
    fields: dict[str, Any],
) -> None:
    """Nothing that a client asks for is ignored."""
    assert not is_modelless({**SAY, **fields})
    assert is_modelless({**SAY, "exaggeration": 1, "seed": 5, "speed": 1.2})


@pytest.mark.parametrize(
    "settings", [{"modelless": "openai"}, {"surfaces": "openai", "modelless": "chatterbox"}]
)
def test_an_operator_may_settle_it_and_without_that_surface_it_is_openai(
    gateway: Gateway, settings: dict[str, Any]
) -> None:
    """`GATEWAY_MODELLESS=openai`, or no such surface."""
    (engine,) = gateway.runtime.settings.upstreams
    with running_gateway(upstreams=engine, **settings) as other:
        answer = httpx.post(other.url + PATH, json=SAY, timeout=120)
    assert answer.headers["content-type"] == "audio/mpeg"
    assert ANSWERED_AS not in answer.headers


def test_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """With the setting that settles it."""

    async def parse(value: Any) -> Spoken:
        return Spoken(value, {})

    caplog.set_level(logging.INFO, "gateway.api")
    scope: dict[str, Any] = {}
    answered = AsChatterbox(parse)
    for _ in range(2):
        spoken = anyio.run(answered, SAY, scope)
    assert spoken.headers == {ANSWERED_AS: "chatterbox"}
    assert scope["surface"] is TRAVISVN
    told = [record for record in caplog.records if "GATEWAY_MODELLESS" in record.message]
    assert len(told) == 1


@pytest.mark.parametrize("given", [{}, {"model": "tts-1"}])
def test_forms_of_either_kind_say_the_same(client: httpx.Client, given: dict[str, str]) -> None:
    """Multipart or URL-encoded, for either server."""
    fields = {**SAY, **given, "response_format": "wav", "stream": "false"} if given else SAY
    plain = client.post(PATH, data=fields)
    parts = client.post(PATH, files={name: (None, value) for name, value in fields.items()})
    assert plain.content[44:] == parts.content[44:] == PCM
    assert (ANSWERED_AS in plain.headers) == (ANSWERED_AS in parts.headers) == (not given)


def test_json_that_curl_calls_a_form_is_told_so(client: httpx.Client) -> None:
    """`curl -d '{…}'` without a header."""
    body = json.dumps({**SAY, "model": "tts-1"})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.post(PATH, content=body, headers=headers)
    assert answer.status_code == 415
    assert "Content-Type: application/json" in answer.json()["error"]["message"]
