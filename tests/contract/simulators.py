"""The simulator as the contract tests ask it: on raw sockets, and through its own window."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from loadtest.processes import running_engine, wait_until

TEXT = "The quick brown fox jumps over the lazy dog, and then it sleeps in the sun."
LONG = "x" * 67  # 120 frames of audio
MODEL = "higgs-audio-v2-generation-3B-base"
SPEECH = "/v1/audio/speech"
CHAT = "/v1/chat/completions"
BYTES_PER_TOKEN = 1920
TIMEOUT_SECONDS = 20.0


class Simulator:
    """A simulated engine at an address.

    Args:
        url: Its base address.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(
            base_url=url,
            timeout=TIMEOUT_SECONDS,
            limits=httpx.Limits(max_keepalive_connections=0),  # faults cut connections
        )

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def get(self, path: str, **headers: str) -> httpx.Response:
        """A GET."""
        return self._client.get(path, headers=headers)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """A POST of JSON."""
        return self._client.post(path, json=body, headers=headers)

    def speech(self, **fields: Any) -> httpx.Response:
        """A speech request."""
        return self.post(SPEECH, speech_body(**fields))

    def chat(self, text: str = TEXT, **fields: Any) -> httpx.Response:
        """A chat request with one user message."""
        return self.post(CHAT, {"messages": [{"role": "user", "content": text}], **fields})

    def plan(self, **faults: Any) -> None:
        """What goes wrong from now on."""
        self.post("/simulator/faults", faults).raise_for_status()

    def state(self) -> dict[str, Any]:
        """What the simulator saw and does."""
        value = self.get("/simulator/state").json()
        assert isinstance(value, dict)
        return value

    def wait_for(self, **facts: int) -> dict[str, Any]:
        """Wait until the state holds these figures."""

        def holds() -> dict[str, Any] | None:
            state = self.state()
            return state if all(state[name] == value for name, value in facts.items()) else None

        state = wait_until(holds, f"{facts}", TIMEOUT_SECONDS)
        assert isinstance(state, dict)
        return state

    @contextmanager
    def connection(self, body: dict[str, Any], path: str = SPEECH) -> Iterator[socket.socket]:
        """A socket on which a request has just been written."""
        address = urlsplit(self.url)
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(data)}\r\n\r\n"
        with socket.create_connection((str(address.hostname), address.port or 80), 10) as line:
            line.settimeout(TIMEOUT_SECONDS)
            line.sendall(head.encode() + data)
            yield line

    def http_chunks(self, body: dict[str, Any]) -> list[bytes]:
        """The HTTP chunks of an answer, each as it was written.

        Raises:
            ConnectionError: The answer was cut.
        """
        with self.connection(body) as connection, connection.makefile("rb") as stream:
            while stream.readline().strip():
                pass
            chunks: list[bytes] = []
            while True:
                line = stream.readline()
                if not line:
                    raise ConnectionError("cut")
                size = int(line, 16)
                data = stream.read(size + 2)
                if size == 0:
                    return chunks
                chunks.append(data[:-2])


def speech_body(**fields: Any) -> dict[str, Any]:
    """A speech request's fields."""
    return {"model": MODEL, "input": TEXT, "voice": "belinda", **fields}


def read_bytes(connection: socket.socket, count: int) -> int:
    """Read until so many bytes came, head included; how many did, if the stream ends before."""
    received = 0
    while received < count:
        data = connection.recv(65_536)
        if not data:
            break
        received += len(data)
    return received


@contextmanager
def simulator(*arguments: str) -> Iterator[Simulator]:
    """A simulated engine of its own, restarted when it dies."""
    with running_engine("--voice", "simulated", *arguments) as engine:
        running = Simulator(engine.address)
        try:
            yield running
        finally:
            running.close()
