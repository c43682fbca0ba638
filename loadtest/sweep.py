"""Finds the knee: throughput, first audio and goodput over concurrency and over offered load.

Every level is measured through the gateway and, where an engine's address is given, directly
beside it in the same run, so that the ratio is the gateway's own and not the hour's.
"""

from __future__ import annotations

import asyncio
import csv
import itertools
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import aiohttp

from gateway.audio.pcm import ENGINE_BYTES_PER_SECOND
from loadtest.prose import sentences
from loadtest.speech_client import Heard, SpeechClient, served_model

KNEE_SHARE = 0.95
SENTENCES_OF_A_TEXT = (1, 3)  # the fewest and the most
TIMEOUT_SECONDS = 120.0
SEED = 7


@dataclass(frozen=True, slots=True)
class Level:
    """One measurement.

    Attributes:
        target: `gateway` or `direct`.
        kind: `concurrency` (as many at once, always) or `offered` (requests a second, whatever
            happens).
        load: The concurrency, or the audio seconds that are asked for in a second.
        complete, refused, failed: Requests of the window.
        audio_seconds_per_second: Received in the window.
        goodput: The part of it that belongs to complete answers whose first audio came in time.
        requests_per_second: Complete answers that ended in the window.
        first_audio_*_seconds, real_time_factor_*: Percentiles over complete answers.
        underrun_p95_seconds: What players would have starved.
    """

    target: str
    kind: str
    load: float
    complete: int
    refused: int
    failed: int
    audio_seconds_per_second: float
    goodput: float
    requests_per_second: float
    first_audio_p50_seconds: float
    first_audio_p95_seconds: float
    first_audio_p99_seconds: float
    real_time_factor_p50: float
    real_time_factor_p95: float
    underrun_p95_seconds: float


@dataclass(frozen=True, slots=True)
class Timing:
    """How long each measurement takes, and what is promised.

    Attributes:
        seconds: Measured, after it has settled.
        settle_seconds: Before that.
        promised_seconds: First audio later than this is no goodput; may be infinite.
    """

    seconds: float
    settle_seconds: float
    promised_seconds: float


def percentile(values: Sequence[float], share: float) -> float:
    """A percentile by nearest rank; 0 of nothing."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else 0.0


def knee(levels: Iterable[Level]) -> Level | None:
    """The smallest concurrency that reaches 95 % of the best throughput."""
    ordered = sorted(levels, key=lambda level: level.load)
    best = max((level.audio_seconds_per_second for level in ordered), default=0.0)
    return next(
        (level for level in ordered if level.audio_seconds_per_second >= KNEE_SHARE * best > 0),
        None,
    )


def texts() -> Iterator[str]:
    """Texts of one to three sentences, none twice in a long while."""
    source, chance = sentences(), random.Random(SEED)
    while True:
        yield " ".join(itertools.islice(source, chance.randint(*SENTENCES_OF_A_TEXT)))


class Window:
    """What was received and what began in one measured stretch of time."""

    def __init__(self, begin: float, seconds: float) -> None:
        self.begin = begin
        self.end = begin + seconds
        self.seconds = seconds
        self.received_bytes = 0
        self.heard: list[Heard] = []

    def received(self, size_bytes: int) -> int:
        """Count what came in the window; return how much that is."""
        if not self.begin <= time.monotonic() < self.end:
            return 0
        self.received_bytes += size_bytes
        return size_bytes

    def sample(self, kind: str) -> list[Heard]:
        """The requests that stand for the window.

        At a constant concurrency the next request begins when one ends, so the ends are a fair
        sample; at an offered rate the beginnings are, and all of them are heard to their ends.
        """
        return [
            heard
            for heard in self.heard
            if self.begin <= (heard.ended if kind == "concurrency" else heard.began) < self.end
        ]

    def level(self, target: str, kind: str, load: float, promised_seconds: float) -> Level:
        """The figures."""
        sample = self.sample(kind)
        ended = [heard for heard in self.heard if self.begin <= heard.ended < self.end]
        whole = [heard for heard in sample if heard.complete]
        refused = [heard for heard in sample if heard.refused]
        first = [heard.first_audio_seconds for heard in whole]
        factors = [(heard.ended - heard.began) / heard.audio_seconds for heard in whole]
        # Those that are still heard at the end of a constant concurrency are cut off: what ended
        # stands for them. At an offered rate all are heard to their ends, however slow.
        good = sum(
            heard.audio_seconds
            if kind == "concurrency"
            else heard.counted_bytes / ENGINE_BYTES_PER_SECOND
            for heard in (ended if kind == "concurrency" else self.heard)
            if heard.complete and heard.first_audio_seconds <= promised_seconds
        )
        return Level(
            target,
            kind,
            load,
            complete=len(whole),
            refused=len(refused),
            failed=len(sample) - len(whole) - len(refused),
            audio_seconds_per_second=self.received_bytes / ENGINE_BYTES_PER_SECOND / self.seconds,
            goodput=good / self.seconds,
            requests_per_second=sum(heard.complete for heard in ended) / self.seconds,
            first_audio_p50_seconds=percentile(first, 0.5),
            first_audio_p95_seconds=percentile(first, 0.95),
            first_audio_p99_seconds=percentile(first, 0.99),
            real_time_factor_p50=percentile(factors, 0.5),
            real_time_factor_p95=percentile(factors, 0.95),
            underrun_p95_seconds=percentile([heard.underrun_seconds for heard in whole], 0.95),
        )


async def at_concurrency(
    client: SpeechClient, target: str, concurrent: int, timing: Timing
) -> Level:
    """Keep so many requests running, and measure once it has settled."""
    window = Window(time.monotonic() + timing.settle_seconds, timing.seconds)
    source = texts()

    async def listener(number: int) -> None:
        # Listeners that all began at once would stay in step, and the window see their ebb.
        await asyncio.sleep(timing.settle_seconds / 2 * number / concurrent)
        while True:
            window.heard.append(await client.ask(next(source), window.received))

    tasks = [asyncio.create_task(listener(number)) for number in range(concurrent)]
    await asyncio.sleep(timing.settle_seconds + timing.seconds)
    await _end(tasks)
    return window.level(target, "concurrency", concurrent, timing.promised_seconds)


async def at_rate(client: SpeechClient, window: Window, requests_per_second: float) -> None:
    """Send requests at random moments at a mean rate, whether or not earlier ones have ended.

    Those that began in the window are heard to their ends, so that their figures are whole.
    """
    chance = random.Random(SEED)
    source = texts()
    tasks: set[asyncio.Task[None]] = set()

    async def listener() -> None:
        window.heard.append(await client.ask(next(source), window.received))

    due = time.monotonic()
    while due < window.end:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.add(task := asyncio.create_task(listener()))
        task.add_done_callback(tasks.discard)
        due += chance.expovariate(requests_per_second)
    if tasks:
        await asyncio.wait(tasks, timeout=TIMEOUT_SECONDS)
    await _end(tasks)


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def clients(
    addresses: dict[str, str], api_key: str | None
) -> AsyncIterator[dict[str, SpeechClient]]:
    """A client for each target."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        yield {
            target: SpeechClient(
                session,
                address,
                model=await served_model(session, address, api_key),
                api_key=api_key,
            )
            for target, address in addresses.items()
        }


def measurements(
    addresses: Collection[str], levels: Collection[int], offered: Collection[float]
) -> int:
    """How many measurements `sweep` makes."""
    return len(addresses) * len(levels) + len(offered)


async def sweep(
    addresses: dict[str, str],
    timing: Timing,
    *,
    levels: Sequence[int],
    offered: Sequence[float],
    api_key: str | None = None,
    tell: Callable[[Level], None] = lambda _: None,
) -> list[Level]:
    """Measure all levels on all targets, in turn.

    Args:
        addresses: `gateway` and perhaps `direct`, with their base addresses.
        timing: Of each measurement.
        levels: Concurrencies.
        offered: Shares of the best throughput that the levels found, offered to the gateway as a
            Poisson stream of requests.
        api_key: Bearer key for both.
        tell: Called with each level when it is measured.
    """
    found: list[Level] = []

    def keep(level: Level) -> None:
        found.append(level)
        tell(level)

    async with clients(addresses, api_key) as targets:
        for concurrent in levels:
            for target, client in targets.items():
                keep(await at_concurrency(client, target, concurrent, timing))
        through = [level for level in found if level.target == "gateway"]
        best = max(level.audio_seconds_per_second for level in through)
        if not any(level.requests_per_second for level in through):
            raise SystemExit("no answer ended within a measurement: give longer --seconds")
        audio_seconds = statistics.fmean(
            level.audio_seconds_per_second / level.requests_per_second
            for level in through
            if level.requests_per_second
        )
        for share in offered:
            rate = share * best / audio_seconds
            window = Window(time.monotonic() + timing.settle_seconds, timing.seconds)
            await at_rate(targets["gateway"], window, rate)
            keep(window.level("gateway", "offered", rate * audio_seconds, timing.promised_seconds))
    return found


def write_csv(levels: Sequence[Level], path: Path) -> None:
    """One row a level."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Level)])
        writer.writeheader()
        writer.writerows({k: round(v, 4) if isinstance(v, float) else v
                          for k, v in asdict(level).items()} for level in levels)  # fmt: skip
