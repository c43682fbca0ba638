"""The last moment of an answer: what is counted when the client leaves, or the engine fails."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.asking import ABORTED, VOICE, WHOLE, listen, plan_faults
from tests.running import Gateway, wait_until

HISTOGRAMS = ("audio_duration_seconds", "real_time_factor", "underrun_seconds")


def call(gateway: Gateway, body: dict[str, Any]) -> int:
    """Ask the application itself, and leave in the moment in which it sends the last bytes.

    Returns:
        The answer's status.
    """
    data = json.dumps(body).encode()
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/audio/speech",
        "raw_path": b"/v1/audio/speech",
        "query_string": b"",
        "headers": [*headers, (b"content-length", str(len(data)).encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }

    async def run() -> int:
        left = asyncio.Event()
        request = [{"type": "http.request", "body": data, "more_body": False}]
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            if request:
                return request.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            elif not message.get("more_body"):
                left.set()
                for _ in range(10):  # whoever waits for the client to leave notices now
                    await asyncio.sleep(0)

        await gateway.app(scope, receive, send)
        return statuses[0]

    assert gateway.loop is not None
    return asyncio.run_coroutine_threadsafe(run(), gateway.loop).result(120)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_with_the_last_bytes_has_got_its_answer(
    gateway: Gateway, *, stream: bool
) -> None:
    """It is counted as answered, not as cancelled: everything has been sent."""

    def counted(outcome: str) -> float:
        return gateway.metric("gateway_requests_total", surface="openai", outcome=outcome)

    before = counted("ok"), counted("cancelled")
    body = {
        "model": "tts-1",
        "input": "Hello there.",
        "voice": VOICE,
        "response_format": "pcm",
        "stream": stream,
    }
    assert call(gateway, body) == 200
    assert (counted("ok"), counted("cancelled")) == (before[0] + 1, before[1])


def test_an_answer_that_broke_off_is_in_no_figure_of_whole_ones(
    gateway: Gateway, engine: str
) -> None:
    """Duration, real-time factor and underrun tell of answers that were complete."""

    def counts() -> list[float]:
        return [gateway.metric(f"gateway_{name}_count") for name in HISTOGRAMS]

    def ended() -> float:
        return gateway.metric("gateway_requests_total", surface="openai", outcome="truncated")

    before, truncated = counts(), ended()
    plan_faults(engine, "cut-48000", match="striking")
    assert listen(gateway)[0] == ABORTED
    wait_until(lambda: ended() > truncated, "it is counted")
    assert counts() == before
    assert listen(gateway)[0] == WHOLE
    wait_until(lambda: counts() == [count + 1 for count in before], "a whole one is counted")
