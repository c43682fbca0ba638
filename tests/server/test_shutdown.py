"""How the gateway ends: what runs is finished, the rest is cut honestly, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from engines.simulator.waveform import expected_pcm
from loadtest.processes import (
    ServeProcess,
    engine_state,
    free_port,
    running_engine,
    running_serve,
    wait_until,
)
from tests.running import namespaces_can_be_made, running_gateway

VOICE = "belinda"
SENTENCE = "It was a bright cold day in April, and the clocks of the town were striking one."


@pytest.fixture(scope="module")
def engine_arguments() -> tuple[str, ...]:
    """It speaks six times as fast as one hears."""
    return ("--tokens-per-second", "120")


def body(text: str, **fields: Any) -> dict[str, Any]:
    """A request for raw samples."""
    return {"model": "tts-1", "input": text, "voice": VOICE, "response_format": "pcm", **fields}


def ask(serve: ServeProcess, text: str, **fields: Any) -> httpx.Response:
    """Ask, and wait for the whole answer."""
    return httpx.post(serve.url + "/v1/audio/speech", json=body(text, **fields), timeout=120)


def refuses(serve: ServeProcess) -> bool:
    """Whether nobody listens any more; a connection that is not answered is another thing."""
    try:
        httpx.get(serve.url + "/health", timeout=1)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        return False
    return False


class Stream:
    """A streamed answer that is read in the background once it has begun."""

    def __init__(self, serve: ServeProcess, text: str) -> None:
        self.begun = threading.Event()
        self.heard = bytearray()
        self.error: Exception | None = None
        self._serve = serve
        self._text = text
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        assert self.begun.wait(120)

    def _read(self) -> None:
        try:
            url = self._serve.url + "/v1/audio/speech"
            with httpx.stream("POST", url, json=body(self._text), timeout=120) as answer:
                for data in answer.iter_raw():
                    self.heard += data
                    self.begun.set()
        except httpx.TransportError as error:
            self.error = error
        finally:
            self.begun.set()

    @property
    def runs(self) -> bool:
        """Whether it is still being read."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join(120)
        assert not self._thread.is_alive()


def test_at_sigterm_new_clients_are_refused_and_a_running_stream_is_finished(
    engine: str,
) -> None:
    """The listener closes at once; a client that listens hears the end."""
    with running_serve(upstreams=engine) as serve:
        stream = Stream(serve, SENTENCE * 2)
        serve.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(serve), "no new client is taken")
        assert stream.runs, "while the old ones are served"
        stream.join()
        assert stream.error is None
        assert bytes(stream.heard) == expected_pcm(SENTENCE * 2, VOICE)
        assert serve.process.wait(120) == 0


def test_what_is_not_done_when_the_drain_is_over_is_cut_honestly(engine: str) -> None:
    """A begun answer breaks off, one that has not begun is a 503, and the engine is told."""
    with (
        running_serve(upstreams=engine, drain_seconds=0.3) as serve,
        ThreadPoolExecutor() as threads,
    ):
        wait_until(lambda: engine_state(engine)["running"] == 0, "the warm-ups are over")
        silent = threads.submit(ask, serve, "This one never begins. fault-hang")
        buffered = threads.submit(ask, serve, SENTENCE * 2, stream=False)
        stream = Stream(serve, SENTENCE * 3)
        wait_until(lambda: engine_state(engine)["running"] == 3, "all three run")
        assert serve.stop() == 0
        stream.join()
        assert isinstance(stream.error, httpx.TransportError)
        assert 0 < len(stream.heard) < len(expected_pcm(SENTENCE * 3, VOICE))
        for answer in (silent.result(120), buffered.result(30)):
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["connection"] == "close"
            assert answer.json()["error"]["code"] == "shutting_down"
        wait_until(lambda: engine_state(engine)["running"] == 0, "the engine runs nothing")


def test_those_who_wait_in_line_are_told_at_once(engine: str) -> None:
    """They could try another gateway meanwhile; who has a slot keeps it."""
    with (
        running_serve(upstreams=engine, max_in_flight=2) as serve,
        ThreadPoolExecutor() as threads,
    ):
        answers = [threads.submit(ask, serve, SENTENCE) for _ in range(6)]

        def waiting() -> bool:
            text = httpx.get(serve.url + "/metrics").text
            queued = float(text.split("\ngateway_queued_requests ")[1].split()[0])
            running = float(text.split("\ngateway_in_flight_requests ")[1].split()[0])
            return queued > 0 and queued + running == len(answers)

        wait_until(waiting, "some wait")
        serve.process.send_signal(signal.SIGTERM)
        statuses = sorted(answer.result(120).status_code for answer in answers)
        assert set(statuses) == {200, 503}
        refused = [a.result() for a in answers if a.result().status_code == 503]
        assert all(answer.headers["retry-after"] == "1" for answer in refused)
        spoken = [a.result() for a in answers if a.result().status_code == 200]
        assert all(answer.content == expected_pcm(SENTENCE, VOICE) for answer in spoken)
        assert serve.process.wait(120) == 0


def test_a_long_text_is_spoken_to_its_end_during_the_drain() -> None:
    """Its later segments are no new requests; a buffered answer is whole as well."""
    text = " ".join([SENTENCE] * 40)
    with (
        running_engine("--voice", "simulated", "--tokens-per-second", "1200") as engine,
        running_serve(upstreams=engine.address, max_in_flight=3) as serve,
        ThreadPoolExecutor() as threads,
    ):
        asked = engine_state(engine.address)["requests_total"]
        buffered = threads.submit(ask, serve, SENTENCE * 10, response_format="wav", stream=False)
        wait_until(lambda: engine_state(engine.address)["requests_total"] > asked, "it has begun")
        stream = Stream(serve, text)
        segments = engine_state(engine.address)["requests_total"]
        serve.process.send_signal(signal.SIGTERM)
        stream.join()
        assert stream.error is None
        answer = buffered.result(120)
        assert answer.status_code == 200
        assert int(answer.headers["content-length"]) == len(answer.content)
        assert len(answer.content) > 40 * 48_000
        assert len(stream.heard) > 200 * 48_000
        assert engine_state(engine.address)["requests_total"] > segments
        assert serve.process.wait(120) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(engine: str, number: signal.Signals) -> None:
    """Whoever asks twice does not want to wait."""
    with (
        running_serve(upstreams=engine, drain_seconds=600) as serve,
        ThreadPoolExecutor() as threads,
    ):
        wait_until(lambda: engine_state(engine)["running"] == 0, "the warm-ups are over")
        answer = threads.submit(ask, serve, "This one never begins. fault-hang")
        wait_until(lambda: engine_state(engine)["running"] == 1, "it runs")
        left = psutil.Process(serve.process.pid).children(recursive=True)
        serve.process.send_signal(number)
        wait_until(lambda: refuses(serve), "the drain has begun")
        serve.process.send_signal(number)
        assert serve.process.wait(15) == 0
        assert answer.exception(15) is not None or answer.result().status_code == 503
        wait_until(lambda: engine_state(engine)["running"] == 0, "the engine runs nothing")
        wait_until(lambda: not any(child.is_running() for child in left), "nothing is left")


def test_while_it_drains_it_is_not_ready_and_takes_no_speech(engine: str) -> None:
    """On a connection that is open already, the answer is an honest 503."""
    with running_gateway(upstreams=engine) as gateway, httpx.Client(timeout=120) as client:
        assert client.get(gateway.url + "/ready").status_code == 200
        loop = gateway.loop
        assert loop is not None
        loop.call_soon_threadsafe(gateway.runtime.drain.begin)
        wait_until(lambda: client.get(gateway.url + "/ready").status_code == 503, "not ready")
        assert client.get(gateway.url + "/health").status_code == 200
        for path, what in (("/v1/audio/speech", body(SENTENCE)), ("/generate", {"text": "Hi."})):
            answer = client.post(gateway.url + path, json=what)
            assert answer.status_code == 503, path
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["connection"] == "close"
        assert gateway.metric("gateway_rejections_total", reason="shutdown") == 2


def test_a_refused_port_is_no_success() -> None:
    """A start that failed must not look like an orderly end to whoever restarts it."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", "--host", "192.0.2.1"],
        env={**os.environ, "GATEWAY_UPSTREAMS": "http://127.0.0.1:1"},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2


@pytest.mark.root
@pytest.mark.skipif(not namespaces_can_be_made(), reason="no process-id namespace can be made")
def test_as_process_1_of_a_container_it_drains_and_ends_with_status_0(engine: str) -> None:
    """Process 1 gets only signals that it handles."""
    port = free_port()
    inner = f"{sys.executable} -m gateway serve --port {port}"
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *inner.split()]
    environment = {**os.environ, "GATEWAY_UPSTREAMS": engine}
    with subprocess.Popen(command, env=environment) as process:
        serve = ServeProcess(f"http://127.0.0.1:{port}", process)
        try:
            wait_until(lambda: not refuses(serve), "the gateway is live")
            wait_until(lambda: ask(serve, "Hi.").status_code == 200, "the gateway is ready")
            first = psutil.Process(process.pid).children()[0]
            stream = Stream(serve, SENTENCE)
            first.send_signal(signal.SIGTERM)
            stream.join()
            assert stream.error is None
            assert bytes(stream.heard) == expected_pcm(SENTENCE, VOICE)
            assert process.wait(120) == 0
        finally:
            process.kill()
