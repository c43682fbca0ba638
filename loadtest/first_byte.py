"""Time to the first audio byte of a sentence: through the gateway against its engine directly.

Both are asked in turn, in one run, so that the difference is the gateway's own.
    python -m loadtest.first_byte [--calls 20]
"""

from __future__ import annotations

import argparse
import statistics
import time

import httpx
import psutil

from loadtest.processes import running_engine, running_serve

SENTENCE = "Fifteen plain words make up this sentence, which a voice reads to us right now."


def first_byte_seconds(client: httpx.Client, url: str, body: dict[str, str]) -> float:
    """Seconds from the request to its first audio byte, the answer read to its end."""
    began = time.perf_counter()
    with client.stream("POST", url, json=body) as answer:
        answer.raise_for_status()
        chunks = answer.iter_raw()
        next(chunks)
        taken = time.perf_counter() - began
        for _ in chunks:
            pass
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--voice", default="cpu", choices=["cpu", "simulated"])
    arguments = parser.parse_args()
    with (
        running_engine("--voice", arguments.voice) as engine,
        running_serve(upstreams=engine.address) as serve,
        httpx.Client(timeout=30) as client,
    ):
        model = client.get(engine.address + "/v1/models").json()["data"][0]["id"]
        body = {"model": model, "voice": "en_woman", "input": SENTENCE}
        path = "/v1/audio/speech"
        targets = {
            "engine, pcm": (engine.address + path, {**body, "response_format": "pcm"}),
            **{
                f"gateway, {name}": (serve.url + path, {**body, "response_format": name})
                for name in ("pcm", "wav", "mp3", "opus", "aac", "flac")
            },
        }
        taken: dict[str, list[float]] = {name: [] for name in targets}
        for call in range(arguments.calls + 1):
            for name, (url, fields) in targets.items():
                seconds = first_byte_seconds(client, url, fields)
                if call:  # the first call opens connections
                    taken[name].append(seconds)
        direct = statistics.median(taken["engine, pcm"])
        print("| path | p50 ms | over the engine ms | worst ms |\n|---|---|---|---|")
        for name, times in taken.items():
            middle = statistics.median(times)
            print(
                f"| {name} | {middle * 1000:.1f} | {(middle - direct) * 1000:+.1f} "
                f"| {max(times) * 1000:.1f} |"
            )
        memory_bytes = psutil.Process(serve.process.pid).memory_info().rss
        print(f"\ngateway resident without the engine: {memory_bytes / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
