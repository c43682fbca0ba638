"""What well-known front ends ask before and while they speak, over real HTTP.

Each request is the one that the program's public sources send (read in November 2026), and each
answer is read the way that they read it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import httpx
import openai
import pytest

from engines.simulator.waveform import expected_pcm
from tests.clients.openai_scenario import TEXT
from tests.listen import decode
from tests.running import Gateway

# The names that OpenAI's own service lists; pipecat and others let their users choose no other.
OPENAI_VOICES = (
    "alloy",
    "ash",
    "ballad",
    "coral",
    "echo",
    "fable",
    "onyx",
    "nova",
    "sage",
    "shimmer",
    "verse",
    "marin",
    "cedar",
)
SECONDS = len(expected_pcm(TEXT, "en_woman")) / 48_000


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    """Plain HTTP to the speech API."""
    with httpx.Client(base_url=gateway.url + "/v1", timeout=30) as http:
        yield http


def test_open_webui_fills_its_menus(client: httpx.Client) -> None:
    """Its settings page lists voices by id and name, and models by id."""
    voices = {v["id"]: v["name"] for v in client.get("/audio/voices").json()["voices"]}
    assert set(OPENAI_VOICES) <= set(voices)
    models = [model["id"] for model in client.get("/audio/models").json()["models"]]
    assert {"tts-1", "tts-1-hd"} <= set(models)


@pytest.mark.anyio
async def test_open_webui_stores_what_it_hears_as_mp3(gateway: Gateway) -> None:
    """It asks for no format, tells who its user is, and names the file .mp3."""
    headers = {
        "Content-Type": "application/json",
        "Authorization": "Bearer unused",
        "X-OpenWebUI-User-Name": "A%20user",
        "X-OpenWebUI-User-Role": "user",
    }
    payload = {"model": "tts-1", "input": TEXT, "voice": "alloy"}
    url = gateway.url + "/v1/audio/speech"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=payload, headers=headers) as answer,
    ):
        answer.raise_for_status()
        assert answer.content_type == "audio/mpeg"
        samples, rate = decode(await answer.read())
    assert len(samples) / rate == pytest.approx(SECONDS, abs=0.15)


def test_home_assistant_accepts_the_address(client: httpx.Client) -> None:
    """Its probe is a full stop as mp3 with any key; only a 2xx within 10 s is accepted."""
    answer = client.post(
        "/audio/speech",
        json={"model": "tts-1", "input": ".", "voice": "alloy", "response_format": "mp3"},
        headers={"Authorization": "Bearer whatever"},
        timeout=10,
    )
    assert answer.is_success
    samples, rate = decode(answer.content)
    assert 0.2 < len(samples) / rate < 0.6


def test_home_assistant_lists_voices_that_speak(client: httpx.Client) -> None:
    """It reads `items`, else `data`, else `voices`; what it lists can be chosen."""
    payload = client.get("/audio/voices", params={"limit": 100}).json()
    items = payload.get("items") or payload.get("data") or payload.get("voices")
    options = {item["id"]: item["name"] for item in items}
    assert "belinda" in options
    for voice in options:
        fields = {"model": "tts-1", "input": "Hello.", "voice": voice, "response_format": "wav"}
        assert client.post("/audio/speech", json=fields).status_code == 200, voice


def test_kokoro_clients_read_both_lists(client: httpx.Client) -> None:
    """Objects with id and name, and plain names with `legacy`; the same ones."""
    objects = client.get("/audio/voices").json()["voices"]
    names = client.get("/audio/voices", params={"legacy": "true"}).json()["voices"]
    assert [voice["id"] for voice in objects] == names


def test_kokoro_clients_bring_fields_of_their_own(client: httpx.Client) -> None:
    """Unknown fields are no error; `stream` says whether the length is known beforehand."""
    fields: dict[str, Any] = {
        "model": "tts-1",
        "input": TEXT,
        "voice": "nova",
        "response_format": "wav",
        "lang_code": "a",
        "volume_multiplier": 1.0,
        "return_download_link": False,
        "normalization_options": {"normalize": True},
    }
    streamed = client.post("/audio/speech", json={**fields, "stream": True})
    assert "content-length" not in streamed.headers
    whole = client.post("/audio/speech", json={**fields, "stream": False})
    assert int(whole.headers["content-length"]) == len(whole.content)
    assert whole.content[44:] == streamed.content[44:]


@pytest.mark.anyio
@pytest.mark.parametrize("base", ["/", "/v1", "/v1/"])
async def test_livekit_opens_its_connection_early(gateway: Gateway, base: str) -> None:
    """It GETs the base path before anybody speaks: any answer but a failure serves."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(gateway.url + base) as answer,
    ):
        assert answer.status < 500
        await answer.read()


@pytest.mark.anyio
@pytest.mark.parametrize("stream_format", ["audio", "sse"])
async def test_livekit_reads_mp3_by_content_type(gateway: Gateway, stream_format: str) -> None:
    """mp3 in voice ash, as audio or as events, with 30 s of patience."""
    audio = bytearray()
    async with (
        openai.AsyncOpenAI(
            base_url=gateway.url + "/v1", api_key="unused", max_retries=0, timeout=30
        ) as sdk,
        sdk.audio.speech.with_streaming_response.create(
            input=TEXT,
            model="gpt-4o-mini-tts",
            voice="ash",
            response_format="mp3",
            speed=1.0,
            stream_format="sse" if stream_format == "sse" else "audio",
        ) as answer,
    ):
        if answer.headers["content-type"].startswith("text/event-stream"):
            assert stream_format == "sse"
            async for line in answer.iter_lines():
                event = json.loads(line.removeprefix("data:")) if line else {}
                audio += base64.b64decode(event.get("audio", ""))
        else:
            assert answer.headers["content-type"] == "audio/mpeg"
            async for chunk in answer.iter_bytes():
                audio += chunk
    samples, rate = decode(bytes(audio))
    assert rate == 24_000
    assert len(samples) / rate == pytest.approx(SECONDS, abs=0.15)


@pytest.mark.anyio
@pytest.mark.parametrize("voice", OPENAI_VOICES)
async def test_pipecat_gets_pcm_at_24_khz(gateway: Gateway, voice: str) -> None:
    """Every voice that it allows, with instructions, in chunks of whole samples."""
    heard = 0
    async with (
        openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key="unused") as sdk,
        sdk.audio.speech.with_streaming_response.create(
            input=TEXT,
            model="gpt-4o-mini-tts",
            voice=voice,
            response_format="pcm",
            instructions="Speak calmly.",
        ) as answer,
    ):
        assert answer.status_code == 200
        async for chunk in answer.iter_bytes(24_000):
            assert len(chunk) % 2 == 0
            heard += len(chunk)
    assert heard / 48_000 == pytest.approx(SECONDS)
