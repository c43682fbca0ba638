"""A load generator that costs less than what it measures: raw sockets on uvloop, bytes counted."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import partial
from typing import cast

KEY = "sg-peers-0123456789abcdef"


@dataclass
class Result:
    """What a run of requests saw.

    Attributes:
        first_byte_seconds: From each request to the first byte of its body.
        failed: Requests whose answer was not 200, or broke off.
        body_bytes: Of all answers together.
    """

    first_byte_seconds: list[float] = field(default_factory=list)
    failed: int = 0
    body_bytes: int = 0


def request_template(host: str, body: bytes) -> bytes:
    """A speech request with a key, and `%06d` where its number belongs: no two texts are alike."""
    return (
        f"POST /v1/audio/speech HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body % 0)}\r\n\r\n"
    ).encode() + body


class Client(asyncio.Protocol):
    """One keep-alive connection that asks again and again."""

    def __init__(
        self, request: bytes, result: Result, left: list[int], done: asyncio.Future[None]
    ) -> None:
        self._request, self._result, self._left, self._done = request, result, left, done
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the first time."""
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def _ask(self) -> None:
        if self._left[0] <= 0:
            self._transport.close()
            return
        self._left[0] -= 1
        self._head: bytes | None = b""
        self._length, self._size, self._tail = -1, 0, b""
        self._began = time.perf_counter()
        self._waiting = True
        self._busy = True
        self._transport.write(self._request % self._left[0])

    def data_received(self, data: bytes) -> None:
        """Count an answer, and ask again at its end."""
        if self._head is not None:
            self._head += data
            head, blank, data = self._head.partition(b"\r\n\r\n")
            if not blank:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self._result.failed += 1
                self._transport.abort()
                return
            lower = head.lower()
            if b"content-length:" in lower:
                self._length = int(lower.partition(b"content-length:")[2].split(b"\r\n")[0])
            self._head = None
        if data and self._waiting:
            self._result.first_byte_seconds.append(time.perf_counter() - self._began)
            self._waiting = False
        self._size += len(data)
        self._tail = (self._tail + data)[-5:]
        if self._size == self._length or (self._length < 0 and self._tail == b"0\r\n\r\n"):
            self._result.body_bytes += self._size
            self._busy = False
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """The last request of the connection is over, or broke off."""
        del exc
        if self._busy:
            self._result.failed += 1
        if not self._done.done():
            self._done.set_result(None)


async def load(port: int, body: bytes, concurrency: int, requests: int) -> Result:
    """Send so many requests, so many at once, and count what comes."""
    loop = asyncio.get_running_loop()
    request = request_template(f"127.0.0.1:{port}", body)
    result, left = Result(), [requests]
    ends = [loop.create_future() for _ in range(concurrency)]
    for end in ends:
        client = partial(Client, request, result, left, end)
        await loop.create_connection(client, "127.0.0.1", port)
    await asyncio.gather(*ends)
    return result
