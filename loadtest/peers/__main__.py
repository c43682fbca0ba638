"""Compares proxies side by side: CPU, added time to first byte, memory.

    python -m loadtest.peers [--runs 5] [--quick] [--offline] [--output FOLDER]

All stand before one engine stub and under one load generator, in turn, so that a slower or faster
moment of the machine meets them all. Prints a table, and plots it where matplotlib is installed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import statistics
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop
from tqdm import tqdm

from loadtest.peers.load import Result, load
from loadtest.peers.proxies import PEERS, Peer, Running, install, start_stub
from loadtest.processes import free_port

REQUESTS = {1: 200, 16: 2400, 128: 2400}
LONG_REQUESTS = 240
LONG_PEERS = ("direct", "nginx, unbuffered", "bare ASGI relay", "gateway, pcm", "gateway, wav")


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the engine answers, and how many ask.

    Attributes:
        name: In the table.
        options: Of the stub.
        audio_seconds: Of an answer.
        requests: By concurrency.
        peers: Names of those that take part.
    """

    name: str
    options: tuple[str, ...]
    audio_seconds: float
    requests: dict[int, int]
    peers: tuple[str, ...]


SCENARIOS = (
    Scenario("4 s of audio", (), 4.0, REQUESTS, tuple(peer.name for peer in PEERS)),
    Scenario("60 s of audio", ("--audio-seconds", "60"), 60.0, {16: LONG_REQUESTS}, LONG_PEERS),
    Scenario(
        "60 s of audio in chunks of 10 frames",
        ("--audio-seconds", "60", "--chunk-frames", "10"),
        60.0,
        {16: LONG_REQUESTS},
        LONG_PEERS,
    ),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one peer at one concurrency."""

    cpu_ms: float
    first_byte_ms: tuple[float, float]
    failed: int


def measure(peer: Peer, running: Running, concurrency: int, requests: int) -> Sample:
    """Run a peer's share of the requests."""
    count = max(concurrency * 2, int(requests * peer.share))
    before = running.cpu_seconds()
    result: Result = uvloop.run(load(running.port, peer.body(), concurrency, count))
    used = running.cpu_seconds() - before
    times = sorted(result.first_byte_seconds) or [0.0]
    p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
    return Sample(1000 * used / count, (1000 * statistics.median(times), 1000 * p99), result.failed)


def compare(
    scenario: Scenario, runs: int
) -> tuple[dict[tuple[str, int], list[Sample]], dict[str, float]]:
    """All peers in turn, so many times over.

    Returns:
        Samples by peer and concurrency, and resident MiB by peer.
    """
    samples: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    memory: dict[str, float] = {}
    with ExitStack() as stack:
        port = free_port()
        start_stub(port, *scenario.options)(stack)
        running: dict[str, Running] = {}
        for peer in PEERS:
            if peer.name in scenario.peers:
                try:
                    running[peer.name] = peer.start(port, stack)
                except LookupError as missing:
                    print(f"without {peer.name}: {missing}")
        taking_part = [peer for peer in PEERS if peer.name in running]
        turns = [
            (peer, concurrency, requests)
            for _ in range(runs)
            for concurrency, requests in scenario.requests.items()
            for peer in taking_part
        ]
        for peer in taking_part:
            measure(peer, running[peer.name], 16, 64)  # connections, caches, imports
        for peer, concurrency, requests in tqdm(turns, desc=scenario.name):
            sample = measure(peer, running[peer.name], concurrency, requests)
            samples[peer.name, concurrency].append(sample)
        memory |= {name: each.resident_mib() for name, each in running.items()}
    return samples, memory


def table(
    scenario: Scenario, samples: dict[tuple[str, int], list[Sample]], memory: dict[str, float]
) -> str:
    """The medians as Markdown."""
    levels = list(scenario.requests)
    heads = [f"CPU ms a request, {level} at once" for level in levels]
    columns = ["proxy", *heads, "times nginx", "times bare relay", "CPU ms an audio second"]
    columns += ["first byte added p50 / p99 ms, 1 at once", "resident MiB", "failed"]
    lines = [
        f"### {scenario.name}\n",
        f"| {' | '.join(columns)} |",
        "|" + "---|" * len(columns),
    ]

    def middle(name: str, level: int) -> float:
        return statistics.median(each.cpu_ms for each in samples[name, level])

    level = 16
    for name in dict.fromkeys(name for name, _ in samples):
        cpu = [f"{middle(name, each):.2f}" for each in levels]
        ratios = [
            f"{middle(name, level) / middle(other, level):.2f}"
            if (other, level) in samples and middle(other, level)
            else "-"
            for other in ("nginx, unbuffered", "bare ASGI relay")
        ]
        added = "-"
        if 1 in levels:
            own, direct = (
                [
                    statistics.median(each.first_byte_ms[part] for each in samples[which, 1])
                    for part in (0, 1)
                ]
                for which in (name, "direct")
            )
            added = " / ".join(
                f"{mine - base:+.2f}" for mine, base in zip(own, direct, strict=True)
            )
        failed = sum(each.failed for each_level in levels for each in samples[name, each_level])
        lines.append(
            f"| {name} | {' | '.join(cpu)} | {ratios[0]} | {ratios[1]} "
            f"| {middle(name, level) / scenario.audio_seconds:.3f} | {added} "
            f"| {memory[name]:.0f} | {failed} |"
        )
    return "\n".join(lines) + "\n"


def plot(path: Path, samples: dict[tuple[str, int], list[Sample]]) -> None:
    """CPU a request by concurrency, one line a peer."""
    import matplotlib as mpl  # noqa: PLC0415  (only where there is a plot)

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(9, 5))
    for name in dict.fromkeys(name for name, _ in samples):
        if name == "direct":
            continue
        levels = [level for each, level in samples if each == name]
        middles = [statistics.median(s.cpu_ms for s in samples[name, level]) for level in levels]
        axes.plot(levels, middles, marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="requests at once", ylabel="CPU ms a request")
    axes.set_xticks(list(REQUESTS), [str(level) for level in REQUESTS])
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize="small", ncols=2)
    axes.set_title("4 s of audio, streamed")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Read the command line, compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="of each peer; medians are shown")
    parser.add_argument("--quick", action="store_true", help="one run of the first scenario")
    parser.add_argument("--offline", action="store_true", help="install nothing")
    parser.add_argument("--output", type=Path, default=Path("build/peers"), help="folder")
    asked = parser.parse_args()
    if not asked.offline:
        install()
    asked.output.mkdir(parents=True, exist_ok=True)
    scenarios = SCENARIOS[:1] if asked.quick else SCENARIOS
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    text = f"## Proxies beside each other, {dt.datetime.now(dt.UTC):%Y-%m-%d}, {machine}\n\n"
    print(text)
    for scenario in scenarios:
        samples, memory = compare(scenario, 1 if asked.quick else asked.runs)
        rows = table(scenario, samples, memory)
        print(rows, flush=True)
        text += rows + "\n"
        if scenario is SCENARIOS[0]:
            plot(asked.output / "peers.png", samples)
    (asked.output / "peers.md").write_text(text)


if __name__ == "__main__":
    main()
