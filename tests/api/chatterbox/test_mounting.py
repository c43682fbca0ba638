"""`GATEWAY_SURFACES`: what is not chosen is not there; what all share goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from gateway.settings import SettingsError, load_settings
from tests.running import running_engine, running_gateway
from tests.voices.recordings import tone, wav

SHARED = ("/health", "/ready", "/stats", "/metrics", "/openapi.json", "/docs")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """An engine for all gateways."""
    with running_engine("--voice", "simulated", "--tokens-per-second", "4000") as engine:
        yield engine.address


@contextmanager
def mounted(address: str, surfaces: str) -> Iterator[httpx.Client]:
    """A client of a gateway with these surfaces."""
    with (
        running_gateway(upstreams=address, surfaces=surfaces) as gateway,
        httpx.Client(base_url=gateway.url, timeout=120) as client,
    ):
        for path in SHARED:
            assert client.get(path).status_code == 200, path
        yield client


def test_chatterbox_alone_is_a_whole_server(address: str) -> None:
    """`/v1/audio/speech` and `/v1/models` are then Chatterbox's own: WAV, and any model."""
    with mounted(address, "chatterbox") as client:
        assert client.get("/v1/audio/models").status_code == 404
        assert client.post("/generate", json={"text": "Hi."}).status_code == 404
        said = {"input": "Hello.", "model": "whatever"}
        answer = client.post("/v1/audio/speech", json=said)
        assert answer.headers["content-type"] == "audio/wav"
        assert client.get("/v1/models").json()["data"]
        assert client.get("/redoc").text == client.get("/docs").text
        listed = client.get("/v1/audio/voices", params={"model": "x"}).json()
        assert listed["status"] == "ok"
        assert "belinda.wav" in listed["voices"]
        assert client.get("/health").json()["status"] == "healthy"


def test_the_legacy_proxy_alone_says_ok(address: str) -> None:
    """Its clients know no other word for a good state."""
    with mounted(address, "generate") as client:
        assert client.get("/health").json()["status"] == "ok"
        assert client.post("/tts", json={"text": "Hi."}).status_code == 404
        assert client.get("/voices").status_code == 404
        assert client.post("/generate", json={"text": "Hello."}).status_code == 200


def test_out_of_the_box_voices_can_be_uploaded(address: str) -> None:
    """No setting names a folder; both servers' uploads work, and the voice is listed."""
    sample = wav(tone(1.5, 24_000))
    with mounted(address, "openai,chatterbox") as client:
        assert client.get("/voices").json() == {"voices": [], "count": 0}
        assert client.get("/get_reference_files").json() == []
        file = ("anna.wav", sample, "audio/wav")
        made = client.post("/voices", data={"voice_name": "Anna"}, files={"voice_file": file})
        assert made.status_code == 201, made.text
        file = ("ben.wav", sample, "audio/wav")
        assert client.post("/upload_reference", files={"files": file}).status_code == 200
        assert client.get("/voices").json()["count"] == 2


def test_before_an_engine_is_ready_chatterbox_is_told_so() -> None:
    """`/health` is 200 and says that no model is loaded; speech is 503 in both shapes."""
    with (
        running_gateway(upstreams="http://127.0.0.1:9", ready=False) as gateway,
        httpx.Client(base_url=gateway.url, timeout=120) as client,
    ):
        health = client.get("/health")
        assert health.status_code == 200
        assert health.json()["status"] == "degraded"
        assert health.json()["model_loaded"] is False
        assert health.json()["initialization_state"] == "initializing"
        answer = client.post("/tts", json={"text": "Hi.", "predefined_voice_id": "x"})
        assert answer.status_code == 503
        assert isinstance(answer.json()["detail"], str)
        answer = client.post("/audio/speech", json={"input": "Hi."})
        assert answer.status_code == 503
        assert answer.json()["error"]["type"] == "server_error"


def test_a_surface_that_does_not_exist_is_refused_at_start() -> None:
    """And so is none at all."""
    for wrong in ("openai,telegraph", ""):
        with pytest.raises(SettingsError, match="GATEWAY_SURFACES"):
            load_settings(surfaces=wrong, upstreams="http://127.0.0.1:9")
