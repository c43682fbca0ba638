"""What a client of `/generate` gets: success, rates and times of many requests at once.

Whole answers are measured first, then as many streamed ones for the time to first audio.
    python -m loadtest.benchmark --requests 50 --concurrent 10 [--url URL] [--json FILE]
Without an address it starts a gateway with the CPU engine itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from loadtest.processes import running_serve

TEXTS = (
    "Hello, this is a test of the speech service.",
    "The quick brown fox jumps over the lazy dog, and then it sleeps in the sun.",
    "Artificial voices have come a long way since the first talking machines.",
    "Please remember to bring your umbrella, because it is going to rain this afternoon.",
    "Once upon a time there was a small village at the foot of a great mountain.",
)
WAV_HEADER_BYTES = 44
BYTES_PER_SECOND = 48_000
TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Result:
    """One request.

    Attributes:
        error: Why it failed; empty where it did not.
        seconds: Round trip.
        first_seconds: To the first byte of audio.
        server_seconds: `X-Generation-Time`.
        size_bytes: Of the answer.
        audio_seconds: Of the audio in it.
        concurrent: `X-Concurrent-Requests`.
    """

    error: str = ""
    seconds: float = 0.0
    first_seconds: float = 0.0
    server_seconds: float = 0.0
    size_bytes: int = 0
    audio_seconds: float = 0.0
    concurrent: int = 0


async def ask(client: httpx.AsyncClient, url: str, number: int, *, stream: bool) -> Result:
    """One request as the proxy's clients send it, with `stream` where the gateway's extra."""
    payload: dict[str, Any] = {
        "text": TEXTS[number % len(TEXTS)],
        "temperature": 1.0,
        "top_p": 0.95,
        "top_k": 50,
        "max_tokens": 2048,
    }
    if stream:
        payload["stream"] = True
    began, first, size = time.perf_counter(), 0.0, 0
    try:
        async with client.stream("POST", f"{url}/generate", json=payload) as answer:
            if answer.status_code != httpx.codes.OK:
                await answer.aread()
                return Result(error=f"{answer.status_code}: {answer.text[:200]}")
            async for data in answer.aiter_raw():
                size += len(data)
                if size > WAV_HEADER_BYTES:
                    first = first or time.perf_counter() - began
    except httpx.HTTPError as error:
        return Result(error=f"{type(error).__name__}: {error}")
    seconds = time.perf_counter() - began
    return Result(
        error="" if size > WAV_HEADER_BYTES else "no audio",
        seconds=seconds,
        first_seconds=first,
        server_seconds=float(answer.headers.get("x-generation-time", 0)),
        size_bytes=size,
        audio_seconds=max(0, size - WAV_HEADER_BYTES) / BYTES_PER_SECOND,
        concurrent=int(answer.headers.get("x-concurrent-requests", 0)),
    )


async def ask_all(
    url: str, requests: int, concurrent: int, *, stream: bool
) -> tuple[list[Result], float]:
    """All requests, so many at once; their results, and the seconds it took."""
    slots = asyncio.Semaphore(concurrent)
    limits = httpx.Limits(max_connections=concurrent, max_keepalive_connections=concurrent)
    what = "streamed" if stream else "whole"
    bar = tqdm(total=requests, desc=f"{what:>8} answers", unit="answer", file=sys.stderr)

    async def one(number: int) -> Result:
        async with slots:
            result = await ask(client, url, number, stream=stream)
        bar.update()
        return result

    began = time.perf_counter()
    with bar:
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, limits=limits) as client:
            results = await asyncio.gather(*(one(number) for number in range(requests)))
    return list(results), time.perf_counter() - began


def spread(values: Sequence[float]) -> dict[str, float]:
    """Minimum, mean, median, 95th percentile (nearest rank) and maximum."""
    ordered = sorted(values)
    if not ordered:
        return {}
    rank = max(0, -(-95 * len(ordered) // 100) - 1)
    found = {
        "min": ordered[0],
        "mean": statistics.fmean(ordered),
        "p50": statistics.median(ordered),
        "p95": ordered[rank],
        "max": ordered[-1],
    }
    return {name: round(value, 4) for name, value in found.items()}


def summarise(results: Sequence[Result], wall_seconds: float) -> dict[str, Any]:
    """The figures of one run."""
    good = [result for result in results if not result.error]
    audio_seconds = sum(result.audio_seconds for result in good)
    return {
        "requests": len(results),
        "successful": len(good),
        "failed": len(results) - len(good),
        "success_rate": round(len(good) / len(results), 4),
        "wall_seconds": round(wall_seconds, 3),
        "requests_per_second": round(len(good) / wall_seconds, 3),
        "audio_seconds": round(audio_seconds, 2),
        "audio_seconds_per_second": round(audio_seconds / wall_seconds, 3),
        "server_seconds": spread([result.server_seconds for result in good]),
        "round_trip_seconds": spread([result.seconds for result in good]),
        "first_audio_seconds": spread([result.first_seconds for result in good]),
        "real_time_factor": spread([result.seconds / result.audio_seconds for result in good]),
        "size_bytes": spread([float(result.size_bytes) for result in good]),
        "peak_concurrent": max((result.concurrent for result in good), default=0),
        "errors": sorted({result.error for result in results if result.error}),
    }


def _line(name: str, figures: dict[str, float], scale: float = 1.0, unit: str = "s") -> str:
    values = "  ".join(f"{key} {value * scale:9.3f}" for key, value in figures.items())
    return f"  {name:<22}{values} {unit}"


def render(report: dict[str, Any]) -> str:
    """The report for people."""
    whole, streamed = report["whole"], report["streamed"]
    lines = [f"{report['url']}: {report['requests']} requests, {report['concurrent']} at once"]
    for title, run in (("Whole answers", whole), ("Streamed answers", streamed)):
        lines += [
            (
                f"{title}: {run['successful']} of {run['requests']} "
                f"({run['success_rate']:.1%}) in {run['wall_seconds']:.1f} s"
            ),
            (
                f"  {run['requests_per_second']:.2f} requests/s, "
                f"{run['audio_seconds_per_second']:.2f} audio seconds/s, "
                f"peak concurrency {run['peak_concurrent']}"
            ),
            _line("server time", run["server_seconds"]),
            _line("round trip", run["round_trip_seconds"]),
            _line("time to first audio", run["first_audio_seconds"]),
            _line("real-time factor", run["real_time_factor"], unit="x"),
            _line("answer size", run["size_bytes"], 1 / 1024, "KiB"),
            *(f"  failed: {error}" for error in run["errors"]),
        ]
    return "\n".join(lines)


def main() -> int:
    """Measure and print; 1 where any request failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--concurrent", type=int, default=10)
    parser.add_argument("--url", help="a gateway that runs already")
    parser.add_argument("--json", type=Path, help="where to write the report as JSON")
    arguments = parser.parse_args()
    if arguments.requests < 1 or arguments.concurrent < 1:
        parser.error("at least one request, one at a time")
    with contextlib.ExitStack() as scope:
        url = arguments.url or scope.enter_context(running_serve()).url
        report: dict[str, Any] = {
            "url": url.rstrip("/"),
            "requests": arguments.requests,
            "concurrent": arguments.concurrent,
        }
        for name, stream in (("whole", False), ("streamed", True)):
            results, wall_seconds = asyncio.run(
                ask_all(report["url"], arguments.requests, arguments.concurrent, stream=stream)
            )
            report[name] = summarise(results, wall_seconds)
    print(render(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if report["whole"]["failed"] or report["streamed"]["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
