"""Ten times more requests than the engine can speak: what is done, what is refused, and how soon.

The best goodput is measured first, at a concurrency that fills the slots; then requests come at a
multiple of it for a while, whatever happens.
    python -m loadtest.overload [--factor 10] [--seconds 60]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass

import psutil

from loadtest.benchmark import simulated_gpu
from loadtest.demonstration import A100_TOKENS_PER_SECOND
from loadtest.processes import running_engine, running_serve
from loadtest.sweep import Timing, Window, at_concurrency, at_rate, clients, percentile

SLOTS = 16
# More places than the deadline lets come to their turn: the estimate of the wait has to refuse.
PLACES = 256
QUEUE_SECONDS = 10.0
MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Overload:
    """What came of it.

    Attributes:
        best: Audio of complete answers a second, at the best concurrency.
        goodput: The same under overload.
        complete, refused, failed: Requests of the window.
        refusal_p99_seconds: From the request to its 429, as the client sees it.
        first_audio_p99_seconds, first_audio_most_seconds: Of the accepted.
        memory_growth_bytes: Of the gateway's resident memory, from before to the most seen.
    """

    best: float
    goodput: float
    complete: int
    refused: int
    failed: int
    refusal_p99_seconds: float
    first_audio_p99_seconds: float
    first_audio_most_seconds: float
    memory_growth_bytes: int


async def overload(url: str, pid: int, factor: float, seconds: float) -> Overload:
    """Measure a gateway that runs as the process `pid`."""
    process = psutil.Process(pid)
    async with clients({"gateway": url}, None) as targets:
        client = targets["gateway"]
        calm = await at_concurrency(
            client, "gateway", SLOTS, Timing(max(4.0, seconds / 3), 3.0, float("inf"))
        )
        memory = most = process.memory_info().rss
        audio_seconds = calm.audio_seconds_per_second / calm.requests_per_second
        rate = factor * calm.audio_seconds_per_second / audio_seconds
        window = Window(time.monotonic() + 2.0, seconds)
        crowd = asyncio.create_task(at_rate(client, window, rate))
        while not crowd.done():
            most = max(most, process.memory_info().rss)
            await asyncio.wait([crowd], timeout=0.25)
        await crowd
    level = window.level("gateway", "offered", rate * audio_seconds, float("inf"))
    accepted = [heard.first_audio_seconds for heard in window.sample("offered") if heard.complete]
    refusals = [heard.ended - heard.began for heard in window.sample("offered") if heard.refused]
    return Overload(
        best=calm.audio_seconds_per_second,
        goodput=level.goodput,
        complete=level.complete,
        refused=level.refused,
        failed=level.failed,
        refusal_p99_seconds=percentile(refusals, 0.99),
        first_audio_p99_seconds=percentile(accepted, 0.99),
        first_audio_most_seconds=max(accepted, default=0.0),
        memory_growth_bytes=most - memory,
    )


def run(
    factor: float, seconds: float, tokens_per_second: float, queue_seconds: float = QUEUE_SECONDS
) -> Overload:
    """Start a simulated GPU and a gateway, and overload them."""
    with (
        running_engine(*simulated_gpu(tokens_per_second)) as engine,
        running_serve(
            upstreams=engine.address,
            max_in_flight=SLOTS,
            max_queued=PLACES,
            queue_timeout_seconds=queue_seconds,
            log_level="warning",
        ) as serve,
    ):
        return asyncio.run(overload(serve.url, serve.process.pid, factor, seconds))


def render(found: Overload) -> str:
    """For people."""
    return (
        f"best {found.best:.2f} audio s/s; overloaded {found.goodput:.2f} "
        f"({found.goodput / found.best:.1%}); {found.complete} complete, {found.refused} refused, "
        f"{found.failed} failed; first audio p99 {found.first_audio_p99_seconds:.2f} s, most "
        f"{found.first_audio_most_seconds:.2f} s (queue deadline {QUEUE_SECONDS:g} s); refusals "
        f"p99 {found.refusal_p99_seconds * 1000:.1f} ms; memory "
        f"+{found.memory_growth_bytes / MEBIBYTE:.1f} MiB"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--factor", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    print(render(run(arguments.factor, arguments.seconds, A100_TOKENS_PER_SECOND)))


if __name__ == "__main__":
    main()
