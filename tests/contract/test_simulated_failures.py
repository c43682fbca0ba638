"""docs/contract.md section 3 on the simulator: errors inside a 200, aborts, and deaths."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from engines.simulator.waveform import expected_pcm, read_waveform
from loadtest.processes import answers, free_port, wait_until
from tests.contract.simulators import (
    BYTES_PER_TOKEN,
    CHAT,
    LONG,
    SPEECH,
    TEXT,
    Simulator,
    read_bytes,
    simulator,
    speech_body,
)

ERROR = b'{"error": {"object": "error", "message": '
DEADLINE_SECONDS = 120.0


@pytest.fixture(scope="module")
def slow() -> Iterator[Simulator]:
    """One whose answers take a minute."""
    with simulator("--tokens-per-second", "100") as running:
        yield running


class Own:
    """A simulator in a process of its own, which nobody restarts."""

    def __init__(self, *arguments: str) -> None:
        port = free_port()
        command = [sys.executable, "-m", "engines.serve", "--voice", "simulated"]
        self.process = subprocess.Popen(
            [*command, "--port", str(port), "--exit-with-parent", *arguments],
            stdin=subprocess.PIPE,
        )
        self.simulator = Simulator(f"http://127.0.0.1:{port}")
        wait_until(lambda: answers(self.simulator.url + "/health"), "it is live")

    def close(self) -> None:
        """Whatever happened to it."""
        self.simulator.close()
        self.process.kill()
        self.process.wait(DEADLINE_SECONDS)
        assert self.process.stdin
        self.process.stdin.close()


def refuses(running: Simulator) -> bool:
    """Whether nobody listens; a connection that only waits in a backlog is no refusal."""
    address = urlsplit(running.url)
    try:
        with socket.create_connection((str(address.hostname), address.port or 80), 5):
            return False
    except ConnectionRefusedError:
        return True


@pytest.fixture
def own() -> Iterator[Own]:
    """One that may die."""
    process = Own("--tokens-per-second", "100", "--stall-on-sigterm")
    try:
        yield process
    finally:
        process.close()


def test_an_error_before_the_first_token_is_the_whole_body_of_a_200(engine: Simulator) -> None:
    """With a clean end."""
    (chunk,) = engine.http_chunks(speech_body(input="fault-raise " + TEXT))
    assert chunk.startswith(ERROR)
    assert chunk.endswith(b'"type": "BadRequestError", "param": null, "code": 400}}')


@pytest.mark.parametrize(("fault", "odd"), [("raiselate", 1), ("raiseeven", 0)])
def test_a_later_error_is_a_chunk_inside_the_audio(engine: Simulator, fault: str, odd: int) -> None:
    """What was buffered follows it, and a clean end; an odd length shifts those samples."""
    text = f"fault-{fault}-80640 {LONG}"
    chunks = engine.http_chunks(speech_body(input=text))
    assert [len(chunk) for chunk in chunks[:2]] == [32_640, 48_000]
    assert chunks[2].startswith(ERROR)
    assert len(chunks[2]) % 2 == odd
    assert len(chunks[3]) == 38_400
    assert len(chunks) == 4
    runs = read_waveform(b"".join(chunks)).runs
    assert len(runs) == (1 if odd else 2)


@pytest.mark.parametrize("bound", [0, 1, 48_000])
def test_a_cut_stream_ends_without_its_last_chunk(engine: Simulator, bound: int) -> None:
    """The client sees an incomplete body, with what was sent before."""
    with engine.connection(speech_body(input=f"fault-cut-{bound} {LONG}")) as connection:
        assert bound <= read_bytes(connection, 10_000_000) < bound + 500
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
        engine.speech(input=f"fault-cut-{bound} {LONG}")


def test_a_reset_is_no_answer_at_all(engine: Simulator) -> None:
    """Not even a status."""
    with pytest.raises(httpx.ReadError):
        engine.speech(input="fault-reset")


@pytest.mark.parametrize("fault", ["empty", "textonly"])
def test_no_audio_is_an_empty_200(engine: Simulator, fault: str) -> None:
    """As of a model that answers in text."""
    answer = engine.speech(input=f"fault-{fault} {LONG}")
    assert (answer.status_code, answer.content) == (200, b"")


def test_an_early_end_looks_like_success(engine: Simulator) -> None:
    """Also in the middle of a sample."""
    text = f"fault-truncate-50001 {LONG}"
    assert engine.speech(input=text).content == expected_pcm(text, "belinda")[:50_001]


def test_a_runaway_speaks_until_max_tokens(engine: Simulator) -> None:
    """Or murmurs."""
    loud = engine.speech(input="fault-runaway", max_tokens=500).content
    assert loud == expected_pcm("fault-runaway", "belinda", 492)
    quiet = engine.speech(input="fault-quiet-48000", max_tokens=500).content
    assert len(quiet) == 492 * BYTES_PER_TOKEN
    assert set(quiet[48_001::2]) <= {0, 255}


def test_500_is_plain_text(engine: Simulator) -> None:
    """As of a bug in the fork."""
    answer = engine.speech(input="fault-error")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")


@pytest.mark.parametrize("fault", ["hang", "stall-0", "stall-32640"])
def test_health_is_200_while_the_engine_hangs(engine: Simulator, fault: str) -> None:
    """Liveness says nothing about speech; the client that leaves frees the engine."""
    aborted = engine.state()["aborted"]
    with engine.connection(speech_body(input=f"fault-{fault} {LONG}")) as connection:
        engine.wait_for(running=1)
        if fault != "hang":
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
        assert engine.get("/health").status_code == 200
    engine.wait_for(running=0, aborted=aborted + 1)


@pytest.mark.parametrize("half_close", [False, True])
@pytest.mark.parametrize("path", [SPEECH, CHAT])
def test_a_client_that_leaves_is_noticed_at_once(
    slow: Simulator, path: str, *, half_close: bool
) -> None:
    """Long before its answer would end, also before the first audio; half-closing is leaving."""
    aborted = slow.state()["aborted"]
    body = speech_body(input="word " * 800)
    if path == CHAT:
        message = {"role": "user", "content": "word " * 800}
        body = {"messages": [message], "stream": not half_close}
    with slow.connection(body, path) as connection:
        slow.wait_for(running=1, on_gpu=1)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        else:
            connection.close()
        slow.wait_for(running=0, on_gpu=0, aborted=aborted + 1)


def test_a_reader_that_stops_holds_no_place_on_the_gpu(engine: Simulator) -> None:
    """Tokens are made whether or not anybody reads them."""
    with engine.connection(speech_body(input="word " * 300)):
        engine.wait_for(running=1, on_gpu=1)
        engine.wait_for(running=1, on_gpu=0)
    engine.wait_for(running=0)


def test_a_second_request_of_the_same_id_is_an_error_in_a_200(slow: Simulator) -> None:
    """Which is why a client's id must never be forwarded."""
    with slow.connection(speech_body(input="word " * 800)) as connection:
        connection.recv(15)
        body = speech_body(input=LONG)
        headers = {"X-Request-Id": "dup1"}
        with httpx.stream("POST", slow.url + SPEECH, json=body, headers=headers) as first:
            heard = first.iter_raw()
            assert next(heard)
            second = slow.post(SPEECH, body, **headers)
    assert second.status_code == 200
    assert b"Request id audiospeech-dup1 already running." in second.content


def test_the_voice_list_may_lie(engine: Simulator) -> None:
    """Other names, no JSON, or 500."""
    engine.plan(voices=["alloy"])
    assert engine.get("/v1/audio/voices").json() == ["alloy"]
    engine.plan(voices_text="<html>")
    assert engine.get("/v1/audio/voices").text == "<html>"
    engine.plan(voices_status=500)
    assert engine.get("/v1/audio/voices").status_code == 500
    engine.plan(voices=None)
    assert "belinda" in engine.get("/v1/audio/voices").json()


def test_state_tells_what_was_asked(engine: Simulator) -> None:
    """So that a gateway's tests can see what it sent; bounded."""
    for number in range(70):
        engine.speech(input=f"Number {number}.", max_tokens=20, seed=number)
    state = engine.state()
    assert len(state["requests"]) == 64
    last = state["requests"][-1]
    assert last["text"] == "Number 69."
    assert last["body"]["seed"] == 69
    assert last["headers"]["content-type"] == "application/json"
    assert last["max_tokens"] == 20
    assert httpx.post(engine.url + "/simulator/faults", json={"next": ["x"]}).status_code == 400


def test_faults_come_at_a_rate(engine: Simulator) -> None:
    """The same ones for the same seed."""

    def statuses() -> list[int]:
        engine.plan(rate=0.3, kinds=["error"], seed=3)
        return [engine.speech(input="Hi.").status_code for _ in range(40)]

    first = statuses()
    assert first == statuses()
    assert 4 <= first.count(500) <= 20
    engine.plan()
    assert engine.speech().status_code == 200


def test_a_closed_listener_refuses_and_comes_back(engine: Simulator) -> None:
    """Also where a supervisor holds the socket too; what is open goes on."""
    body = speech_body(input=f"fault-stall-32640 {LONG}")
    with engine.connection(body) as connection:
        assert read_bytes(connection, 32_640) >= 32_640
        engine.plan(refuse_seconds=1)
        with pytest.raises(httpx.ConnectError):
            engine.get("/health")
        wait_until(lambda: answers(engine.url + "/health"), "it listens again")
        assert engine.state()["running"] == 1
    engine.wait_for(running=0)


def test_a_death_cuts_every_stream(own: Own) -> None:
    """SIGKILL: incomplete bodies, then refused connections."""
    with ExitStack() as scope:
        others = [
            scope.enter_context(own.simulator.connection(speech_body(input="word " * 400)))
            for _ in range(3)
        ]
        own.simulator.wait_for(running=3)
        with pytest.raises(httpx.RemoteProtocolError):
            own.simulator.speech(input="fault-die-32640 " + LONG)
        assert own.process.wait(DEADLINE_SECONDS) == -signal.SIGKILL
        for other in others:
            try:
                data = b"".join(iter(lambda: other.recv(65_536), b""))  # noqa: B023
            except ConnectionResetError:
                continue
            assert not data.endswith(b"0\r\n\r\n")
    with pytest.raises(httpx.ConnectError):
        own.simulator.get("/health")


def test_sigterm_stalls_open_streams_without_an_end(own: Own) -> None:
    """The listener closes at once; the process lives until the client leaves, then ends with 0."""
    with own.simulator.connection(speech_body(input="word " * 800)) as connection:
        assert read_bytes(connection, 32_640) >= 32_640
        own.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(own.simulator), "it listens no more")
        connection.settimeout(1.0)
        with pytest.raises(TimeoutError):
            read_bytes(connection, 10_000_000)
        assert own.process.poll() is None
    assert own.process.wait(DEADLINE_SECONDS) == 0


def test_the_end_of_stdin_ends_the_engine(own: Own) -> None:
    """A parent that was killed leaves no orphan, whatever streams are open."""
    with own.simulator.connection(speech_body(input="fault-hang")):
        own.simulator.wait_for(running=1)
        assert own.process.stdin
        own.process.stdin.close()
        own.process.wait(DEADLINE_SECONDS)
    assert not Path(f"/proc/{own.process.pid}").exists()
