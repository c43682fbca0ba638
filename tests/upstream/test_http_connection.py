"""HTTP/1.1 to upstreams: whatever a server sends, in whatever pieces, and over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError, UpstreamProtocolError, UpstreamUnreachable
from gateway.upstream import client as upstream_client
from gateway.upstream import http_connection
from gateway.upstream.client import Timeouts, UpstreamClient
from gateway.upstream.dialect import Call
from gateway.upstream.http_connection import HEAD_BYTES, HttpConnection, connect
from gateway.upstream.parsers import SpeechParser
from tests.running import until

pytestmark = pytest.mark.anyio

PATIENT = Timeouts(connect_seconds=600, first_audio_seconds=600, idle_seconds=600)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\n"
WHOLE = {
    "a length": OK + b"Content-Length: 5\r\n\r\nhello",
    "chunks": OK
    + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nz: 1\r\n\r\n",
    "hints before it": b"HTTP/1.1 103 Early Hints\r\nContent-Length: 7\r\nLink: <a>\r\n\r\n"
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
    "a folded header": OK + b"a: b\r\n c\r\nContent-Length: 5\r\n\r\nhello",
    "a padded size": OK + b"Transfer-Encoding: chunked\r\n\r\n5  \r\nhello\r\n0\r\n\r\n",
}
ENDED_BY_THE_END = {
    "no length": OK + b"Connection: close\r\n\r\nhello",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "no coding": OK + b"Transfer-Encoding: identity\r\n\r\nhello",
}
NO_HTTP, CUT = "The upstream does not speak HTTP.", "The upstream cut its answer off."
BROKEN = {
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", NO_HTTP),
    "another protocol": (
        b"HTTP/1.1 101 No\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n",
        NO_HTTP,
    ),
    "two lengths": (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", NO_HTTP),
    "no HTTP, much of it": (b"SSH-2.0-OpenSSH_9.2\r\n" + b"a" * 2 * HEAD_BYTES, NO_HTTP),
    "a chunk without a size": (OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", NO_HTTP),
    "less than its length": (OK + b"Content-Length: 6\r\n\r\nhello", CUT),
    "no last chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", CUT),
    "nothing": (b"", "The upstream reset the connection."),
    "half a head": (OK + b"Content-Le", "The upstream reset the connection."),
    "an endless head": (OK + b"a: b\r\n" * (HEAD_BYTES // 3), "The upstream's answer is too long."),
}


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loop of `serve`, and that of Windows; their transports differ in more than speed."""
    return "asyncio", {"use_uvloop": request.param}


@asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server; yields its port."""
    running: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await serve(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):  # the client is gone, or the test over
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def sends(*answers: bytes, stays: bool) -> Serve:
    """Sends these in turn, one for each request; then closes the connection, or goes on."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            for answer in answers:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
            if not stays:
                return

    return serve


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[HttpConnection]:
    """A connection that is closed."""
    connection = await connect("127.0.0.1", port, tls=False, timeout_seconds=60)
    try:
        yield connection
    finally:
        connection.close()


async def ask(connection: HttpConnection) -> bytes:
    """One exchange."""
    connection.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"")
    async with asyncio.timeout(60):
        await connection.head()
        body = b""
        while data := await connection.receive():
            body += data
        return body


@pytest.mark.parametrize("name", WHOLE)
async def test_a_whole_answer_leaves_the_connection_for_another(name: str) -> None:
    """A new connection costs a round trip, and with TLS three."""
    async with serving(sends(WHOLE[name], stays=True)) as port, connected(port) as connection:
        for _ in range(3):
            assert (await ask(connection), connection.status) == (b"hello", 200)
            assert not {b"link", b"z"} & connection.headers.keys(), "of hints, and behind the body"
            assert connection.end()


@pytest.mark.parametrize("name", ENDED_BY_THE_END)
async def test_an_answer_without_a_length_ends_with_its_connection(name: str) -> None:
    """Small servers of one's own often answer so."""
    serve = sends(ENDED_BY_THE_END[name], stays=False)
    async with serving(serve) as port, connected(port) as connection:
        assert await ask(connection) == b"hello"
        assert not connection.end()


async def test_each_answer_has_its_own_headers() -> None:
    """The length of an earlier one says nothing of one that has none."""
    serve = sends(WHOLE["a length"], ENDED_BY_THE_END["no length"], stays=False)
    async with serving(serve) as port, connected(port) as connection:
        assert await ask(connection) == b"hello"
        assert connection.end()
        assert await ask(connection) == b"hello"


async def test_an_upstream_that_wants_no_further_request_gets_none() -> None:
    """It would reset the connection under the next one."""
    answer = OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello"
    async with serving(sends(answer, stays=True)) as port, connected(port) as connection:
        assert await ask(connection) == b"hello"
        assert not connection.end()


async def test_what_was_not_taken_of_an_answer_is_not_taken_for_the_next_one() -> None:
    """A runaway is stopped while the engine has sent all of it."""
    long = OK + b"Content-Length: 100000\r\n\r\n" + bytes(100_000)
    serve = sends(long, WHOLE["a length"], stays=True)
    async with serving(serve) as port, connected(port) as connection, asyncio.timeout(60):
        connection.ask(b"GET / HTTP/1.1\r\n\r\n", b"")
        await until(lambda: connection.complete)
        assert connection.end()
        assert await ask(connection) == b"hello"


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reset the connection."""
    at_once = struct.pack("ii", 1, 0)  # struct linger
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    writer.transport.abort()


async def test_a_reset_is_no_end_of_an_answer() -> None:
    """A process that is killed resets its connections."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await sends(ENDED_BY_THE_END["no length"], stays=False)(reader, writer)
        await received.wait()
        await reset(reader, writer)

    received = asyncio.Event()
    async with serving(serve) as port, connected(port) as connection, asyncio.timeout(60):
        connection.ask(b"GET / HTTP/1.1\r\n\r\n", b"")
        await connection.head()
        received.set()
        await until(lambda: not connection.reusable)
        with pytest.raises(UpstreamProtocolError, match=CUT):
            await connection.receive()


@pytest.mark.parametrize("serve", [reset, sends(stays=False)], ids=["reset", "closed"])
async def test_a_connection_that_its_upstream_drops_while_it_is_idle_is_not_used(
    serve: Serve,
) -> None:
    """Servers keep idle connections for some time of their own."""
    async with serving(serve) as port, connected(port) as connection, asyncio.timeout(60):
        await until(lambda: not connection.reusable)


async def test_a_connection_that_is_about_to_close_is_not_used() -> None:
    """The event loop tells its end a moment before it is lost."""
    async with serving(sends(b"", stays=True)) as port, connected(port) as connection:
        connection.eof_received()
        assert not connection.reusable


async def test_an_upstream_may_close_after_every_answer() -> None:
    """It need not say so; the next request goes over a new connection."""
    async with serving(sends(WHOLE["a length"], stays=False)) as port:
        client = UpstreamClient(None)
        for _ in range(3):
            assert await client.get(f"http://127.0.0.1:{port}", "/", 60) == b"hello"
            await asyncio.sleep(0.05)  # its end comes
        client.close()


@pytest.mark.parametrize("end", [b"", OK + b"Content-Le"])
async def test_a_list_is_asked_for_again_where_an_idle_connection_brings_no_answer(
    end: bytes,
) -> None:
    """A server may close it at that very moment: that is no reason to take an upstream out."""
    answers = sends(WHOLE["a length"], end, stays=False)
    async with serving(answers) as port, asyncio.timeout(60):
        client, url = UpstreamClient(None), f"http://127.0.0.1:{port}"
        crowd = [client.get(url, "/", 60) for _ in range(3)]
        assert await asyncio.gather(*crowd) == [b"hello"] * 3
        assert [await client.get(url, "/", 60) for _ in range(5)] == [b"hello"] * 5
        client.close()


async def test_a_generation_is_not_asked_for_twice() -> None:
    """It may run already; `retry` decides, and tells the prober."""
    async with serving(sends(WHOLE["a length"], b"", stays=False)) as port, asyncio.timeout(60):
        client, url = UpstreamClient(None), f"http://127.0.0.1:{port}"
        await client.get(url, "/", 60)
        with pytest.raises(UpstreamUnreachable):
            await client.open(url, Call("/v1/audio/speech", b"{}", SpeechParser()), PATIENT)
        client.close()


async def test_a_connection_whose_upload_was_not_read_is_not_used_again() -> None:
    """The next request would wait behind the rest of it."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(WHOLE["a length"])
        await asyncio.Event().wait()

    async with serving(refuse) as port, connected(port) as connection, asyncio.timeout(60):
        connection.ask(b"POST / HTTP/1.1\r\n\r\n", bytes(64 * 1024 * 1024))
        await connection.head()
        assert await connection.receive() == b"hello"
        assert not connection.end()


async def test_what_a_crowd_has_opened_is_closed_when_few_are_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else hundreds of connections would stay for the one request a second that comes after it."""
    monkeypatch.setattr(upstream_client, "KEEP_ALIVE_SECONDS", 0.1)
    connections, crowd = 0, asyncio.Barrier(3)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            await reader.readuntil(b"\r\n\r\n")
            await crowd.wait()
            writer.write(WHOLE["a length"])
            await sends(WHOLE["a length"], stays=True)(reader, writer)
        finally:
            connections -= 1

    async with serving(serve) as port, asyncio.timeout(60):
        client, url = UpstreamClient(None), f"http://127.0.0.1:{port}"
        await asyncio.gather(*[client.get(url, "/", 60) for _ in range(3)])
        assert connections == 3
        while connections > 1:
            await client.get(url, "/", 60)
        client.close()


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_answer_is_an_error(name: str) -> None:
    """Half an answer must never look like a whole one."""
    answer, message = BROKEN[name]
    async with serving(sends(answer, stays=False)) as port, connected(port) as connection:
        with pytest.raises(GatewayError) as caught:
            await ask(connection)
        assert caught.value.message == message
        with pytest.raises(GatewayError):
            await connection.receive()
        assert not connection.end()


@pytest.mark.parametrize(
    "tail", [b"\0", WHOLE["a length"], b"HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\nx"]
)
async def test_what_follows_a_whole_answer_is_never_taken_for_the_next_one(tail: bytes) -> None:
    """Else one client could hear what another one asked for."""
    for answer in WHOLE.values():
        async with serving(sends(answer + tail, stays=True)) as port, connected(port) as connection:
            assert (await ask(connection), connection.status) == (b"hello", 200)
            assert not connection.end()


async def test_bytes_that_nobody_asked_for_close_an_idle_connection() -> None:
    """They could only be the answer to a request that comes later."""
    for asked in (False, True):
        serve = sends(WHOLE["a length"], stays=True)
        async with serving(serve) as port, connected(port) as connection:
            if asked:
                await ask(connection)
                assert connection.end()
            connection.data_received(WHOLE["a length"])
            assert not connection.reusable


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(WHOLE)), st.sets(st.integers(1, 120)))
def test_an_answer_may_come_in_any_pieces(name: str, cuts: set[int]) -> None:
    """TCP keeps no boundaries."""

    async def feed() -> None:
        async with serving(sends(b"", stays=True)) as port, connected(port) as connection:
            connection.ask(b"", b"")
            answer, at, body = WHOLE[name], 0, b""
            for cut in (*sorted(cuts), len(answer)):
                if answer[at:cut]:
                    connection.data_received(answer[at:cut])
                    body += connection.take()
                    at = cut
            assert (body, connection.complete, connection.end()) == (b"hello", True, True)

    asyncio.run(feed())


async def test_what_is_not_taken_is_not_read() -> None:
    """A slow client slows the engine down, and fills no memory."""
    sent_bytes = 0
    stuck = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent_bytes
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"Content-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(bytes(65536))
            sent_bytes += 65536
            try:
                async with asyncio.timeout(0.5):
                    await writer.drain()
            except TimeoutError:
                stuck.set()
                await writer.drain()

    async with serving(serve) as port, connected(port) as connection, asyncio.timeout(60):
        connection.ask(b"GET / HTTP/1.1\r\n\r\n", b"")
        await connection.head()
        await stuck.wait()
        held, sent_until_then = len(connection.take()), sent_bytes
        assert 0 < held <= 512 * 1024
        while sent_bytes < sent_until_then + 4 * 1024 * 1024:  # it goes on when it is taken
            assert await connection.receive()


async def test_closing_ends_an_upload_as_well() -> None:
    """A client that leaves frees the engine at once, also of the rest of its recordings."""
    gone, closed = asyncio.Event(), asyncio.Event()
    size, received_bytes = 30_000_000, 0

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        nonlocal received_bytes
        await reader.readuntil(b"\r\n\r\n")
        await closed.wait()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                received_bytes += len(data)
        gone.set()

    async with serving(serve) as port, connected(port) as connection, asyncio.timeout(60):
        connection.ask(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size, bytes(size))
        await asyncio.sleep(0)
        connection.close()
        closed.set()
        await gone.wait()
        assert received_bytes < size


async def test_a_stream_that_was_closed_reads_no_other_answer() -> None:
    """Its connection may carry another client's by then."""
    audio = OK + b"Content-Length: 6400\r\n\r\n" + bytes(range(1, 101)) * 64
    async with serving(sends(audio, stays=True)) as port:
        client, address = UpstreamClient(None), f"http://127.0.0.1:{port}"
        call = Call("/v1/audio/speech", b"", SpeechParser())
        stream = await client.open(address, call, PATIENT)
        assert await stream.read()
        assert not await stream.read()
        stream.close()
        other = await client.open(address, Call(call.path, b"", SpeechParser()), PATIENT)
        stream.close()
        stream.ended = False
        with pytest.raises(UpstreamProtocolError):
            await stream.read()
        assert await other.read(), "the second close was not of its connection"
        other.close()
        client.close()


@pytest.mark.parametrize(
    ("address", "key", "told"),
    [
        ("http://u%40:p%3A@{}/a%20b", None, b"authorization: basic dua6cdo="),
        ("http://u:p@{}/a b", "k", b"authorization: bearer k"),
        ("http://{}/a b", None, b"accept: */*"),
    ],
)
async def test_an_address_may_hold_a_password_and_a_path(
    address: str, key: str | None, told: bytes
) -> None:
    """As proxies in front of engines want them."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).lower())
        writer.write(WHOLE["a length"])

    async with serving(serve) as port:
        client = UpstreamClient(key)
        host = f"127.0.0.1:{port}"
        assert await client.get(address.format(host), "/v1/models", 60) == b"hello"
        client.close()
    lines = heads[0].split(b"\r\n")
    assert lines[0] == b"get /a%20b/v1/models http/1.1"
    assert b"host: " + host.encode() in lines
    assert told in lines
    assert len([line for line in lines if line.startswith(b"authorization")]) == (b"auth" in told)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for `localhost`, signed by itself, and its key, in one file."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed (apt-get install openssl)")
    made = tmp_path_factory.mktemp("tls") / "localhost.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost",
         "-keyout", made, "-out", made.with_suffix(".crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    made.write_bytes(made.read_bytes() + made.with_suffix(".crt").read_bytes())
    return made


@pytest.mark.parametrize(
    ("host", "trusted"), [("localhost", True), ("localhost", False), ("127.0.0.1", True)]
)
async def test_tls_is_spoken_with_a_certificate_that_is_checked(
    host: str, certificate: Path, monkeypatch: pytest.MonkeyPatch, *, trusted: bool
) -> None:
    """Text and key go to nobody else; a private authority is told with SSL_CERT_FILE."""
    offered = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    offered.load_cert_chain(certificate)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setattr(ssl, "create_default_context", inspect.unwrap(ssl.create_default_context))
    http_connection._tls.cache_clear()
    audio = OK + b"Content-Length: 200000\r\n\r\n" + bytes(200_000)
    try:
        async with serving(sends(audio, stays=True), offered) as port:
            client = UpstreamClient(None)
            asked = client.get(f"https://{host}:{port}", "/v1/models", 60)
            if trusted and host == "localhost":
                assert await asked == bytes(200_000)
            else:
                with pytest.raises(UpstreamUnreachable, match="TLS certificate"):
                    await asked
            client.close()
    finally:
        http_connection._tls.cache_clear()


async def test_a_host_without_one_of_its_addresses_is_reached_by_the_other() -> None:
    """`localhost` is ::1 first on many machines, where engines often listen on IPv4 alone."""
    async with serving(sends(WHOLE["a length"], stays=True)) as port:
        client = UpstreamClient(None)
        assert await client.get(f"http://localhost:{port}", "/", 60) == b"hello"
        client.close()
