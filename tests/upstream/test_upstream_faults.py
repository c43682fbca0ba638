"""An upstream that cannot serve is told once, with the reason: log, /ready, /admin, client."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from gateway.settings import load_settings
from gateway.speech.prepare import attempt_timeouts, chunking_of
from tests.asking import ADMIN, WITH_ADMIN, get
from tests.running import Gateway, running_engine, running_gateway, wait_until

ASKED = {"model": "tts-1", "input": "Hello.", "voice": "alloy"}


@contextmanager
def serving(status: int, body: bytes) -> Iterator[str]:
    """A server of other things: every path has the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def engine_with_a_key() -> Iterator[str]:
    """An engine that wants `Secret`."""
    with running_engine("--voice", "simulated", "--api-key", "Secret") as engine:
        yield engine.address


@contextmanager
def hanging_engine() -> Iterator[str]:
    """An engine that lists all and never makes audio."""
    with running_engine("--voice", "simulated", "--fault", "hang", "--fault-rate", "1") as engine:
        yield engine.address


@contextmanager
def closed_port() -> Iterator[str]:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextmanager
def no_such_host() -> Iterator[str]:
    """A name that never resolves (RFC 6761)."""
    yield "http://engine.invalid:8000"


FAULTS = {
    "refused": (closed_port(), {}, "refuses connections"),
    "no name": (no_such_host(), {}, "does not resolve"),
    "no key": (engine_with_a_key(), {}, "wants an API key"),
    "wrong key": (engine_with_a_key(), {"upstream_api_key": "Sekret"}, "refused the gateway's API"),
    "another server": (serving(404, b"<h1>Not found</h1>"), {}, "is no speech engine"),
    "a web page": (serving(200, b"<h1>Hello</h1>"), {}, "is no speech engine"),
    "no engine's JSON": (serving(200, b'{"hello": 1}'), {}, "is no speech engine"),
    "it fails": (serving(500, b"Internal Server Error"), {}, "failed (500)"),
    "no audio yet": (hanging_engine(), {}, "may still be loading"),
}


def faults_of(gateway: Gateway) -> list[str]:
    """What /ready tells."""
    answer = httpx.get(gateway.url + "/ready", timeout=5)
    assert answer.status_code == 503
    faults: list[str] = answer.json()["faults"]
    return faults


@pytest.mark.parametrize("name", FAULTS)
def test_the_reason_is_the_same_everywhere_and_has_no_secret(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """One sentence in /ready, /admin/upstreams, the client's 503 and one WARNING."""
    scope, settings, sentence = FAULTS[name]
    with (
        scope as address,
        running_gateway(
            ready=False, upstreams=address, probe_interval_seconds=0.05, **settings, **WITH_ADMIN
        ) as gateway,
    ):
        upstream = gateway.runtime.pool.upstreams[0]
        wait_until(lambda: sentence in (upstream.fault or ""), "the fault is known")
        fault = upstream.fault
        assert fault is not None
        assert faults_of(gateway) == [fault]
        listed = get(gateway, "/admin/upstreams", ADMIN).json()["upstreams"]
        assert listed[0]["fault"] == fault
        answer = httpx.post(gateway.url + "/v1/audio/speech", json=ASKED, timeout=5)
        assert answer.status_code == 503
        told = answer.json()["error"]["message"]
        assert fault in told
        assert ("still be loading" in told) == (name == "no audio yet")
        assert not {"Secret", "Sekret", "127.0.0.1", "engine.invalid"} & set(
            told.replace(":", " ").split()
        )
        if name == "no audio yet":
            return  # the first audio of a model that loads may take minutes: nothing to warn of
        wait_until(lambda: upstream.failures > 10, "it was tried often")
    told_in_log = [line for line in capfd.readouterr().err.splitlines() if fault in line]
    assert len(told_in_log) == 1
    assert " WARNING " in told_in_log[0]


def test_a_fault_ends_when_the_engine_comes() -> None:
    """What was refused is ready a moment later, and its context is read."""
    with (
        running_engine("--voice", "simulated", "--max-model-len", "4096") as engine,
        running_gateway(upstreams=engine.address) as gateway,
    ):
        upstream = gateway.runtime.pool.upstreams[0]
        assert upstream.fault is None
        assert gateway.runtime.pool.context_tokens("belinda", None) == 4096
        assert httpx.get(gateway.url + "/ready", timeout=5).json() == {"ready": True}


@pytest.mark.parametrize(
    ("settings", "size_tokens"),
    [
        ({}, 75),
        ({"first_audio_timeout_seconds": 5}, 25),
        ({"idle_timeout_seconds": 600, "first_audio_timeout_seconds": 600}, 250),
        ({"slowest_tokens_per_second": 1000}, 250),
    ],
)
def test_a_whole_answer_waits_no_longer_than_the_settings_say(
    settings: dict[str, float], size_tokens: int
) -> None:
    """Chunks of whole answers are sized to the timeouts, not the timeouts to the chunks."""
    loaded = load_settings(upstreams="http://127.0.0.1:1", **settings)
    assert attempt_timeouts(loaded).first_audio_seconds == loaded.first_audio_timeout_seconds
    assert attempt_timeouts(loaded).idle_seconds == loaded.idle_timeout_seconds
    assert chunking_of(loaded, buffered=True).size_tokens == size_tokens
    assert chunking_of(loaded, buffered=False).size_tokens == 25
