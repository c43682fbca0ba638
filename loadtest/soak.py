"""As much audio as an A100 makes in an hour, with faults and people who leave: does anything grow?

Memory and descriptors of the gateway are sampled all the while; what matters is the difference
between the first and the last third, after what is made once has been made.
    python -m loadtest.soak [--audio-seconds 216000]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
import psutil

from loadtest.processes import running_engine, running_serve
from loadtest.prose import sentences

HOUR_OF_AN_A100_SECONDS = 216_000.0  # 60 s of audio a second for an hour
WARM_UP_SECONDS = 1500.0  # of audio
CONCURRENT = 16
SAMPLE_SECONDS = 1.0
SEED = 11
SENTENCES = (1, 1, 1, 2, 2, 2, 3, 5, 5, 20)  # of a text, each as likely
LEAVING_SHARE = 0.05
FAULT_RATE = 0.03
FAULTS = ("raise", "cut-48000", "empty", "reset-48000", "truncate", "raiselate")
MEBIBYTE = 1 << 20
FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
LEFT_AT = ("head", "body", "soon", "audio")
LONGEST_STAY_SECONDS = 0.6
LEAVING_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Soak:
    """What was seen.

    Attributes:
        outcomes: Answers by status, or by the error of the connection.
        audio_seconds: What the engine was made to say, at least.
        wall_seconds: How long it took.
        memory_bytes: Median resident memory of the first and of the last third.
        descriptors: The same of open descriptors.
        threads: The same of threads.
    """

    outcomes: dict[str, int]
    audio_seconds: float
    wall_seconds: float
    memory_bytes: tuple[float, float]
    descriptors: tuple[float, float]
    threads: tuple[float, float]


async def leave(host: str, port: int, text: str, chance: random.Random) -> None:
    """One request that is left at a random moment."""
    body = json.dumps(
        {
            "model": "tts-1",
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
    moment = chance.choice(LEFT_AT)
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
    slots = asyncio.Semaphore(LEAVING_AT_ONCE)
    chance, source = random.Random(SEED), sentences()

    async def one() -> None:
        async with slots:
            text = " ".join(next(source) for _ in range(chance.choice((1, 1, 3, 40))))
            await leave(host, int(port), text, chance)

    await asyncio.gather(*(one() for _ in range(count)))


async def soak(url: str, process: psutil.Process, audio_seconds: float) -> Soak:
    """Keep a gateway busy until it has said so much."""
    chance, source = random.Random(SEED), sentences()
    host, port = urlsplit(url).netloc.split(":")
    outcomes: Counter[str] = Counter()
    samples: list[tuple[int, int, int]] = []
    spoken = 0.0

    async def ask(session: aiohttp.ClientSession, text: str) -> None:
        nonlocal spoken
        body = {"model": "tts-1", "input": text, "response_format": chance.choice(FORMATS)}
        try:
            async with session.post(url + "/v1/audio/speech", json=body) as answer:
                async for _ in answer.content.iter_any():
                    pass
                outcomes[str(answer.status)] += 1
        except aiohttp.ClientError as error:
            outcomes[type(error).__name__] += 1
        spoken += len(text.split()) / 2.5  # words a second of the engine's estimate

    async def person(session: aiohttp.ClientSession) -> None:
        while spoken < audio_seconds:
            text = " ".join(next(source) for _ in range(chance.choice(SENTENCES)))
            if chance.random() < LEAVING_SHARE:
                await leave(host, int(port), text, chance)
                outcomes["left"] += 1
            else:
                await ask(session, text)

    async def look() -> None:
        while True:
            samples.append((process.memory_info().rss, process.num_fds(), process.num_threads()))
            await asyncio.sleep(SAMPLE_SECONDS)

    began = time.monotonic()
    watcher = asyncio.create_task(look())
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        await asyncio.gather(*(person(session) for _ in range(CONCURRENT)))
    watcher.cancel()
    third = max(1, len(samples) // 3)

    def ends(column: int) -> tuple[float, float]:
        values = [sample[column] for sample in samples]
        return statistics.median(values[:third]), statistics.median(values[-third:])

    return Soak(dict(outcomes), spoken, time.monotonic() - began, ends(0), ends(1), ends(2))


def run(audio_seconds: float) -> Soak:
    """Start a fast simulated engine with faults, and a gateway, and soak them."""
    engine_arguments = (
        *("--voice", "simulated", "--tokens-per-second", "400"),
        *("--fault-rate", str(FAULT_RATE)),
        *(part for fault in FAULTS for part in ("--fault", fault)),
    )
    with (
        running_engine(*engine_arguments) as engine,
        running_serve(upstreams=engine.address, log_level="error") as serve,
    ):
        process = psutil.Process(serve.process.pid)
        # Threads, codecs and their memory are made once: now.
        asyncio.run(soak(serve.url, process, max(audio_seconds / 20, WARM_UP_SECONDS)))
        return asyncio.run(soak(serve.url, process, audio_seconds))


def render(found: Soak) -> str:
    """For people."""
    memory = [value / MEBIBYTE for value in found.memory_bytes]
    return (
        f"{found.audio_seconds:,.0f} s of audio in {found.wall_seconds:.0f} s: {found.outcomes}; "
        f"memory {memory[0]:.1f} -> {memory[1]:.1f} MiB, descriptors {found.descriptors[0]:g} -> "
        f"{found.descriptors[1]:g}, threads {found.threads[0]:g} -> {found.threads[1]:g} "
        "(medians of the first and the last third)"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--audio-seconds", type=float, default=HOUR_OF_AN_A100_SECONDS)
    arguments = parser.parse_args()
    print(render(run(arguments.audio_seconds)))


if __name__ == "__main__":
    main()
