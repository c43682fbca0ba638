"""What the metrics cost: their share of the CPU time of a request, in both of their modes.

Every update is timed inside a gateway that answers real requests, less what the timing itself
costs.
    python -m loadtest.metrics_cost [--requests 400]
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

CONCURRENT = 8
CALIBRATION_CALLS = 200_000
# About 4 s of audio, which the container sends as four chunks.
TEXT = "The old teacher opened the wooden door before the morning came, without a word."
MODE = "PROMETHEUS_MULTIPROC_DIR"


class Meter:
    """Sums the CPU time of wrapped calls, on whichever thread they run."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls = 0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        @functools.wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.thread_time_ns()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += (time.thread_time_ns() - began) * 1e-9
                self.calls += 1

        return timed


def timing_seconds() -> float:
    """What the timing of a call that does nothing shows, a call."""
    meter = Meter()
    nothing = meter.wrap(lambda: None)
    for _ in range(CALIBRATION_CALLS):
        nothing()
    return meter.seconds / meter.calls


def measure(requests: int) -> dict[str, float]:
    """Serve requests in this process and time the updates.

    The modules are imported here: the Prometheus client chooses its mode when it is imported.
    """
    import aiohttp  # noqa: PLC0415
    from prometheus_client import Counter, Gauge, Histogram  # noqa: PLC0415

    from loadtest.processes import running_engine  # noqa: PLC0415
    from tests.running import running_gateway  # noqa: PLC0415

    async def ask_all(url: str, count: int) -> None:
        body = {"input": TEXT, "response_format": "pcm"}
        slots = asyncio.Semaphore(CONCURRENT)

        async def one(session: aiohttp.ClientSession) -> None:
            async with slots, session.post(url + "/v1/audio/speech", json=body) as answer:
                answer.raise_for_status()
                await answer.read()

        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(one(session) for _ in range(count)))

    def thread_seconds() -> float:
        """CPU time of the gateway's event loop."""
        done: list[float] = []
        told = threading.Event()

        def tell() -> None:
            done.append(time.thread_time())
            told.set()

        assert gateway.loop is not None  # noqa: S101  (for the types)
        gateway.loop.call_soon_threadsafe(tell)
        told.wait(10)
        return done[0]

    overhead = timing_seconds()
    engine_arguments = ("--voice", "simulated", "--tokens-per-second", "3000")
    with (
        running_engine(*engine_arguments) as engine,
        running_gateway(upstreams=engine.address, probe_interval_seconds=60) as gateway,
    ):
        asyncio.run(ask_all(gateway.url, CONCURRENT * 4))
        before = thread_seconds()
        asyncio.run(ask_all(gateway.url, requests))
        whole = (thread_seconds() - before) / requests
        meter = Meter()
        for owner, names in ((Counter, "inc labels"), (Gauge, "inc dec set labels"),
                             (Histogram, "observe labels")):  # fmt: skip
            for name in names.split():
                setattr(owner, name, meter.wrap(getattr(owner, name)))
        asyncio.run(ask_all(gateway.url, requests))
    updates = (meter.seconds - meter.calls * overhead) / requests
    return {
        "request_cpu_milliseconds": round(whole * 1e3, 4),
        "metrics_cpu_microseconds": round(updates * 1e6, 2),
        "updates_a_request": round(meter.calls / requests, 1),
        "share": round(updates / whole, 5),
    }


def main() -> None:
    """Measure in a process of its own for each mode, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure(arguments.requests)))
        return
    for mode in ("one process", "multiprocess"):
        with tempfile.TemporaryDirectory() as folder:
            environment = {name: value for name, value in os.environ.items() if name != MODE}
            if mode == "multiprocess":
                environment[MODE] = folder
            said = subprocess.run(
                [sys.executable, "-m", "loadtest.metrics_cost", "--here",
                 "--requests", str(arguments.requests)],
                env=environment, check=True, capture_output=True, text=True,
            ).stdout  # fmt: skip
        found = json.loads(said)
        print(
            f"{mode:>12}: {found['metrics_cpu_microseconds']:.1f} us in "
            f"{found['updates_a_request']} calls a request, of "
            f"{found['request_cpu_milliseconds']:.2f} ms: {found['share']:.2%}"
        )


if __name__ == "__main__":
    main()
