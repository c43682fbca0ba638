"""Any bytes at all at the socket: no server's error, no traceback, no connection left behind.

Requests that are good are cut, flipped, doubled and sent in pieces of any size; garbage is sent as
it is. Whatever comes back is one clear answer after another, and then the end.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.running import Gateway, wait_until
from tests.sockets import connected, exchange, get, post, read_to_end, statuses

FAST = ("--voice", "simulated", "--tokens-per-second", "20000")
CLOSE = "Connection: close"
SPEECH = {"model": "tts-1", "input": "Hi.", "voice": "mabel", "response_format": "pcm"}
BOUND_SECONDS = 0.5  # of heads and bodies here: a connection lives little longer
BATCH = 16  # connections at once: most of them wait for their bound
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="input"\r\n\r\nHi.\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--b--\r\n'
)
CHUNKED = b'11\r\n{"input": "Hi."}\n\r\n0\r\nX-Trailer: a\r\n\r\n'
GOOD = [
    get("/health", CLOSE),
    get("/v1/models", CLOSE, "Authorization: Bearer key", "Cookie: a=b"),
    get("/v1/audio/voices?legacy=true&limit=3", CLOSE, "Accept: */*"),
    get("/nowhere", "Expect: 100-continue", CLOSE),
    post(SPEECH, CLOSE),
    post({"text": "Hi.", "stream": True}, CLOSE, path="/generate"),
    post(b'[{"text": "Hi."}]', CLOSE, path="/generate/batch"),
    post(SPEECH, "Expect: 100-continue", CLOSE),
    post(CHUNKED, "Transfer-Encoding: chunked", CLOSE, length=False),
    post(FORM, "Content-Type: multipart/form-data; boundary=b", CLOSE),
    post(SPEECH, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"),
    get("/health") + post(SPEECH) + get("/ready", CLOSE),
]
FAST_RUN = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # a failure says its bytes; to shrink it takes minutes of sockets
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
LONG_RUN = settings(FAST_RUN, max_examples=300, derandomize=False)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good request with some of its bytes, lines or its length changed."""
    data = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "insert", "cut", "double", "mark", "drop"])):
            case "flip":
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "insert":
                data[at:at] = draw(st.binary(max_size=20))
            case "cut":
                del data[at:]
            case "double":
                lines = bytes(data).split(b"\r\n")
                line = draw(st.integers(0, len(lines) - 1))
                data = bytearray(b"\r\n".join([*lines[: line + 1], *lines[line:]]))
            case "mark":
                mark = draw(st.sampled_from([b"\r", b"\n", b"\r\n\r\n", b":", b" ", b"\0", b"%"]))
                data[at:at] = mark
            case "drop":
                del data[at : at + draw(st.integers(1, 30))]
    return bytes(data)


ANYTHING = st.one_of(
    mutated(), mutated(), st.binary(max_size=300), st.lists(mutated(), max_size=3).map(b"".join)
)
CUTS = st.lists(st.integers(0, 2000), max_size=5)
BATCHES = st.lists(st.tuples(ANYTHING, CUTS), min_size=BATCH, max_size=BATCH)


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    """Little patience."""
    return {
        "head_timeout_seconds": BOUND_SECONDS,
        "body_timeout_seconds": BOUND_SECONDS,
        "keep_alive_seconds": 1,
    }


@pytest.fixture(autouse=True)
def no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that was sent may be a bug's occasion."""
    yield
    assert [one for one in caplog.records if one.levelno >= logging.ERROR or one.exc_info] == []


def send(connection: socket.socket, data: bytes, cuts: list[int]) -> None:
    """Send some bytes in pieces.

    The end of the sending is not told: that would be a way for the gateway to see it.
    """
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    with suppress(ConnectionResetError, BrokenPipeError):
        for start, end in pairwise(edges):
            connection.sendall(data[start:end])


def check(gateway: Gateway, batch: list[tuple[bytes, list[int]]]) -> None:
    """Whatever was sent, what came back is in order, and the connection ends."""
    with ExitStack() as scope:
        connections = [scope.enter_context(connected(gateway.url)) for _ in batch]
        for connection, (data, cuts) in zip(connections, batch, strict=True):
            send(connection, data, cuts)
        for connection, (data, _) in zip(connections, batch, strict=True):
            answer = read_to_end(connection)
            assert not answer or answer.startswith(b"HTTP/1.1 "), data
            assert all(status < 500 for status in statuses(answer)), (data, answer[:500])
            assert b"Traceback" not in answer
    assert statuses(exchange(gateway.url, get("/health", CLOSE))) == [200]


def nothing_is_left(gateway: Gateway) -> None:
    """It speaks, and holds nothing of what came before."""
    assert statuses(exchange(gateway.url, post(SPEECH, CLOSE))) == [200]
    wait_until(lambda: not gateway.connections, "every connection is closed", 15)
    wait_until(lambda: not gateway.runtime.admission.in_flight, "every slot is free", 15)
    assert not gateway.crowd.waiting
    assert gateway.crowd.held_bytes == 0


def test_any_bytes_get_a_clear_end(gateway: Gateway) -> None:
    """Garbage, half requests, doubled headers, in pieces: an answer below 500, and a close."""

    @FAST_RUN
    @given(batch=BATCHES)
    def run(batch: list[tuple[bytes, list[int]]]) -> None:
        check(gateway, batch)

    run()
    nothing_is_left(gateway)


@pytest.mark.prove
def test_any_bytes_get_a_clear_end_however_long_one_tries(gateway: Gateway) -> None:
    """The same, other bytes every time."""

    @LONG_RUN
    @given(batch=BATCHES)
    def run(batch: list[tuple[bytes, list[int]]]) -> None:
        check(gateway, batch)

    run()
    nothing_is_left(gateway)


@pytest.mark.parametrize("good", GOOD[:-2], ids=range(len(GOOD) - 2))
def test_a_good_request_may_come_in_any_two_pieces(gateway: Gateway, good: bytes) -> None:
    """Networks cut where they like; the answer is the same."""
    whole = statuses(exchange(gateway.url, good))
    for cut in range(1, len(good), 7):
        with connected(gateway.url) as connection:
            send(connection, good, [cut])
            assert statuses(read_to_end(connection)) == whole


def descriptors() -> int:
    """Open files of this process, the gateway's among them."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_five_hundred_bad_connections_leave_nothing_behind(gateway: Gateway) -> None:
    """Neither descriptors nor tasks: refused, cut off, abandoned in the middle."""
    loop = gateway.loop
    assert loop is not None
    nothing_is_left(gateway)
    kinds = [b"\0\1garbage\r\n\r\n", post(SPEECH)[:-5], get("/health"), b"GET / HT", post(SPEECH)]

    def tasks() -> int:
        return len(asyncio.all_tasks(loop))

    before = descriptors(), tasks()
    for number in range(500):
        with connected(gateway.url) as connection:
            connection.sendall(kinds[number % len(kinds)])
            if number % len(kinds) == 2:
                connection.recv(100)
    nothing_is_left(gateway)
    gc.collect()
    wait_until(lambda: tasks() <= before[1], "no task is left", 15)
    wait_until(lambda: descriptors() <= before[0] + 2, "no descriptor is left", 15)
