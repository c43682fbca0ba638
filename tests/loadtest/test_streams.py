"""Streams at the pace of speech: each is heard to its end, and what is late is told."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack

import uvloop

from loadtest.peers.proxies import start_gateway, start_stub
from loadtest.processes import free_port
from loadtest.streams import Listener, listen


def ask(voice: str) -> bytes:
    """The body of a request, with a place for its number."""
    fields = {"model": "stub", "voice": voice, "input": "Line %06d.", "response_format": "wav"}
    return json.dumps(fields).encode()


def test_every_stream_is_heard_whole() -> None:
    """Through a real gateway, before a real paced stub."""
    port = free_port()
    with ExitStack() as stack:
        start_stub(port, "--audio-seconds", "1", "--chunk-frames", "5", "--paced")(stack)
        gateway = start_gateway(port, stack)
        heard = uvloop.run(listen(gateway, ask("en_woman"), 20, 1))
    assert len(heard.worst_late_seconds) == 20
    assert heard.broken == 0
    assert "20 streams, 0 broken" in str(heard)


def test_a_stream_that_pauses_is_late() -> None:
    """A player that has nothing for so long has starved for it."""

    async def run() -> float:
        ended = asyncio.get_running_loop().create_future()
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        transport, listener = await asyncio.get_running_loop().create_connection(
            lambda: Listener(b"GET / HTTP/1.1\r\n\r\n", ended), "127.0.0.1", port
        )
        listener.data_received(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(480))
        await asyncio.sleep(0.1)
        listener.data_received(bytes(480))
        transport.abort()
        assert await ended is False
        server.close()
        return listener.worst_late_seconds

    assert 0.085 < uvloop.run(run()) < 30


def test_a_refused_stream_is_broken() -> None:
    """An answer that is no stream counts as none that is whole."""
    with ExitStack() as stack:
        port = free_port()
        start_stub(port)(stack)
        gateway = start_gateway(port, stack)
        heard = uvloop.run(listen(gateway, ask("nobody"), 3, 1))
    assert heard.broken == 3
