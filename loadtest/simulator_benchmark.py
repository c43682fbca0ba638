"""Does the simulator keep up? A thousand streams of 25 tokens a second, one core.

What a load test measures must be the gateway, never the simulator behind it.
    python -m loadtest.simulator_benchmark [--streams 1000] [--seconds 20]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from urllib.parse import urlsplit

import psutil

from engines.simulator.voice import MODEL_ID
from loadtest.processes import running_engine

BYTES_PER_TOKEN = 1920
TOKENS_PER_STREAM = 25.0
RAMP_SECONDS = 8.0


class Counter(asyncio.Protocol):
    """Sends one request and counts what comes back; parsing would cost more than the engine."""

    total_bytes = 0

    def __init__(self, request: bytes) -> None:
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101  (for the types)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count."""
        Counter.total_bytes += len(data)


def request_of(address: str) -> bytes:
    """A request for about five minutes of audio."""
    host = urlsplit(address).netloc
    fields = {"model": MODEL_ID, "voice": "belinda", "response_format": "pcm", "input": "a " * 2100}
    body = json.dumps(fields).encode()
    head = (
        f"POST /v1/audio/speech HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def measure(address: str, streams: int, seconds: float, engine: psutil.Process) -> None:
    """Open the streams, let them settle, count for a while."""
    loop = asyncio.get_running_loop()
    host, port = urlsplit(address).netloc.split(":")
    request = request_of(address)
    transports = []
    for _ in range(streams):
        transport, _ = await loop.create_connection(lambda: Counter(request), host, int(port))
        transports.append(transport)
    await asyncio.sleep(RAMP_SECONDS)
    began, before = time.monotonic(), Counter.total_bytes
    busy = sum(engine.cpu_times()[:2])
    await asyncio.sleep(seconds)
    elapsed = time.monotonic() - began
    tokens = (Counter.total_bytes - before) / BYTES_PER_TOKEN / elapsed
    share = (sum(engine.cpu_times()[:2]) - busy) / elapsed
    for transport in transports:
        transport.abort()
    print(
        f"{streams} streams: {tokens:,.0f} tokens/s of {streams * TOKENS_PER_STREAM:,.0f} asked, "
        f"engine {share:.0%} of one core"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    with running_engine(
        "--voice", "simulated", "--tokens-per-second", f"{TOKENS_PER_STREAM:g}"
    ) as engine:
        process = psutil.Process(engine.pid)
        asyncio.run(measure(engine.address, arguments.streams, arguments.seconds, process))


if __name__ == "__main__":
    main()
