"""Several workers: one service that shares slots, counts as one, and outlives each of them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from engines.simulator.waveform import expected_pcm
from gateway.server.workers import HANG_SECONDS, START_SECONDS, Heart, Workers, _Place
from loadtest.processes import (
    ServeProcess,
    answers,
    engine_state,
    running_engine,
    running_serve,
    wait_until,
)
from tests.server.test_shutdown import SENTENCE, VOICE, Stream, ask


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """A simulated engine that speaks six times as fast as one hears."""
    with running_engine("--voice", "simulated", "--tokens-per-second", "150") as supervisor:
        yield supervisor.address


def workers(serve: ServeProcess) -> list[psutil.Process]:
    """The living worker processes of a gateway."""
    found = []
    for child in psutil.Process(serve.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("spawn_main" in word for word in child.cmdline()):
                found.append(child)
    return found


def connections(serve: ServeProcess) -> dict[int, int]:
    """Clients that each worker holds, by process id."""
    port = int(serve.url.rpartition(":")[2])
    return {
        worker.pid: sum(
            one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port
            for one in worker.net_connections("tcp")
        )
        for worker in workers(serve)
    }


def metric(serve: ServeProcess, name: str) -> float:
    """The sum of a metric's samples over its labels."""
    text = httpx.get(serve.url + "/metrics").text
    return sum(map(float, re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))


def metric_of_living(serve: ServeProcess) -> float:
    """Requests counted so far, or -1 while nobody answers."""
    try:
        return metric(serve, "gateway_requests_total")
    except httpx.TransportError:
        return -1


def test_a_killed_worker_is_replaced_and_only_its_own_clients_notice(engine: str) -> None:
    """They see a broken connection; the engine stops for them; counters and gauges stay right."""
    with running_serve("--workers", "2", upstreams=engine, max_in_flight=64) as serve:
        wait_until(lambda: metric(serve, "gateway_slots") == 64, "both workers have slots")
        assert ask(serve, "Hi.").status_code == 200
        streams: list[Stream] = []
        for _ in range(16):
            streams.append(Stream(serve, SENTENCE * 2))
            if len(streams) > 3 and min(connections(serve).values()) > 0:
                break
        clients = connections(serve)
        victim = min(clients, key=lambda pid: clients[pid])
        assert 0 < clients[victim] < len(streams), "the connections went to both"
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: sum(s.error is not None for s in streams) == clients[victim], "aborts")
        wait_until(
            lambda: engine_state(engine)["aborted"] >= clients[victim],
            "the engine stops for them",
            10,
        )
        for stream in streams:
            stream.join()
        whole = expected_pcm(SENTENCE * 2, VOICE)
        heard = [bytes(stream.heard) for stream in streams if stream.error is None]
        assert heard == [whole] * (len(streams) - clients[victim])
        wait_until(lambda: len(workers(serve)) == 2, "another one took its place", 20)
        wait_until(lambda: metric(serve, "gateway_slots") == 64, "all slots are back", 20)
        wait_until(lambda: metric(serve, "gateway_in_flight_requests") == 0, "none is left", 10)
        assert metric(serve, "gateway_requests_total") == 1 + len(heard)


def test_counters_survive_many_deaths_in_a_folder_that_does_not_grow(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was counted stays counted, whoever dies, however often."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with running_serve("--workers", "2", upstreams=engine) as serve:
        (folder,) = tmp_path.glob("speech-gateway-*")
        files: set[str] = set()
        for number in (1, 2):
            wait_until(lambda: metric(serve, "gateway_slots") == 64, "both are live", 30)
            wait_until(lambda: answers(serve.url + "/ready"), "it is ready", 30)
            assert ask(serve, "Hi.").status_code == 200
            assert metric(serve, "gateway_requests_total") == number
            files |= {path.name for path in folder.iterdir()}
            for worker in workers(serve):
                worker.kill()
            wait_until(lambda: not workers(serve), "both are dead", 10)
        wait_until(lambda: metric_of_living(serve) == 2, "nothing was forgotten", 30)
        places = {re.sub(r"_[01]\.db$", "", name) for name in files}
        assert len(files) == 2 * len(places), "a file for each kind and place"
        assert {path.name for path in folder.iterdir()} <= files
    assert not folder.exists()


def test_slots_and_queue_places_are_shared_out(engine: str) -> None:
    """Two workers with one slot each never run more than two generations."""
    with running_serve("--workers", "2", upstreams=engine, max_in_flight=2, max_queued=32) as serve:
        wait_until(lambda: metric(serve, "gateway_slots") == 2, "both workers have slots")
        assert metric(serve, "gateway_queue_places") == 32
        wait_until(lambda: engine_state(engine)["running"] == 0, "the warm-ups are over")
        threads = [threading.Thread(target=ask, args=(serve, "Hello there.")) for _ in range(6)]
        for thread in threads:
            thread.start()
        most = 0
        while any(thread.is_alive() for thread in threads):
            # A health probe is a generation too, and takes a slot only where one is free.
            most = max(most, engine_state(engine)["running"])
        assert 1 <= most <= 2


def shares_of(serve: ServeProcess, crowd: int) -> list[int]:
    """How many of a crowd of clients each worker takes."""
    port = int(serve.url.rpartition(":")[2])
    with contextlib.ExitStack() as scope:
        clients = [
            scope.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(crowd)
        ]
        for client in clients:
            client.sendall(b"GET /health HTTP/1.1\r\nhost: gateway\r\n\r\n")
        for client in clients:
            assert client.recv(12) == b"HTTP/1.1 200"
        return list(connections(serve).values())


def test_a_crowd_is_spread_over_all_workers(engine: str) -> None:
    """No worker takes everybody while others have nothing to do."""
    with running_serve("--workers", "3", upstreams=engine) as serve:
        wait_until(lambda: min(shares_of(serve, 90)) >= 5, "each has some", 20)


def _cannot_start(place: int, heart: Heart, listener: socket.socket) -> None:
    del place, heart, listener
    sys.exit(3)  # as uvicorn does when the application's start fails


def _crash_at_once(place: int, heart: Heart, listener: socket.socket) -> None:
    del heart, listener
    print(place, file=sys.stderr)
    os._exit(1)


def test_a_start_that_cannot_succeed_ends_the_gateway_with_its_status() -> None:
    """It is no use to try for ever, and it must not look like success."""
    listener = socket.create_server(("127.0.0.1", 0))
    buried: list[int] = []
    assert Workers(_cannot_start, 2, listener, 1, buried.append).run() == 3
    assert buried


def test_workers_that_die_at_once_are_started_at_growing_intervals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A crash loop must not eat the machine."""
    listener = socket.create_server(("127.0.0.1", 0))
    deaths: list[int] = []
    supervisor = Workers(_crash_at_once, 1, listener, 1, deaths.append)
    pauses: list[float] = []
    wait = supervisor._wait

    def look(seconds: float) -> None:
        wait(seconds)
        (place,) = supervisor._places
        pauses.append(place.pause_seconds)
        if len(deaths) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(supervisor, "_wait", look)
    assert supervisor.run() == 0
    assert len(deaths) >= 3
    assert sorted(set(pauses))[:3] == [0.2, 0.4, 0.8]


def test_a_worker_whose_event_loop_stands_still_is_known_by_its_heart() -> None:
    """A slow start is no hang, and a pause of some seconds is none either."""
    now = time.monotonic()
    heart = Heart()
    place = _Place(0, heart=heart, started_at=now)
    assert not place.hangs(now + START_SECONDS - 1)
    assert place.hangs(now + START_SECONDS + 1)
    heart.beat()
    assert not place.hangs(now + HANG_SECONDS - 1)
    assert place.hangs(now + HANG_SECONDS + 2)


@pytest.mark.prove
def test_a_worker_that_is_stopped_is_replaced(engine: str) -> None:
    """It holds slots that nobody gets back from it."""
    with running_serve("--workers", "2", upstreams=engine) as serve:
        wait_until(lambda: min(shares_of(serve, 30)) > 0, "both serve", 20)
        victim = workers(serve)[0]
        victim.send_signal(signal.SIGSTOP)
        wait_until(lambda: not victim.is_running(), "it is gone", HANG_SECONDS + 20)
        wait_until(lambda: metric(serve, "gateway_slots") == 64, "another one serves", 20)
        assert ask(serve, SENTENCE).content == expected_pcm(SENTENCE, VOICE)
