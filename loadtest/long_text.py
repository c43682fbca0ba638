"""A long text as one streamed answer: how near its segments come to all that the engine can give.

A simulated engine shares its tokens a second among 8 slots; the best possible time is all tokens
at that rate, and the answer should take at most 1.2 times as long.
    python -m loadtest.long_text [--words 10000] [--slots 8] [--total-tokens-per-second 600]
"""

from __future__ import annotations

import argparse
import sys
import time

import httpx
import psutil

from gateway.audio.pcm import ENGINE_BYTES_PER_SECOND
from loadtest.processes import running_engine, running_serve
from loadtest.prose import prose

MOST_RATIO = 1.2
TIMEOUT_SECONDS = 60.0


def main() -> int:
    """Measure and print; 1 where it took too long."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--words", type=int, default=10_000)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--tokens-per-second", type=float, default=94, help="of one stream")
    parser.add_argument("--total-tokens-per-second", type=float, default=600, help="of all")
    arguments = parser.parse_args()
    # So many streams may not be able to take all that the engine has.
    rate = min(arguments.total_tokens_per_second, arguments.slots * arguments.tokens_per_second)
    with (
        running_engine(
            "--voice=simulated",
            f"--tokens-per-second={arguments.tokens_per_second}",
            f"--total-tokens-per-second={arguments.total_tokens_per_second}",
        ) as engine,
        running_serve(upstreams=engine.address, max_in_flight=arguments.slots) as serve,
        httpx.Client(timeout=TIMEOUT_SECONDS) as client,
    ):
        before = client.get(engine.address + "/simulator/state").json()
        body = {"input": prose(arguments.words), "voice": "belinda", "response_format": "pcm"}
        memory = psutil.Process(serve.process.pid).memory_info
        peak_bytes, size, first = memory().rss, 0, 0.0
        began = looked = time.perf_counter()
        with client.stream("POST", serve.url + "/v1/audio/speech", json=body) as answer:
            answer.raise_for_status()
            for data in answer.iter_raw():
                first = first or time.perf_counter() - began
                size += len(data)
                if time.perf_counter() - looked > 0.1:  # noqa: PLR2004
                    looked = time.perf_counter()
                    peak_bytes = max(peak_bytes, memory().rss)
        seconds = time.perf_counter() - began
        after = client.get(engine.address + "/simulator/state").json()
    tokens = after["audio_tokens"] - before["audio_tokens"]
    segments = after["requests_total"] - before["requests_total"]
    best = tokens / rate
    print(
        f"{arguments.words} words in {segments} segments on {arguments.slots} slots: "
        f"{size / ENGINE_BYTES_PER_SECOND:.0f} s of audio in {seconds:.1f} s\n"
        f"{tokens} tokens at {rate:g}/s take {best:.1f} s: ratio {seconds / best:.3f} "
        f"(at most {MOST_RATIO})\n"
        f"first byte {first * 1000:.0f} ms; most segments at once {after['peak_running']}; "
        f"gateway's peak {peak_bytes / 1e6:.0f} MB"
    )
    return 0 if seconds <= MOST_RATIO * best else 1


if __name__ == "__main__":
    sys.exit(main())
