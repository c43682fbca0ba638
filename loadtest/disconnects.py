"""Clients that leave at random moments: nothing may run on, nothing may leak.

They leave before, within and after their request, before the first audio and amid it, with an
orderly close or a reset.
    python -m loadtest.disconnects [--count 10000]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

from loadtest.processes import engine_state, running_engine, running_serve, wait_until
from loadtest.prose import sentences

CONCURRENT = 64
FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
SEED = 3
MOMENTS = ("head", "body", "soon", "audio")
LONGEST_STAY_SECONDS = 0.6


@dataclass(frozen=True, slots=True)
class Before:
    """What a gateway holds while nothing runs."""

    descriptors: int
    threads: int
    memory_bytes: int


def holds(process: psutil.Process) -> Before:
    """Descriptors, threads and resident memory of a process."""
    return Before(process.num_fds(), process.num_threads(), process.memory_info().rss)


async def leave(host: str, port: int, text: str, chance: random.Random) -> None:
    """One request that is left at a random moment."""
    body = json.dumps(
        {
            "input": text,
            "response_format": chance.choice(FORMATS),
            **({"stream_format": "sse"} if chance.random() < 0.1 else {}),  # noqa: PLR2004
        }
    ).encode()
    buffered = chance.random() < 0.2  # noqa: PLR2004
    if buffered:
        body = json.dumps({"text": text}).encode()
    head = (
        f"POST {'/generate' if buffered else '/v1/audio/speech'} HTTP/1.1\r\nHost: {host}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    moment = chance.choice(MOMENTS)
    request = head + body
    if moment == "head":
        request = request[: chance.randrange(len(head))]
    elif moment == "body":
        request = request[: len(head) + chance.randrange(len(body))]
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(chance.uniform(0, LONGEST_STAY_SECONDS)):
                if moment == "audio":
                    await reader.readexactly(chance.randrange(1, 40_000))
                elif moment == "soon":
                    await reader.read(1)
    except (OSError, asyncio.IncompleteReadError):
        pass  # the answer had ended
    finally:
        if chance.random() < 0.5:  # noqa: PLR2004
            writer.transport.abort()
        else:
            writer.close()


async def leave_all(url: str, count: int) -> None:
    """So many of them, a few dozen at a time."""
    host, port = urlsplit(url).netloc.split(":")
    slots = asyncio.Semaphore(CONCURRENT)
    chance, source = random.Random(SEED), sentences()

    async def one() -> None:
        async with slots:
            text = " ".join(next(source) for _ in range(chance.choice((1, 1, 3, 40))))
            await leave(host, int(port), text, chance)

    await asyncio.gather(*(one() for _ in range(count)))


def running(engine: str) -> int:
    """Generations that run on a simulated engine."""
    return int(engine_state(engine)["running"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000)
    arguments = parser.parse_args()
    with (
        running_engine("--voice", "simulated", "--tokens-per-second", "100") as engine,
        running_serve(upstreams=engine.address, log_level="error") as serve,
    ):
        process = psutil.Process(serve.process.pid)
        asyncio.run(leave_all(serve.url, 500))  # what is made once is made now
        wait_until(lambda: running(engine.address) == 0, "the engine is idle")
        before, began = holds(process), time.monotonic()
        asyncio.run(leave_all(serve.url, arguments.count))
        left = time.monotonic()
        wait_until(lambda: running(engine.address) == 0, "the engine is idle again")
        idle = time.monotonic()
        wait_until(lambda: process.num_fds() <= before.descriptors, "no connection is left", 10.0)
        after = holds(process)
        print(
            f"{arguments.count} clients left within {left - began:.0f} s; the engine was idle "
            f"{idle - left:.3f} s after the last; descriptors {before.descriptors} -> "
            f"{after.descriptors}, threads {before.threads} -> {after.threads}, memory "
            f"{(after.memory_bytes - before.memory_bytes) / 2**20:+.1f} MiB"
        )


if __name__ == "__main__":
    main()
