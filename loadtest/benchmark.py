"""What a client of `/generate` gets: success, rates and times of many requests at once.

Whole answers are measured first, then as many streamed ones for the time to first audio.
    python loadtest/benchmark.py --requests 50 --concurrent 10 [--url URL] [--json FILE]
    python loadtest/benchmark.py --sweep [--quick] [--url URL --direct ENGINE | --simulate 1500]
        [--report FILE.html] [--csv FILE.csv]
Without an address it starts a gateway with the CPU engine itself, or, with `--simulate`, with a
simulated GPU of so many audio tokens a second; what these write goes to a file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:  # run as a script: its folder's modules are those of the package loadtest
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
try:
    import httpx
    from tqdm import tqdm

    from gateway.audio.pcm import ENGINE_BYTES_PER_SECOND
    from loadtest.processes import ServeProcess, running_engine, running_serve
    from loadtest.sweep import Level, Timing, measurements, sweep, write_csv
except ModuleNotFoundError as missing:
    sys.exit(
        f"{missing.name} is not installed for {sys.executable}: run `scripts/install cpu load`, "
        "then `.venv/bin/python loadtest/benchmark.py`"
    )

TEXTS = (
    "Hello, this is a test of the speech service.",
    "The quick brown fox jumps over the lazy dog, and then it sleeps in the sun.",
    "Artificial voices have come a long way since the first talking machines.",
    "Please remember to bring your umbrella, because it is going to rain this afternoon.",
    "Once upon a time there was a small village at the foot of a great mountain.",
)
WAV_HEADER_BYTES = 44
TIMEOUT_SECONDS = 300.0
SINGLE_STREAM_TOKENS_PER_SECOND = 94.0
LOG = Path(tempfile.gettempdir()) / f"speech-gateway-benchmark-{os.getpid()}.log"


class Length(NamedTuple):
    """How much a sweep measures."""

    levels: str
    offered: str
    seconds: float
    settle_seconds: float


THOROUGH = Length("1,2,4,8,16,32,64,128", "0.5,0.8,0.95,1.2,2,4", 15.0, 6.0)
QUICK = Length("1,8,16,32", "0.8,2", 4.0, 2.0)


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
        audio_seconds=max(0, size - WAV_HEADER_BYTES) / ENGINE_BYTES_PER_SECOND,
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--concurrent", type=int, default=10)
    parser.add_argument("--url", help="a gateway that runs already")
    parser.add_argument("--json", type=Path, help="where to write the report as JSON")
    group = parser.add_argument_group("sweep")
    group.add_argument("--sweep", action="store_true", help="find the knee over concurrency")
    group.add_argument("--direct", help="address of the gateway's engine, measured beside it")
    group.add_argument(
        "--simulate", type=float, metavar="TOKENS_PER_SECOND", help="start a simulated GPU"
    )
    group.add_argument("--api-key", help="bearer key")
    group.add_argument("--quick", action="store_true", help="about a minute: fewer, shorter ones")
    group.add_argument("--seconds", type=float, help="length of each measurement (15)")
    group.add_argument("--settle", type=float, help="seconds before each of them (6)")
    group.add_argument(
        "--offered",
        help="shares of the best throughput, offered whatever happens (0.5,0.8,0.95,1.2,2,4)",
    )
    group.add_argument("--levels", help="requests at once (1,2,4,8,16,32,64,128)")
    group.add_argument(
        "--promise",
        type=float,
        default=math.inf,
        metavar="SECONDS",
        help="first audio later than this is no goodput; default: every complete answer is",
    )
    group.add_argument("--report", type=Path, help="where to write the page with plots")
    group.add_argument("--csv", type=Path, help="where to write the figures")
    return parser


def run_sweep(arguments: argparse.Namespace, scope: contextlib.ExitStack) -> int:
    """Measure over concurrency and offered load; write what was asked for."""
    # The plots' library is needed here alone, and is an extra of its own.
    from loadtest import report  # noqa: PLC0415  (its plots need the extra `load`)

    addresses, title = {"gateway": arguments.url}, "Load sweep"
    if arguments.simulate:
        gpu = simulated_gpu(arguments.simulate)
        engine = scope.enter_context(running_engine(*gpu, relay=True))
        serve = own_gateway(scope, upstreams=engine.address)
        addresses = {"gateway": serve.url, "direct": engine.address}
        title = f"Load sweep on a simulated GPU of {arguments.simulate:g} audio tokens a second"
    elif not arguments.url:
        addresses = {"gateway": own_gateway(scope).url}
    if arguments.direct:
        addresses["direct"] = arguments.direct

    quick = QUICK if arguments.quick else THOROUGH
    timing = Timing(
        quick.seconds if arguments.seconds is None else arguments.seconds,
        quick.settle_seconds if arguments.settle is None else arguments.settle,
        arguments.promise,
    )
    levels_at = [int(level) for level in (arguments.levels or quick.levels).split(",")]
    offered = [float(share) for share in (arguments.offered or quick.offered).split(",")]
    count = measurements(addresses, levels_at, offered)
    minutes = count * (timing.seconds + timing.settle_seconds) / 60
    print(f"{count} measurements: about {minutes:.0f} min", flush=True)
    bar = scope.enter_context(tqdm(total=count, unit="measurement"))

    def tell(level: Level) -> None:
        bar.update()
        tqdm.write(
            f"{level.target:>8} {level.kind:>11} {level.load:8.4g}: "
            f"{level.audio_seconds_per_second:7.2f} audio s/s, goodput {level.goodput:7.2f}, "
            f"first audio p95 {level.first_audio_p95_seconds:6.3f} s, {level.complete} complete, "
            f"{level.refused} refused, {level.failed} failed"
        )

    levels = asyncio.run(
        sweep(
            addresses,
            timing,
            levels=levels_at,
            offered=offered,
            api_key=arguments.api_key,
            tell=tell,
        )
    )
    bar.close()
    print("\n".join(report.findings(levels)))
    if arguments.csv:
        write_csv(levels, arguments.csv)
    if arguments.report:
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        arguments.report.write_text(report.render(title, when, levels), encoding="utf-8")
    return 1 if any(level.failed for level in levels) else 0


def simulated_gpu(tokens_per_second: float) -> tuple[str, ...]:
    """Arguments of an engine that makes so many audio tokens a second in all.

    One stream alone gets 94 of them at most, as on an A100 (its published single-stream figure).
    """
    one = min(tokens_per_second, SINGLE_STREAM_TOKENS_PER_SECOND)
    return (
        *("--voice", "simulated", "--tokens-per-second", f"{one:g}"),
        *("--total-tokens-per-second", f"{tokens_per_second:g}"),
    )


def main() -> int:
    """Measure and print; 1 where any request failed."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.requests < 1 or arguments.concurrent < 1:
        parser.error("at least one request, one at a time")
    status = 1
    try:
        with contextlib.ExitStack() as scope:
            logging.basicConfig(filename=LOG, level=logging.INFO)
            run = run_sweep if arguments.sweep else run_benchmark
            status = run(arguments, scope)
    finally:
        if status and LOG.exists():
            print(f"What the processes that were started here wrote: {LOG}", file=sys.stderr)
        else:
            LOG.unlink(missing_ok=True)
    return status


def own_gateway(scope: contextlib.ExitStack, **settings: Any) -> ServeProcess:
    """A gateway of this run's own, which writes into the log file."""
    log = scope.enter_context(LOG.open("ab"))
    return scope.enter_context(running_serve(stderr=log, **settings))


def run_benchmark(arguments: argparse.Namespace, scope: contextlib.ExitStack) -> int:
    """Ask, print, and write what was asked for; 1 where any request failed."""
    url = arguments.url or own_gateway(scope).url
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
