"""Time to first audio and underruns of the stream profiles, at several speeds of the engine.

Each profile runs through a gateway of its own against one simulated engine; the engine asked with
its own defaults is measured in the same run.
    python -m loadtest.profiles [--rates 25,40,53,94]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass

import aiohttp

from gateway.audio.pcm import ENGINE_BYTES_PER_SECOND
from gateway.audio.playback import Player
from loadtest.processes import running_engine, running_serve

TEXT = (
    "It was a bright cold day in spring, and the clocks in the old town were striking one. "
    "She walked along the river, past the mill and the bakery, and thought of the long letter "
    "that she had not yet answered."
)
CALLS = 3


@dataclass(frozen=True, slots=True)
class Heard:
    """What a player met with: seconds to the first audio, and seconds without any after it."""

    first_seconds: float
    underrun_seconds: float


async def listen(session: aiohttp.ClientSession, url: str, body: dict[str, str]) -> Heard:
    """Read one PCM answer as it comes."""
    began = time.monotonic()
    first = 0.0
    received = 0
    player = Player()
    async with session.post(url, json=body) as answer:
        answer.raise_for_status()
        while data := await answer.content.readany():
            now = time.monotonic()
            first = first or now - began
            received += len(data)
            player.deliver(began, now, received / ENGINE_BYTES_PER_SECOND)
    return Heard(first, player.underrun_seconds)


async def measure(targets: dict[str, tuple[str, dict[str, str]]]) -> dict[str, Heard]:
    """The median of a few calls to each target, all targets at once."""
    async with aiohttp.ClientSession() as session:

        async def one(url: str, body: dict[str, str]) -> Heard:
            heard = [await listen(session, url, body) for _ in range(CALLS)]
            return Heard(
                statistics.median(h.first_seconds for h in heard),
                statistics.median(h.underrun_seconds for h in heard),
            )

        results = await asyncio.gather(*(one(*target) for target in targets.values()))
    return dict(zip(targets, results, strict=True))


def run(rate: float) -> dict[str, Heard]:
    """All profiles at one speed of the engine, in tokens a second for each stream."""
    path = "/v1/audio/speech"
    with ExitStack() as scope:
        engine = scope.enter_context(
            running_engine("--voice", "simulated", "--tokens-per-second", f"{rate:g}")
        )
        model = "higgs-audio-v2-generation-3B-base"
        body = {"voice": "belinda", "input": TEXT, "response_format": "pcm"}
        targets = {"container": (engine.address + path, {**body, "model": model})}
        for profile in ("standard", "balanced", "low_latency"):
            serve = scope.enter_context(
                running_serve(upstreams=engine.address, stream_profile=profile)
            )
            targets[profile] = (serve.url + path, body)
        return asyncio.run(measure(targets))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", default="25,40,53,94")
    rates = [float(rate) for rate in parser.parse_args().rates.split(",")]
    print("| tokens/s | profile | first audio s | of the container's | underrun s |")
    print("|---|---|---|---|---|")
    for rate in rates:
        results = run(rate)
        base = results["container"].first_seconds
        for name, heard in results.items():
            print(
                f"| {rate:g} | {name} | {heard.first_seconds:.2f} "
                f"| {heard.first_seconds / base:.2f} | {heard.underrun_seconds:.2f} |"
            )


if __name__ == "__main__":
    main()
