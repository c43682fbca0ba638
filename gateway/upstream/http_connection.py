"""One HTTP/1.1 connection to an upstream (RFC 9112), which carries one exchange at a time.

`httptools` reads the answers. A general client runs four times the instructions for what the
gateway needs of one (docs/decisions/0002): no redirects, cookies, proxies or decompression.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
import ssl
from collections.abc import Sequence
from typing import cast

import httptools
from aiohappyeyeballs import start_connection

from gateway.errors import (
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnreachable,
)

HEAD_BYTES = 64 * 1024  # of an answer; engines send 200 bytes
# From here on the socket is not read: with one more read of the event loop (256 KiB) the bound of
# one stream's backlog.
UNREAD_BYTES = 64 * 1024
SECOND_FAMILY_SECONDS = 0.25  # RFC 8305: when IPv4 is tried beside an IPv6 that does not answer
# What simple servers send, and clients take: folded headers, bare line feeds, padded chunk sizes.
TAKEN = "lenient_headers", "lenient_optional_cr_before_lf", "lenient_spaces_after_chunk_size"
LEAST_FINAL_STATUS = 200  # below are interim answers, such as 103 Early Hints


class HttpConnection(asyncio.Protocol):
    """A connection; made by `connect`.

    Attributes:
        status: Of the answer, or 0 until its head has come.
        headers: Of the answer, by lower-case name; the last of several alike.
        complete: The whole answer has come, or nothing was asked yet.
        reusable: It may carry another exchange.
        idle_since: When its last exchange ended, in loop time.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.complete = self.reusable = True
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(**dict.fromkeys(TAKEN, True))
        self._transport: asyncio.Transport
        self._head_bytes = 0
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._failure: tuple[type[UpstreamError], str] | None = None

    def ask(self, *parts: bytes) -> None:
        """Send a request; what comes from now on is its answer.

        Args:
            parts: Its head and its body.
        """
        self.status = self._head_bytes = 0
        self.headers.clear()
        self.complete = False
        self._transport.writelines(parts)

    async def head(self) -> None:
        """Wait for the answer's head.

        Raises:
            UpstreamUnreachable, UpstreamProtocolError: There is none.
        """
        while not self.status:
            await self._news()

    def take(self) -> bytes:
        """What has come of the answer's body and was not taken yet.

        Raises:
            UpstreamProtocolError, UpstreamUnreachable: It breaks off.
        """
        self._raise_failure()
        data = b"".join(self._unread)
        self._unread.clear()
        self._unread_bytes = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def receive(self) -> bytes:
        """The next of the answer's body; empty only at its end.

        Raises:
            UpstreamProtocolError, UpstreamUnreachable: It breaks off.
        """
        while not (data := self.take()) and not self.complete:
            await self._news()
        return data

    def end(self) -> bool:
        """End the exchange; False where that takes the connection, which is closed then.

        An answer that comes before its request is sent leaves a connection that may stay blocked.
        """
        if not (self.complete and self.reusable) or self._transport.get_write_buffer_size():
            self.close()
            return False
        self.take()  # what nobody has read
        self.idle_since = self._loop.time()
        return True

    def close(self) -> None:
        """Drop the connection at once, whatever is still to be sent; idempotent, synchronous."""
        self.reusable = False
        self._transport.abort()

    async def _news(self) -> None:
        """Wait until something has come."""
        self._raise_failure()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _raise_failure(self) -> None:
        if self._failure is not None:
            kind, message = self._failure
            raise kind(message)

    def _fail(self, kind: type[UpstreamError], message: str) -> None:
        self._failure = kind, message
        self.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read a part of the answer."""
        if self.complete:
            self.close()  # nothing was asked
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self.complete:
                self.reusable = False  # what follows a whole answer is of no use
            else:
                self._fail(UpstreamProtocolError, "The upstream does not speak HTTP.")
        else:
            if not self.status:
                self._head_bytes += len(data)
                if self._head_bytes > HEAD_BYTES:
                    self._fail(UpstreamProtocolError, "The upstream's answer is too long.")
            elif self._unread_bytes > UNREAD_BYTES and not self._paused and not self.complete:
                self._paused = True
                self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """Close: nothing more will come."""
        self.reusable = False

    def connection_lost(self, error: Exception | None) -> None:
        """Take the end for that of an answer that tells no length; for a failure of any other."""
        self.reusable = False
        chunked = b"chunked" in self.headers.get(b"transfer-encoding", b"").lower()
        if self.status and error is None and not (chunked or b"content-length" in self.headers):
            self.complete = True
        if not self.complete and self._failure is None:
            if self.status:
                self._failure = UpstreamProtocolError, "The upstream cut its answer off."
            else:
                self._failure = UpstreamUnreachable, "The upstream reset the connection."
        self._wake()

    # What the parser calls

    def on_message_begin(self) -> None:
        """Another answer than the one that was asked for spoils the connection."""
        if self.complete:
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; those behind the body are passed over."""
        if not self.status:
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head is complete, of the answer or of one that announces it."""
        if self.complete:
            return
        status = self._parser.get_status_code()
        if status >= LEAST_FINAL_STATUS:
            self.status = status
        else:
            self.headers.clear()

    def on_body(self, body: bytes) -> None:
        """Keep some of the body until it is taken."""
        if not self.complete:
            self._unread.append(body)
            self._unread_bytes += len(body)

    def on_message_complete(self) -> None:
        """The answer is complete."""
        if self.status:
            self.reusable = self.reusable and self._parser.should_keep_alive()
            self.complete = True


async def connect(host: str, port: int, *, tls: bool, timeout_seconds: float) -> HttpConnection:
    """Open a connection.

    The messages of errors reach clients, so none names the address: who may ask for speech may not
    know the inner network.

    Args:
        host: Name or address.
        port: Its port.
        tls: Speak TLS, and check the certificate.
        timeout_seconds: For all of it.

    Raises:
        UpstreamUnreachable, UpstreamTimeout: There is none.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_seconds):
            addresses: Sequence[tuple[int, int, int, str, tuple[object, ...]]]
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            opened = await start_connection(addresses, happy_eyeballs_delay=SECOND_FAMILY_SECONDS)
            _, connection = await loop.create_connection(
                HttpConnection,
                sock=opened,
                ssl=_tls() if tls else None,
                server_hostname=host if tls else None,
            )
    except TimeoutError as error:
        raise UpstreamTimeout("The upstream does not take connections in time.") from error
    except (OSError, RuntimeError) as error:  # uvloop has a RuntimeError for some
        raise UpstreamUnreachable(_why(error)) from error
    return connection


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _why(error: OSError | RuntimeError) -> str:
    """Why no connection came about, in a sentence that tells an operator what to mend."""
    if isinstance(error, socket.gaierror):
        return "The upstream's host name does not resolve."
    if isinstance(error, ssl.SSLError):
        return "The upstream's TLS certificate or protocol is not accepted."
    number = getattr(error, "errno", None) or 0
    if number == errno.ECONNREFUSED:
        return "The upstream refuses connections: nothing listens at its address and port."
    return f"The upstream cannot be reached ({errno.errorcode.get(number, 'no reason given')})."
