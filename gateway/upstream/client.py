"""The upstreams' HTTP client: one for the life of the process, one `PcmStream` a generation.

What fails becomes a `GatewayError` here or in `http_connection`.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import secrets
from collections import deque
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote, unquote, urlsplit

from gateway import value
from gateway.errors import GatewayError, UpstreamError, UpstreamProtocolError, UpstreamTimeout
from gateway.upstream.dialect import Call, Parser
from gateway.upstream.http_connection import HttpConnection, connect
from gateway.upstream.parsers import parse_error_body
from gateway.upstream.wait_limit import WaitLimit

# The container closes idle connections after 5.0 s (docs/contract.md section 1); a connection
# reused at that moment would be reset.
KEEP_ALIVE_SECONDS = 4.0
ERROR_BODY_BYTES = 64 * 1024
OK, UNAUTHORIZED = 200, 401
ANSWER_BODY_BYTES = 1024 * 1024  # /v1/models and /v1/audio/voices
PORTS = {"http": 80, "https": 443}


@value
class Timeouts:
    """Bounds of one attempt, in seconds."""

    connect_seconds: float
    first_audio_seconds: float
    idle_seconds: float


@dataclass(slots=True, eq=False)
class Origin:
    """An upstream's address, and the connections to it that wait for an exchange.

    Attributes:
        host: To connect to.
        port: To connect to.
        tls: Whether by TLS.
        path: What goes before each request's path.
        head: The headers that every request to it has.
        idle: The connections, the longest idle first.
    """

    host: str
    port: int
    tls: bool
    path: str
    head: str = field(repr=False)
    idle: deque[HttpConnection] = field(default_factory=deque)

    @classmethod
    def of(cls, address: str, api_key: str | None) -> Self:
        """Read an address.

        Args:
            address: An URL, with or without `user:password@`.
            api_key: Bearer key, which is stronger than user and password.
        """
        url = urlsplit(address)
        name = url.netloc.rpartition("@")[2].encode("idna").decode()
        head = f"Host: {name}\r\nAccept: */*\r\n"
        if api_key:
            head += f"Authorization: Bearer {api_key}\r\n"
        elif url.username is not None:
            pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
            head += f"Authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"
        port = url.port or PORTS[url.scheme]
        path = quote(url.path, safe="/%:@!$&'()*+,;=")
        return cls(url.hostname or "", port, url.scheme == "https", path, head)

    async def connection(self, timeout_seconds: float) -> HttpConnection:
        """The connection that was used last, if that was just now; else a new one.

        Raises:
            UpstreamUnreachable, UpstreamTimeout: There is none.
        """
        oldest = asyncio.get_running_loop().time() - KEEP_ALIVE_SECONDS
        while self.idle:
            connection = self.idle.pop()
            if connection.reusable and connection.idle_since > oldest:
                return connection
            connection.close()
        return await connect(self.host, self.port, tls=self.tls, timeout_seconds=timeout_seconds)

    def give_back(self, connection: HttpConnection) -> None:
        """Keep a connection for the next request, unless its answer was not read to the end."""
        if connection.end():
            self.idle.append(connection)
            if self.idle[0].idle_since < connection.idle_since - KEEP_ALIVE_SECONDS:
                self.idle.popleft().close()


@dataclass(slots=True, eq=False, repr=False)
class PcmStream:
    """One running generation; closing it makes the upstream stop (docs/contract.md section 3).

    Attributes:
        connection: Carries the answer, whose head has come; None when closed.
        origin: Whose connection it is.
        parser: Of the answer's body.
        timeouts: Bounds of its waits.
        limit: Of the wait for the first audio; then of each wait.
        ended: It was read to its end.
    """

    connection: HttpConnection | None
    origin: Origin
    parser: Parser
    timeouts: Timeouts
    limit: WaitLimit
    ended: bool = False
    _started: bool = False

    async def read(self) -> bytes:
        """The next PCM, whole samples; empty only at the end.

        Raises:
            UpstreamTimeout: No audio in time.
            UpstreamProtocolError: Error text, or an answer that broke off.
        """
        if self._started:
            # One bound for the whole wait: bytes without audio keep no stream alive.
            self.limit.at = asyncio.get_running_loop().time() + self.timeouts.idle_seconds
        while not self.ended:
            if self.connection is None:
                raise UpstreamProtocolError("The generation was stopped.")
            data = self.connection.take()
            if not data and not self.connection.complete:
                with self.limit:
                    data = await self.connection.receive()
            pcm = self.parser.feed(data) if data else await self._finish()
            if pcm:
                self._started = True
                return pcm
        return b""

    async def _finish(self) -> bytes:
        """The rest at the answer's end; decoding what came whole is a thread's work."""
        self.ended = True
        if self.parser.finish_blocks:
            return await asyncio.to_thread(self.parser.finish)
        return self.parser.finish()

    async def read_end(self, grace_seconds: float) -> bytes:
        """What follows within a moment: the end (`ended` is set), more PCM, or nothing yet."""
        try:
            async with asyncio.timeout(grace_seconds):
                return await self.read()
        except TimeoutError:
            return b""

    def close(self) -> None:
        """Drop the connection unless the answer is complete. Synchronous, idempotent."""
        self.limit.close()
        connection, self.connection = self.connection, None
        if connection is not None:
            self.origin.give_back(connection)


def _late() -> UpstreamTimeout:
    return UpstreamTimeout("The upstream did not answer in time.")


class UpstreamClient:
    """The process' one HTTP client for upstreams.

    Args:
        api_key: Bearer key for every upstream, or None.
    """

    def __init__(self, api_key: str | None) -> None:
        self._name, self._numbers = secrets.token_hex(8), itertools.count()
        self._api_key = api_key
        self._origins: dict[str, Origin] = {}

    def close(self) -> None:
        """Close every idle connection; those in use belong to their streams."""
        for origin in self._origins.values():
            while origin.idle:
                origin.idle.pop().close()

    async def open(self, address: str, call: Call, timeouts: Timeouts) -> PcmStream:
        """Send a generation's request and wait for the answer's head.

        Raises:
            UpstreamUnreachable, UpstreamTimeout, UpstreamProtocolError, UpstreamRejected.
        """
        at = asyncio.get_running_loop().time() + timeouts.first_audio_seconds
        limit, origin = WaitLimit(at, _late), self._origin(address)
        # The container makes the id its own, and two alike collide (section 3).
        head = (
            f"POST {origin.path}{call.path} HTTP/1.1\r\n{origin.head}"
            f"X-Request-Id: {self._name}-{next(self._numbers)}\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(call.body)}\r\n\r\n"
        )
        with limit:
            connection = await self._ask(origin, timeouts.connect_seconds, head, call.body)
        call.parser.begin(connection.headers)
        return PcmStream(connection, origin, call.parser, timeouts, limit)

    async def get(self, address: str, path: str, timeout_seconds: float) -> bytes:
        """Fetch a small answer.

        Raises:
            UpstreamUnreachable, UpstreamTimeout, UpstreamProtocolError: also for a status other
                than 200 and a body above ANSWER_BODY_BYTES.
        """
        origin = self._origin(address)
        head = f"GET {origin.path}{path} HTTP/1.1\r\n{origin.head}\r\n"
        try:
            async with asyncio.timeout(timeout_seconds):
                connection = await self._ask(origin, timeout_seconds, head)
                try:
                    return await _read_bounded(connection, ANSWER_BODY_BYTES)
                finally:
                    origin.give_back(connection)
        except TimeoutError as error:
            raise _late() from error

    def _origin(self, address: str) -> Origin:
        if address not in self._origins:
            self._origins[address] = Origin.of(address, self._api_key)
        return self._origins[address]

    async def _ask(
        self, origin: Origin, connect_seconds: float, head: str, body: bytes = b""
    ) -> HttpConnection:
        """Send a request; the connection has received the head of an answer with status 200.

        One without a body changes nothing at the upstream: it is sent again where a connection that
        had been idle brings no answer (RFC 9110, 9.2.2).
        """
        connection = await origin.connection(connect_seconds)
        try:
            connection.ask(head.encode(), body)
            await connection.head()
            if connection.status != OK:
                raise await self._refusal(connection)
        except BaseException as error:
            origin.give_back(connection)
            # A server may close an idle connection at the moment at which it is used again.
            unanswered = isinstance(error, UpstreamError) and not connection.status
            if unanswered and connection.idle_since and not body:
                return await self._ask(origin, connect_seconds, head)
            raise
        return connection

    async def _refusal(self, connection: HttpConnection) -> GatewayError:
        """The exception for an answer whose status is not 200."""
        if connection.status == UNAUTHORIZED and not self._api_key:
            return UpstreamProtocolError(
                "The upstream wants an API key, and GATEWAY_UPSTREAM_API_KEY is not set."
            )
        try:
            body = await _read_bounded(connection, ERROR_BODY_BYTES)
        except UpstreamError as error:
            return error
        return parse_error_body(connection.status, body)


async def _read_bounded(connection: HttpConnection, limit_bytes: int) -> bytes:
    """The whole body; the caller gives the connection back, however this ends."""
    body = bytearray()
    while data := await connection.receive():
        body += data
        if len(body) > limit_bytes:
            raise UpstreamProtocolError("The upstream's answer is too long.")
    return bytes(body)
