"""What engines of this repository add to the contract: honest failures, capabilities, a seed."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import httpx
import pytest

from engines.server.app import Engine, EngineOptions, create_engine_app
from engines.server.asgi import JsonEndpoint
from engines.voice import (
    BYTES_PER_TOKEN,
    EngineBusyError,
    EngineDownError,
    EngineFailureError,
    Job,
    Metric,
    PromptTooLongError,
    Voice,
)
from loadtest.processes import wait_until
from tests.engines.serving import serving


class ScriptedVoice(Voice):
    """Fails as its text names."""

    model_id = "scripted"
    presets: tuple[str, ...] = ("one",)
    running = 0
    aborted_total = 0
    audio_tokens_total = 0
    broken: str | None = None

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    async def start(self) -> None:
        """Nothing to load."""

    async def stop(self) -> None:
        """Nothing to release."""

    def failure(self) -> str | None:
        """What a test sets."""
        return self.broken

    def capabilities(self) -> dict[str, Any]:
        """Another value for a field that every engine has, and one of its own."""
        return {"seed": True, "precision": "int8"}

    def metrics(self) -> tuple[Metric, ...]:
        """Two samples of one name."""
        return (
            Metric("tts:ends_total", "counter", 1, 'reason="stop"'),
            Metric("tts:ends_total", "counter", 2, 'reason="length"'),
        )

    async def generate(self, job: Job) -> AsyncGenerator[bytes, None]:
        """A token of silence where the text says `late`, then the failure that it names."""
        self.jobs.append(job)
        if "late" in job.text:
            yield bytes(BYTES_PER_TOKEN)
        failures = {
            "busy": EngineBusyError("all slots are taken"),
            "down": EngineDownError("the loop has ended"),
            "long": PromptTooLongError("the prompt is too long"),
            "broken": EngineFailureError("the codec failed"),
        }
        for word, error in failures.items():
            if word in job.text:
                raise error
        yield bytes(BYTES_PER_TOKEN)


@pytest.fixture(name="engine")
def engine_fixture() -> Iterator[tuple[ScriptedVoice, httpx.Client]]:
    """The voice, and a client of the engine around it."""
    voice = ScriptedVoice()
    app = create_engine_app(Engine(voice, EngineOptions()))
    with serving(app) as address, httpx.Client(base_url=address) as client:
        yield voice, client


def speech(client: httpx.Client, text: str, **fields: Any) -> httpx.Response:
    """A speech request."""
    body = {"model": "scripted", "voice": "one", "input": text, **fields}
    return client.post("/v1/audio/speech", json=body)


def chat(client: httpx.Client, text: str, *, stream: bool) -> httpx.Response:
    """A chat request."""
    messages = [{"role": "user", "content": text}]
    return client.post("/v1/chat/completions", json={"messages": messages, "stream": stream})


@pytest.mark.parametrize(("text", "status"), [("busy", 429), ("down", 503), ("long", 400)])
def test_a_failure_before_the_first_sound_is_a_status(
    engine: tuple[ScriptedVoice, httpx.Client], text: str, status: int
) -> None:
    """On every route, in the contract's flat envelope."""
    _, client = engine
    for answer in (
        speech(client, text),
        chat(client, text, stream=True),
        chat(client, text, stream=False),
    ):
        assert answer.status_code == status
        assert answer.json()["code"] == status
        assert ("retry-after" in answer.headers) == (status == 429)


def test_an_unexpected_failure_is_a_500(engine: tuple[ScriptedVoice, httpx.Client]) -> None:
    """The message stays in the log where it is the container's own kind of 500."""
    _, client = engine
    assert speech(client, "broken").status_code == 500
    assert chat(client, "broken", stream=True).status_code == 500
    assert chat(client, "broken", stream=False).status_code == 500


def test_a_failure_after_the_first_sound_cuts_the_connection(
    engine: tuple[ScriptedVoice, httpx.Client],
) -> None:
    """No clean end, and no JSON among the samples."""
    _, client = engine
    with pytest.raises(httpx.RemoteProtocolError):
        speech(client, "broken late")
    with pytest.raises(httpx.RemoteProtocolError):
        chat(client, "broken late", stream=True)
    url = client.base_url
    body = b'{"model":"scripted","voice":"one","input":"broken late"}'
    with socket.create_connection((url.host, url.port or 80), 10) as connection:
        connection.sendall(
            b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        with connection.makefile("rb") as stream:
            _, received = stream.read().split(b"\r\n\r\n", 1)
    assert received == b"780\r\n" + bytes(BYTES_PER_TOKEN) + b"\r\n"


def test_health_tells_what_the_voice_knows(engine: tuple[ScriptedVoice, httpx.Client]) -> None:
    """200 without a body, or 503 with the reason."""
    voice, client = engine
    assert (client.get("/health").status_code, client.get("/health").content) == (200, b"")
    voice.broken = "the loop has ended"
    answer = client.get("/health")
    assert (answer.status_code, answer.text) == (503, "the loop has ended")


def test_capabilities_are_json(engine: tuple[ScriptedVoice, httpx.Client]) -> None:
    """The voice's own come over those that every engine has."""
    _, client = engine
    found = client.get("/capabilities").json()
    assert found["sample_rate_hz"] == 24_000
    assert found["max_model_len"] == 8192
    assert found["seed"] is True
    assert found["precision"] == "int8"


def test_a_seed_reaches_the_voice(engine: tuple[ScriptedVoice, httpx.Client]) -> None:
    """On both routes; what no 64 bits hold is refused."""
    voice, client = engine
    speech(client, "Hello.", seed=-5)
    messages = [{"role": "user", "content": "Hello."}]
    client.post("/v1/chat/completions", json={"messages": messages, "seed": 2**63 - 1})
    assert [job.seed for job in voice.jobs] == [-5, 2**63 - 1]
    assert speech(client, "Hello.", seed=2**63).status_code == 400
    assert speech(client, "Hello.", seed="x").status_code == 400


def test_metrics_of_the_voice_follow_the_others(
    engine: tuple[ScriptedVoice, httpx.Client],
) -> None:
    """One type line a name."""
    _, client = engine
    lines = client.get("/metrics").text.splitlines()
    at = lines.index("# TYPE tts:ends_total counter")
    assert lines[at + 1] == 'tts:ends_total{engine="0",model_name="scripted",reason="stop"} 1.0'
    assert lines[at + 2].endswith('reason="length"} 2.0')


def test_bodies_that_are_too_much_together_are_refused_one_by_one(
    engine: tuple[ScriptedVoice, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that goes beyond; its place is free as soon as another client has left."""
    monkeypatch.setattr("engines.server.asgi.MOST_HELD_BYTES", 1_000_000)
    _, client = engine
    url = client.base_url
    assert speech(client, "x", more="x" * 700_000).status_code == 200
    with socket.create_connection((url.host, url.port or 80), 10) as connection:
        head = "POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 900000\r\n\r\n".encode() + b" " * 600_000)
        wait_until(lambda: JsonEndpoint.held_bytes == 600_000, "the body is held")
        refused = speech(client, "x", more="x" * 700_000)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert speech(client, "x").status_code == 200
    wait_until(lambda: JsonEndpoint.held_bytes == 0, "nothing is held")
    assert speech(client, "x", more="x" * 700_000).status_code == 200
