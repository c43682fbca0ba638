"""Listens to thousands of streams at the pace of speech, and tells how late any of them was.

    python -m loadtest.streams [--streams 4000] [--seconds 60]

First straight at an engine's stub, then through one gateway process: what the second run has more
of is the gateway's. A player that starts at its first audio starves when the next comes late.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import cast

import uvloop

from loadtest.peers.load import request_template
from loadtest.peers.proxies import PEERS, Running, start_gateway, start_stub
from loadtest.processes import free_port

BYTES_PER_SECOND = 48_000
LATE_SECONDS = 0.05
STARTS_A_SECOND = 200


@dataclass(frozen=True, slots=True)
class Heard:
    """What the listeners of one run met.

    Attributes:
        worst_late_seconds: Of each stream, the longest that its player starved at once.
        broken: Streams that ended before their time.
        cores: Processor seconds a second of the process between, while all streams ran.
        stream_kib: Its resident memory beyond that of an idle one, for each stream.
    """

    worst_late_seconds: list[float]
    broken: int
    cores: float
    stream_kib: float

    def __str__(self) -> str:
        """One line."""
        worst_ms = sorted(1000 * seconds for seconds in self.worst_late_seconds)
        late = sum(1 for ms in worst_ms if ms > 1000 * LATE_SECONDS)
        return (
            f"{len(worst_ms)} streams, {self.broken} broken, {late} starved for more than "
            f"{1000 * LATE_SECONDS:.0f} ms at once; worst of each: "
            f"median {statistics.median(worst_ms):.1f} ms, "
            f"99 % {worst_ms[len(worst_ms) * 99 // 100]:.1f} ms, longest {worst_ms[-1]:.1f} ms; "
            f"{self.cores:.2f} cores, {self.stream_kib:.0f} KiB a stream"
        )


class Listener(asyncio.Protocol):
    """One stream and its player."""

    def __init__(self, request: bytes, ended: asyncio.Future[bool]) -> None:
        self.worst_late_seconds = 0.0
        self._request, self._ended = request, ended
        self._head, self._tail = b"", b""
        self._started: float | None = None
        self._audio_seconds = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Play what came; wait for the rest."""
        now = time.monotonic()
        if self._started is None:
            self._head += data
            head, blank, data = self._head.partition(b"\r\n\r\n")
            if not blank or (not data and head.startswith(b"HTTP/1.1 200")):
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self._transport.abort()
                return
            self._started = now
        late = now - self._started - self._audio_seconds
        if late > 0:
            self.worst_late_seconds = max(self.worst_late_seconds, late)
            self._started += late
        self._audio_seconds += len(data) / BYTES_PER_SECOND
        self._tail = (self._tail + data)[-5:]
        if self._tail == b"0\r\n\r\n":
            self._transport.close()
            self._ended.set_result(True)

    def connection_lost(self, exc: Exception | None) -> None:
        """It broke off, if it had not ended."""
        del exc
        if not self._ended.done():
            self._ended.set_result(False)


async def listen(running: Running, body: bytes, streams: int, seconds: float) -> Heard:
    """Start streams evenly, and listen to all of them to their ends."""
    loop = asyncio.get_running_loop()
    template = request_template(f"127.0.0.1:{running.port}", body)
    idle_mib = running.resident_mib()
    listeners: list[Listener] = []
    ends: list[asyncio.Future[bool]] = []
    began = loop.time()
    for number in range(streams):
        await asyncio.sleep(began + number / STARTS_A_SECOND - loop.time())
        ends.append(loop.create_future())
        listener = partial(Listener, template % number, ends[-1])
        _, protocol = await loop.create_connection(listener, "127.0.0.1", running.port)
        listeners.append(protocol)
    # While the first to come have not yet ended, all run.
    before, used = loop.time(), running.cpu_seconds()
    await asyncio.sleep(max(1.0, (seconds - (loop.time() - began)) / 2))
    cores = (running.cpu_seconds() - used) / (loop.time() - before)
    stream_kib = 1024 * (running.resident_mib() - idle_mib) / streams
    whole = await asyncio.gather(*ends)
    return Heard(
        [each.worst_late_seconds for each in listeners], whole.count(False), cores, stream_kib
    )


def main() -> None:
    """Read the command line, listen, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=60.0, help="of audio, each stream")
    asked = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    peer = next(peer for peer in PEERS if peer.name == "gateway, wav")
    with ExitStack() as stack:
        port = free_port()
        start_stub(port, "--audio-seconds", f"{asked.seconds}", "--paced")(stack)
        for name, running in (
            ("straight at the engine", Running(port, None)),
            ("through the gateway", start_gateway(port, stack)),
        ):
            took = f"about {asked.streams / STARTS_A_SECOND + asked.seconds:.0f} s"
            print(f"{name} ({took}):", flush=True)
            print(
                f"  {uvloop.run(listen(running, peer.body(), asked.streams, asked.seconds))}",
                flush=True,
            )


if __name__ == "__main__":
    main()
