"""HTTP to the upstreams: one client for the life of the process, one `PcmStream` a generation.

Every foreign error becomes a `GatewayError` here. aiohttp is spoken directly: it costs a third of
the CPU of httpx's own pool, and the interface would add a copy (docs/decisions/0002).
"""

from __future__ import annotations

import asyncio
import errno
import io
import itertools
import secrets
from dataclasses import dataclass
from functools import lru_cache

import aiohttp

from gateway import value
from gateway.errors import (
    GatewayError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.upstream.dialect import Call, Parser
from gateway.upstream.parsers import parse_error_body
from gateway.upstream.wait_limit import WaitLimit

# The container closes idle connections after 5.0 s (docs/contract.md section 1); a connection
# reused at that moment would be reset.
KEEP_ALIVE_SECONDS = 4.0
# aiohttp stops reading a socket at twice this much unread data: the bound of one stream's backlog.
READ_BUFFER_BYTES = 64 * 1024
ERROR_BODY_BYTES = 64 * 1024
PIECE_BYTES = 64 * 1024
UNAUTHORIZED = 401
ANSWER_BODY_BYTES = 1024 * 1024  # /v1/models and /v1/audio/voices


@value
class Timeouts:
    """Bounds of one attempt, in seconds."""

    connect_seconds: float
    first_audio_seconds: float
    idle_seconds: float


@lru_cache(maxsize=8)
def _connect_timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=seconds)


FOREIGN_ERRORS = (aiohttp.ClientError, TimeoutError)


def _translated(error: Exception) -> UpstreamError:
    """One of FOREIGN_ERRORS as the gateway's own, by its type and never by its text.

    The messages reach clients, so none names the address: it may hold a password, and who may ask
    for speech may not know the inner network.
    """
    match error:
        case aiohttp.ClientConnectorError():
            return UpstreamUnreachable(_connect_failure(error))
        case aiohttp.ConnectionTimeoutError():
            return UpstreamTimeout("The upstream does not take connections in time.")
        case aiohttp.ServerTimeoutError() | TimeoutError():
            return UpstreamTimeout("The upstream did not answer in time.")
        case aiohttp.ClientPayloadError():
            return UpstreamProtocolError("The upstream cut its answer off.")
        case aiohttp.ClientConnectionError():
            return UpstreamUnreachable("The upstream reset the connection.")
        case _:
            return UpstreamProtocolError("The upstream does not speak HTTP.")


def _connect_failure(error: aiohttp.ClientConnectorError) -> str:
    """Why no connection came about, in a sentence that tells an operator what to mend."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "The upstream's host name does not resolve."
    if isinstance(error, aiohttp.ClientSSLError):
        return "The upstream's TLS certificate or protocol is not accepted."
    if error.errno == errno.ECONNREFUSED:
        return "The upstream refuses connections: nothing listens at its address and port."
    name = errno.errorcode.get(error.errno or 0, "no reason given")
    return f"The upstream cannot be reached ({name})."


@dataclass(slots=True, eq=False, repr=False)
class PcmStream:
    """One running generation; closing it makes the upstream stop (docs/contract.md section 3).

    Attributes:
        response: The answer, its headers read.
        parser: Of its body.
        timeouts: Bounds of its waits.
        limit: Of the wait for the first audio; then of each wait.
        ended: It was read to its end.
    """

    response: aiohttp.ClientResponse
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
            try:
                data = self.response.content.read_nowait()
                if not data:
                    with self.limit:
                        data = await self.response.content.readany()
            except FOREIGN_ERRORS as error:
                raise _translated(error) from error
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
        """Drop the connection unless the answer was read to its end. Synchronous, idempotent."""
        self.limit.close()
        if self.ended:
            self.response.release()
        else:
            self.response.close()


class UpstreamClient:
    """The process' one HTTP client for upstreams.

    Args:
        api_key: Bearer key for every upstream, or None.
        connections: Upper bound of open connections.
    """

    def __init__(self, api_key: str | None, connections: int) -> None:
        self._name, self._numbers = secrets.token_hex(8), itertools.count()
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=KEEP_ALIVE_SECONDS),
            read_bufsize=READ_BUFFER_BYTES,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("Accept-Encoding", "User-Agent"),
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def open(self, address: str, call: Call, timeouts: Timeouts) -> PcmStream:
        """Send a generation's request and wait for the answer's headers.

        Raises:
            UpstreamUnreachable, UpstreamTimeout, UpstreamProtocolError, UpstreamRejected.
        """
        limit = WaitLimit(asyncio.get_running_loop().time() + timeouts.first_audio_seconds)
        headers = {
            **self._headers,
            "Content-Type": "application/json",
            # The container makes this its own request id, and two alike collide (section 3).
            "X-Request-Id": f"{self._name}-{next(self._numbers)}",
        }
        try:
            with limit:
                response = await self._session.post(
                    address + call.path,
                    # A prompt with references is megabytes: as a file it is sent in pieces.
                    data=io.BytesIO(call.body) if len(call.body) > PIECE_BYTES else call.body,
                    headers=headers,
                    allow_redirects=False,
                    timeout=_connect_timeout(timeouts.connect_seconds),
                )
                if response.status != 200:  # noqa: PLR2004
                    raise await self._refusal(response)
        except FOREIGN_ERRORS as error:
            raise _translated(error) from error
        call.parser.begin(response.headers)
        return PcmStream(response, call.parser, timeouts, limit)

    async def get(self, address: str, path: str, timeout_seconds: float) -> bytes:
        """Fetch a small answer.

        Raises:
            UpstreamUnreachable, UpstreamTimeout, UpstreamProtocolError: also for a status other
                than 200 and a body above ANSWER_BODY_BYTES.
        """
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                self._session.get(
                    address + path, headers=self._headers, allow_redirects=False
                ) as response,
            ):
                if response.status != 200:  # noqa: PLR2004
                    raise await self._refusal(response)
                return await _read_bounded(response, ANSWER_BODY_BYTES)
        except FOREIGN_ERRORS as error:
            raise _translated(error) from error

    async def _refusal(self, response: aiohttp.ClientResponse) -> GatewayError:
        """The exception for an answer whose status is not 200."""
        if response.status == UNAUTHORIZED and not self._headers:
            response.release()
            return UpstreamProtocolError(
                "The upstream wants an API key, and GATEWAY_UPSTREAM_API_KEY is not set."
            )
        try:
            body = await _read_bounded(response, ERROR_BODY_BYTES)
        except UpstreamError as error:
            return error
        finally:
            response.release()
        return parse_error_body(response.status, body)


async def _read_bounded(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    body = bytearray()
    while data := await response.content.readany():
        body += data
        if len(body) > limit_bytes:
            response.close()
            raise UpstreamProtocolError("The upstream's answer is too long.")
    return bytes(body)
