"""uvicorn's HTTP protocol with a bound on everything a stranger may make it hold or wait for.

uvicorn parses and answers; this class counts what a connection brings, watches what it takes, and
ends it with a clear status where it goes too far. Every bound stands in `docs/buffers.md`.
"""

from __future__ import annotations

import asyncio
import http
import json
import socket
import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any, cast

import httptools
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from gateway.server.connections import Crowd
from gateway.server.disconnect import DISCONNECT
from gateway.server.http_heads import (
    HEAD_BYTES,
    HEAD_TOO_LARGE,
    HEADERS,
    INVALID,
    TOO_MANY_HEADERS,
    Refusal,
    check_head,
)
from gateway.server.slow_reader import SlowReader

MOST_PIPELINED = 16  # requests behind the one that is answered
FRAMING_BYTES = 1024 * 1024  # chunk sizes, extensions and trailers of a small body
SMALL_BODY_BYTES = 64 * 1024  # not counted: what a request for speech has without a voice sample
LINGER_SECONDS = 2.0  # a client that is refused while it sends gets this long to hear why
REFUSED_AT_ONCE = 256  # connections above the limit that are told so; the others are cut
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_QUIET_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # cheap: they run no generation


def bounded_protocol(crowd: Crowd) -> type[asyncio.Protocol]:
    """What uvicorn is given as `http`: it calls it once for every connection.

    uvicorn asks for a class and does nothing with it but call it.
    """
    return cast("type[asyncio.Protocol]", partial(BoundedProtocol, crowd))


class _Refused(Exception):
    """Ends the parsing of a request; `httptools` turns it into an error of its own."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        crowd: What all connections of this process share.
        config: uvicorn's configuration.
        server_state: uvicorn's connections and tasks.
        app_state: State of the application's lifespan.
    """

    def __init__(
        self,
        crowd: Crowd,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._application, self.app = self.app, self._run
        self._crowd = crowd
        self._bounds = crowd.bounds
        self._unfinished: deque[RequestResponseCycle] = deque()  # the first one runs
        self._deaf = False  # what still comes is thrown away
        self._refusal = INVALID
        self._in_head = True  # no request's body is being received
        self._head_begun = False
        self._replaying = False  # the parser is told what it has been told before
        self._heads = 0
        self._head_bytes = self._body_bytes = self._raw_bytes = self._held_bytes = 0
        self._read_timer: asyncio.TimerHandle | None = None
        self._tell_gone: Callable[[], object] = bool  # of the request that runs; does nothing

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection in, if need be for one that waits; refuse it if all are busy."""
        super().connection_made(transport)
        self._reader = SlowReader(transport, self._bounds.send_timeout_seconds)
        excess = len(self.connections) - self._bounds.max_connections
        if excess > 0 and self._crowd.waiting:
            next(iter(self._crowd.waiting)).leave()
        elif excess > REFUSED_AT_ONCE:
            transport.abort()
            return
        elif excess > 0:
            self._refuse(Refusal(503, "All connections of the gateway are busy."))
            return
        self._crowd.waiting[self] = None
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request of the connection, not the newest alone, that its client is gone."""
        self._crowd.waiting.pop(self, None)
        self._forget_bodies()
        self._abandon()
        self._stop_read_timer()
        self._reader.stop()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Take the end of what the client sends for its leaving.

        A client that closes looks the same as one that only stops to send, and a generation must
        not go on for nobody; answers that cost nothing are sent all the same.
        """
        asked = self._unfinished
        if self._deaf or not asked or any(one.more_body for one in asked):
            return False
        if any(one.scope["method"] not in _QUIET_METHODS for one in asked):
            return False
        self._stop_listening()
        return True

    def leave(self) -> None:
        """Close, and see to it that a client that reads nothing cannot prevent it."""
        self._crowd.waiting.pop(self, None)
        self._deaf = True
        self.transport.close()
        self._reader.watch()

    def _abandon(self) -> None:
        self.pipeline.clear()
        for cycle in self._unfinished:
            if not cycle.response_complete:
                cycle.disconnected = True
            cycle.message_event.set()
        self._tell_gone()

    # What comes in

    def data_received(self, data: bytes) -> None:
        """Parse what came, and bound what is not complete."""
        if self._deaf:
            return
        heads = self._heads
        was_in_head = self._in_head
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self._refuse(self._refusal)
        if self._deaf or self.transport.is_closing():
            return
        if self._head_begun or (was_in_head and self._heads == heads):
            self._head_bytes += len(data) if self._heads == heads else 0
            if self._head_bytes > HEAD_BYTES:
                self._refuse(HEAD_TOO_LARGE)
            elif self._read_timer is None:
                self._read_timer = self.loop.call_later(
                    self._bounds.head_timeout_seconds, self._head_is_late
                )
        elif not self._in_head:
            self._raw_bytes += len(data)
            if self._raw_bytes - self._body_bytes > max(FRAMING_BYTES, self._body_bytes):
                self._refuse(Refusal(400, "The request's body is mostly framing."))

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Some clients offer h2c with every first request. Declining is to answer in HTTP/1.1
            # (RFC 9110, 7.8), but this parser stops there, in front of the body: another one
            # takes it from here, and is told nothing of the offer.
            self.parser = httptools.HttpRequestParser(self)
            framing = [b"%s: %s" % pair for pair in self.headers if pair[0] in _FRAMING]
            self._replaying = True
            self.parser.feed_data(b"\r\n".join([b"POST / HTTP/1.1", *framing, b"", b""]))
            self._replaying = False
            self._parse(data[upgrade.args[0] :])

    def _head_is_late(self) -> None:
        self._read_timer = None
        self._refuse(Refusal(408, "The request's head did not come in time."))

    def _body_is_late(self) -> None:
        self._read_timer = None
        self.leave()  # it has had its answer

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _await_request(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing happens."""
        if not self.transport.is_closing():
            self.leave()

    def _give_up(self, refusal: Refusal) -> _Refused:
        self._refusal = refusal
        return _Refused(refusal.message)

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._replaying:
            return
        super().on_message_begin()
        self._head_begun = self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; those behind a chunked body are dropped: the bound of framing counts them."""
        if self._head_begun:  # or a trailer could pass for what a proxy has checked
            super().on_header(name, value)
            if len(self.headers) > HEADERS:
                raise self._give_up(TOO_MANY_HEADERS)

    def on_headers_complete(self) -> None:
        """The head is complete: the request starts, or queues behind the one that runs."""
        if self._replaying:
            return
        size = len(self.url) + sum(map(len, chain(*self.headers))) + 4 * len(self.headers)
        refusal = check_head(self.parser.get_http_version(), self.headers)
        if refusal or size > HEAD_BYTES:
            raise self._give_up(refusal or HEAD_TOO_LARGE)
        if len(self._unfinished) > MOST_PIPELINED:
            raise self._give_up(Refusal(400, "Too many requests at once."))
        super().on_headers_complete()
        self._heads += 1
        self._head_begun = self._in_head = False
        self._head_bytes = self._raw_bytes = self._body_bytes = 0
        self._stop_read_timer()
        self._crowd.waiting.pop(self, None)
        self._unfinished.append(self.cycle)
        self.flow.resume_reading()  # uvicorn stops at a second request: it would miss the end

    def on_body(self, body: bytes) -> None:
        """Some of a body."""
        self._body_bytes += len(body)
        super().on_body(body)
        cycle = self.cycle
        if len(self._unfinished) > 1 and len(cycle.body) > HIGH_WATER_LIMIT:
            raise self._give_up(Refusal(400, "A request that waits for another one is too large."))
        if not cycle.response_started and self._body_bytes <= self._bounds.max_body_bytes:
            self._hold(len(body))

    def _hold(self, size: int) -> None:
        """Count what a request that is not yet refused keeps in memory."""
        if self._body_bytes <= SMALL_BODY_BYTES:
            return
        self._held_bytes += size
        self._crowd.held_bytes += size
        if self._crowd.held_bytes > self._bounds.max_held_body_bytes:
            raise self._give_up(Refusal(503, "The gateway holds too many large requests."))

    def _forget_bodies(self) -> None:
        self._crowd.held_bytes -= self._held_bytes
        self._held_bytes = 0

    def on_message_complete(self) -> None:
        """The request is complete; its answer may be long since."""
        if self.parser.should_upgrade():
            return  # the parser says so in front of the body
        super().on_message_complete()
        self._in_head = True
        if self.cycle.response_complete:
            self._stop_read_timer()
            self._await_request()

    # What is refused

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what is wrong and close; never inside of an answer that has begun."""
        self._stop_read_timer()
        self._unset_keepalive_if_required()
        asked = self._unfinished
        if len(asked) > 1 or (asked and not asked[0].more_body):
            self._stop_listening()  # what came before is good, and is answered
            return
        self._deaf = True
        if asked and asked[0].response_started:
            self.leave()
            return
        self._abandon()
        self.transport.write(_plain_answer(refusal))
        self._linger()

    def _linger(self) -> None:
        """Close for writing, and read on for a moment: a reset would overtake the answer."""
        self._crowd.waiting.pop(self, None)
        if self.transport.is_closing():
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._read_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _stop_listening(self) -> None:
        """Take no further request; close after the answers to those that are complete."""
        self._deaf = True
        self._stop_read_timer()
        if len(self._unfinished) > 1 and self._unfinished[-1].more_body:
            self._unfinished.pop()
            self.pipeline.popleft()
        if self._unfinished:
            self._unfinished[-1].keep_alive = False

    # What goes out

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application; when it gives up its answer, the client may not hold the connection."""
        cycle = self._unfinished[0]
        if is_old := scope["http_version"] == "1.0":
            send = _unframed(cycle, send)
        scope["extensions"] = {DISCONNECT: self._when_gone}
        try:
            await self._application(scope, receive, send)
        finally:
            if not cycle.response_complete:
                if is_old and cycle.response_started and not cycle.disconnected:
                    self._reset_at_close()
                self.loop.call_soon(self._after_application)

    def _when_gone(self, tell: Callable[[], object]) -> None:
        """Tell the request that runs, which has read its body, that its client is gone."""
        self._tell_gone = tell

    def _reset_at_close(self) -> None:
        """Let the close be a reset: HTTP/1.0 has no chunks, so any other end is a whole answer."""
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            at_once = struct.pack("ii", 1, 0)  # struct linger: on, no seconds
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)

    def _after_application(self) -> None:
        if self.transport.is_closing():
            self._reader.watch()

    def on_response_complete(self) -> None:
        """An answer is complete: the next request's turn, or a wait for one."""
        while self._unfinished and self._unfinished[0].response_complete:
            self._unfinished.popleft()
        super().on_response_complete()
        if self.transport.is_closing():
            self._reader.watch()
        elif not self._unfinished:
            self._forget_bodies()
            self._crowd.waiting[self] = None
            if self.cycle.more_body:
                self._stop_read_timer()
                self._read_timer = self.loop.call_later(LINGER_SECONDS, self._body_is_late)

    def pause_writing(self) -> None:
        """The client takes less than it is sent: the answer waits, but not for ever."""
        super().pause_writing()
        self._reader.watch()

    def resume_writing(self) -> None:
        """It has taken most of it."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._reader.stop()


def _unframed(cycle: RequestResponseCycle, send: Send) -> Send:
    """What sends to a client of HTTP/1.0, to which uvicorn would send chunks (RFC 9112, 6.1).

    A body without a length ends with the connection.
    """
    endless = False

    async def send_unframed(message: Message) -> None:
        nonlocal endless
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message["headers"]}
            if endless := b"content-length" not in names:
                cycle.chunked_encoding = False
        elif endless:
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    return send_unframed


def _plain_answer(refusal: Refusal) -> bytes:
    """An answer to what never became a request of some surface: OpenAI's shape of errors."""
    status = refusal.status
    code = http.HTTPStatus(status).phrase.lower().replace(" ", "_")
    kind = "invalid_request_error" if status < 500 else "api_error"  # noqa: PLR2004
    error = {"message": refusal.message, "type": kind, "param": None, "code": code}
    body = json.dumps({"error": error}).encode()
    head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
    retry = "retry-after: 1\r\n" if status == 503 else ""  # noqa: PLR2004
    return STATUS_LINE[status] + f"{head}{retry}\r\n".encode() + body
