"""Crowds: more requests than can be spoken, people who leave, and hours of both."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

import psutil
import pytest

from gateway.app import CODEC_THREADS
from loadtest import overload, soak
from loadtest.processes import engine_state, running_engine, running_serve, wait_until

MEBIBYTE = 1 << 20
# The codecs' pool and asyncio's own (concurrent.futures: five threads at one core, one more each).
POOLED_THREADS = CODEC_THREADS + min(32, (os.cpu_count() or 1) + 4)


@dataclass(frozen=True, slots=True)
class Before:
    """What a gateway holds while nothing runs."""

    descriptors: int
    threads: int
    memory_bytes: int


def holds(process: psutil.Process) -> Before:
    """Descriptors, threads and resident memory of a process."""
    return Before(process.num_fds(), process.num_threads(), process.memory_info().rss)


def running(engine: str) -> int:
    """Generations that run on a simulated engine."""
    return int(engine_state(engine)["running"])


def check_overload(found: overload.Overload, queue_seconds: float) -> None:
    """The engine stays busy, nobody hears half an answer, and the memory has a bound."""
    assert found.failed == 0
    assert found.refused > found.complete > 0
    assert found.goodput >= 0.95 * found.best
    assert found.first_audio_most_seconds <= queue_seconds
    assert found.memory_growth_bytes < 64 * MEBIBYTE


def test_ten_times_the_load_costs_no_goodput() -> None:
    """What cannot be spoken is refused; what is accepted is whole, and begins in time."""
    found = overload.run(10, 4, 3000, queue_seconds=3)
    print(overload.render(found))
    assert found.failed == 0
    # How many of each depends on the pace of the machine in both measurements.
    assert min(found.refused, found.complete) > 0
    assert found.memory_growth_bytes < 64 * MEBIBYTE


@pytest.mark.prove
def test_a_minute_of_ten_times_the_load() -> None:
    """As above, for a minute and with the figures of the promise."""
    found = overload.run(10, 60, 1500)
    print(overload.render(found))
    check_overload(found, overload.QUEUE_SECONDS)
    assert found.refusal_p99_seconds < 0.05


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.prove)])
def test_clients_that_leave_leave_nothing_behind(
    count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """At whatever moment they go: the engine is idle, no connection, thread or error is left."""
    with (
        running_engine("--voice", "simulated", "--tokens-per-second", "100") as engine,
        running_serve(upstreams=engine.address, log_level="error") as serve,
    ):
        process = psutil.Process(serve.process.pid)
        asyncio.run(soak.leave_all(serve.url, 300))
        wait_until(lambda: running(engine.address) == 0, "the engine is idle")
        before = holds(process)
        asyncio.run(soak.leave_all(serve.url, count))
        wait_until(lambda: running(engine.address) == 0, "it is idle again", 15)
        wait_until(lambda: process.num_fds() <= before.descriptors, "no connection is left", 15)
        after = holds(process)
        # A pool takes its next thread when that is first needed, and keeps it.
        assert after.threads - before.threads <= POOLED_THREADS
        assert after.memory_bytes - before.memory_bytes < 48 * MEBIBYTE
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "audio_seconds",
    [2_400, pytest.param(soak.HOUR_OF_AN_A100_SECONDS, marks=pytest.mark.prove)],
)
def test_nothing_grows_over_hours(audio_seconds: float, capfd: pytest.CaptureFixture[str]) -> None:
    """An hour of an A100 with faults and people who leave: flat memory, flat descriptors."""
    found = soak.run(audio_seconds)
    print(soak.render(found))
    assert found.outcomes["200"] > 0.8 * sum(found.outcomes.values())
    # Odd statuses would be a fault that became something else than an honest error.
    assert found.outcomes.keys() <= {
        *("200", "502", "503", "504", "left"),
        *("ClientPayloadError", "ServerDisconnectedError", "ClientOSError"),
    }
    first, last = found.memory_bytes
    assert last - first < 32 * MEBIBYTE
    first, last = found.descriptors
    assert last - first <= soak.CONCURRENT  # what happens to be open
    first, last = found.threads
    assert last == first
    assert "Traceback" not in capfd.readouterr().err
