"""Every answer with speech says how long it waited for its slot."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest

from tests.running import Gateway, wait_until

TEXT = "Whoever waits wants to know for how long."
HEADER = "x-queue-wait-seconds"
ROUTES: dict[str, tuple[str, Any]] = {
    "speech, whole": ("/v1/audio/speech", {"model": "tts-1", "input": TEXT, "stream": False}),
    "speech, streamed": ("/v1/audio/speech", {"model": "tts-1", "input": TEXT}),
    "speech, events": (
        "/v1/audio/speech",
        {"model": "tts-1", "input": TEXT, "stream_format": "sse"},
    ),
    "speech, silent": ("/v1/audio/speech", {"model": "tts-1", "input": "..."}),
    "generate, whole": ("/generate", {"text": TEXT}),
    "generate, streamed": ("/generate", {"text": TEXT, "stream": True}),
    "generate, batch": ("/generate/batch", [{"text": TEXT}, {"text": TEXT}]),
    "chatterbox, tts": ("/tts", {"text": TEXT, "predefined_voice_id": "belinda"}),
}


@pytest.fixture(scope="module")
def engine_arguments() -> tuple[str, ...]:
    """It takes a second for a page."""
    return ("--tokens-per-second", "1000")


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    """One slot."""
    return {"max_in_flight": 1}


@pytest.mark.parametrize("name", ROUTES)
def test_it_is_nothing_where_a_slot_is_free(gateway: Gateway, name: str) -> None:
    """All surfaces have it."""
    path, body = ROUTES[name]
    answer = httpx.post(gateway.url + path, json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    waited = float(answer.headers[HEADER])
    # The second text of the batch waits for the first one.
    assert waited > 0 if name.endswith("batch") else waited == 0


@pytest.mark.parametrize("name", ["speech, whole", "speech, streamed", "generate, batch"])
def test_it_is_the_whole_wait_in_line(gateway: Gateway, name: str) -> None:
    """From its arrival to its slot."""
    path, body = ROUTES[name]
    admission = gateway.runtime.admission
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(httpx.post(gateway.url + path, json=body, timeout=120))

    wait_until(lambda: admission.in_flight == 0, "the slot is free")
    assert admission.try_acquire()
    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: admission.queued >= 1, "it waits")
    threading.Event().wait(0.3)  # what it must be told at least
    assert gateway.loop is not None
    gateway.loop.call_soon_threadsafe(admission.release)
    thread.join(120)
    assert answers[0].status_code == 200
    assert float(answers[0].headers[HEADER]) >= 0.3
