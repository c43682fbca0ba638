"""Clients that send slowly, read slowly, or do neither: none of them holds what others need."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import psutil
import pytest

from engines.simulator.waveform import expected_pcm
from gateway.speech.long_text import MOST_AHEAD
from loadtest.processes import engine_state, running_serve
from tests.running import Gateway, running_engine, running_gateway, wait_until
from tests.sockets import connected, exchange, get, post, read_to_end, read_until, statuses

FAST = ("--voice", "simulated", "--tokens-per-second", "8000", "--max-running", "400")
CLOSE = "Connection: close"
SPEECH = {"model": "tts-1", "input": "Hello.", "voice": "mabel", "response_format": "pcm"}
LONG = {
    **SPEECH,
    "model": "tts-1",
    "input": "It was a bright cold day in April, and the clocks struck one. " * 600,
}
PATIENCE_SECONDS = 1.0
SMALL_RECEIVE_BYTES = 32 * 1024
SEGMENT_MEBIBYTES = 4  # of this text, with what the answer needs besides


@pytest.fixture(scope="module")
def engine_arguments() -> tuple[str, ...]:
    """It is much faster than anybody reads."""
    return FAST


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    """Little patience."""
    return {
        "head_timeout_seconds": PATIENCE_SECONDS,
        "body_timeout_seconds": PATIENCE_SECONDS,
        "send_timeout_seconds": PATIENCE_SECONDS,
        "max_connections": 20,
        "keep_alive_seconds": 2,
    }


@pytest.fixture(autouse=True)
def alive(gateway: Gateway) -> Iterator[None]:
    """After whoever came, the gateway speaks, and nothing is left of them."""
    yield
    assert statuses(exchange(gateway.url, post(SPEECH, CLOSE))) == [200]
    wait_until(lambda: not gateway.runtime.admission.in_flight, "no generation is left", 15)
    wait_until(lambda: not gateway.crowd.waiting, "no connection is left", 15)
    assert gateway.runtime.service.look_ahead.segments == 0


def running(engine: str) -> int:
    """Generations that the engine works on."""
    return int(engine_state(engine)["running"])


def drip(connection: socket.socket, data: bytes, pause_seconds: float) -> bytes:
    """Send some bytes, one after each pause, until the gateway answers; then read to the end."""
    connection.settimeout(pause_seconds)
    for byte in data:
        try:
            got = connection.recv(65536)
        except TimeoutError:
            with suppress(OSError):
                connection.send(bytes([byte]))
            continue
        connection.settimeout(10)
        return got + read_to_end(connection)
    raise AssertionError("the gateway never answered")


def test_a_head_that_drips_in_is_refused_with_408(gateway: Gateway) -> None:
    """The classic slow attack: a byte now and then, a connection for ever."""
    with connected(gateway.url) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX-Slow: ")
        assert statuses(drip(connection, b"a" * 100, PATIENCE_SECONDS / 5)) == [408]


def test_blank_lines_that_drip_in_are_refused_with_408(gateway: Gateway) -> None:
    """They belong to no request, but hold the connection just so."""
    with connected(gateway.url) as connection:
        assert statuses(drip(connection, b"\r\n" * 50, PATIENCE_SECONDS / 5)) == [408]


def test_a_second_request_that_drips_in_is_refused_with_408(gateway: Gateway) -> None:
    """A good first request buys no patience for the next."""
    with connected(gateway.url) as connection:
        connection.sendall(get("/ready"))
        assert statuses(read_until(connection, b'{"ready":true}')) == [200]
        connection.sendall(b"GET /hea")
        assert statuses(drip(connection, b"a" * 100, PATIENCE_SECONDS / 5)) == [408]


def test_a_body_that_stops_is_refused_with_408(gateway: Gateway) -> None:
    """What is promised must come."""
    answer = exchange(gateway.url, post(SPEECH)[:-5])
    assert statuses(answer) == [408]
    assert b"connection: close" in answer


def test_a_body_that_drips_in_is_refused_with_408(gateway: Gateway) -> None:
    """Always some progress, but slower than any line: it would take days."""
    with connected(gateway.url) as connection:
        connection.sendall(post(SPEECH, "Content-Length: 100000", length=False)[:-5])
        assert statuses(drip(connection, b" " * 100, PATIENCE_SECONDS / 5)) == [408]


def test_a_body_that_comes_slowly_but_steadily_is_waited_for(gateway: Gateway) -> None:
    """A poor line is no attack."""
    body = (
        b'{"model": "tts-1", "input": "Hello.", "voice": "mabel", "response_format": "pcm"'
        + b" " * 40_000
        + b"}"
    )
    request = post(body, CLOSE)
    pause = threading.Event()
    with connected(gateway.url) as connection:
        for start in range(0, len(request), 8000):
            connection.sendall(request[start : start + 8000])
            pause.wait(PATIENCE_SECONDS / 3)
        answer = read_to_end(connection)
    assert statuses(answer) == [200]


def test_a_body_that_nobody_reads_does_not_hold_the_connection(gateway: Gateway) -> None:
    """The answer is there at once; what it never needed must not keep a place."""
    with connected(gateway.url) as connection:
        connection.sendall(get("/ready", "Content-Length: 1000"))
        assert statuses(read_until(connection, b'{"ready":true}')) == [200]
        connection.settimeout(PATIENCE_SECONDS / 5)

        def closed() -> bool:
            try:
                connection.send(b"a")
                return connection.recv(10) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_until(closed, "it is closed", 15)


def test_a_connection_that_says_nothing_is_closed(gateway: Gateway) -> None:
    """Without a word: there is nothing to answer."""
    with connected(gateway.url) as connection:
        assert read_to_end(connection) == b""


def test_idle_connections_make_room_for_new_ones(gateway: Gateway) -> None:
    """However many sit there or drip: the oldest goes, and who has something to say is served."""
    with ExitStack() as scope:
        idle = [scope.enter_context(connected(gateway.url)) for _ in range(40)]
        for connection in idle[20:]:
            connection.sendall(b"GET /")
        assert statuses(exchange(gateway.url, post(SPEECH, CLOSE))) == [200]
        assert gateway.connections <= 20
        assert idle[0].recv(10) == b""


def test_above_the_limit_of_busy_connections_new_ones_are_told_503(engine: str) -> None:
    """Honest, at once, with the time of a next try; running answers are not touched."""
    with (
        running_gateway(upstreams=engine, max_connections=5) as full,
        ExitStack() as scope,
    ):
        wait_until(lambda: not full.connections, "nobody is there", 15)
        for _ in range(5):
            busy = connected(full.url, receive_bytes=SMALL_RECEIVE_BYTES)
            connection = scope.enter_context(busy)
            connection.sendall(post(LONG))
            read_until(connection, b"\r\n\r\n")
        answer = exchange(full.url, get())
        assert statuses(answer) == [503]
        assert b"retry-after: 1" in answer
        assert full.runtime.admission.in_flight >= 5


def test_a_client_that_stops_reading_is_cut_off_and_its_generation_ends(
    gateway: Gateway, engine: str
) -> None:
    """It holds a slot of the GPU: not longer than its patience."""
    cancelled = gateway.metric("gateway_requests_total", surface="openai", outcome="cancelled")
    with connected(gateway.url, receive_bytes=SMALL_RECEIVE_BYTES) as connection:
        connection.sendall(post(LONG))
        read_until(connection, b"\r\n\r\n")
        wait_until(lambda: not gateway.runtime.admission.in_flight, "its slot is free", 15)
        wait_until(lambda: not running(engine), "the engine is free", 15)
    count = gateway.metric("gateway_requests_total", surface="openai", outcome="cancelled")
    assert count == cancelled + 1


def test_a_client_that_reads_a_byte_now_and_then_is_cut_off_too(gateway: Gateway) -> None:
    """Some progress, but slower than any sound plays."""
    with connected(gateway.url, receive_bytes=SMALL_RECEIVE_BYTES) as connection:
        connection.sendall(post(LONG))
        read_until(connection, b"\r\n\r\n")

        pause = threading.Event()

        def cut_off() -> bool:
            with suppress(ConnectionResetError):
                connection.recv(100)
            pause.wait(PATIENCE_SECONDS / 10)
            return not gateway.runtime.admission.in_flight

        wait_until(cut_off, "its slot is free", 15)


def test_a_client_that_reads_at_the_pace_of_the_sound_hears_all_of_it(gateway: Gateway) -> None:
    """The engine is faster than the listener: it waits, and nothing is lost."""
    speech = {**LONG, "model": "tts-1", "input": LONG["input"][:2000]}
    pause = threading.Event()
    got = bytearray()
    with connected(gateway.url, receive_bytes=SMALL_RECEIVE_BYTES) as connection:
        connection.sendall(post(speech, CLOSE))
        while data := connection.recv(200_000):
            got += data
            pause.wait(len(data) / 4_000_000)
    assert got.endswith(b"\r\n0\r\n\r\n")
    assert len(got) > len(expected_pcm(speech["input"], "mabel")) * 0.9


def test_an_aborted_answer_ends_even_for_a_client_that_does_not_read(
    gateway: Gateway, engine: str
) -> None:
    """The engine fails while the client is behind: nothing may wait for it to catch up."""
    fault = {"next": ["cut-2000000"], "match": LONG["input"][:40]}
    httpx.post(engine + "/simulator/faults", json=fault).raise_for_status()
    with connected(gateway.url, receive_bytes=SMALL_RECEIVE_BYTES) as connection:
        connection.sendall(post(LONG))
        read_until(connection, b"\r\n\r\n")
        wait_until(lambda: not gateway.runtime.admission.in_flight, "its slot is free", 15)
        wait_until(lambda: not gateway.connections, "its connection is closed", 15)


def unread_answers(count: int) -> float:
    """Mebibytes that a gateway grows by while some clients read nothing of long answers."""
    with (
        running_engine(*FAST) as supervisor,
        running_serve(
            upstreams=supervisor.address,
            send_timeout_seconds=600,
            queue_timeout_seconds=600,
        ) as serve,
        ExitStack() as scope,
    ):
        process = psutil.Process(serve.process.pid)
        connections = [
            scope.enter_context(connected(serve.url, receive_bytes=SMALL_RECEIVE_BYTES))
            for _ in range(count)
        ]
        for connection in connections:
            connection.sendall(get("/ready"))
            read_until(connection, b"true")
        before = process.memory_info().rss
        for connection in connections:
            connection.sendall(post(LONG))
        read_until(connections[0], b"\r\n\r\n")
        pause = threading.Event()
        history = [0.0, -1.0]

        def settled() -> bool:
            pause.wait(0.5)
            history.append(tokens_made(supervisor.address))
            return len(set(history[-3:])) == 1

        wait_until(settled, "nothing moves any more", 60)
        return float(process.memory_info().rss - before) / 2**20


def tokens_made(engine: str) -> float:
    """Work that the engine has done so far."""
    text = httpx.get(engine + "/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("vllm:generation_tokens_total")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.mark.prove
def test_two_hundred_clients_that_read_nothing_cost_little_memory() -> None:
    """Of each that is served, one segment is held; of all together, some more made ahead."""
    assert unread_answers(200) < (64 + MOST_AHEAD) * SEGMENT_MEBIBYTES


def test_a_few_clients_that_read_nothing_cost_little_memory() -> None:
    """The same in small: the whole answers would be 20 times 100 MB."""
    assert unread_answers(20) < (20 + MOST_AHEAD) * SEGMENT_MEBIBYTES
