"""Time to the first audio byte of a sentence: through the gateway against its engine directly.

Both are asked in turn, in one run, so that the difference is the gateway's own. With `--job`, the
gateway is asked with and without a job of a long text beside it, instead.
    python -m loadtest.first_byte [--calls 20] [--job]
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


def beside_a_job(calls: int) -> None:
    """Measure requests alone and beside a job, in turn, and print."""
    body = {"voice": "en_woman", "model": "tts-1", "input": SENTENCE, "response_format": "pcm"}
    text = " ".join(f"Sentence number {number} of a long text." for number in range(20_000))
    taken: dict[str, list[float]] = {"alone": [], "beside a job": []}
    with (
        running_engine("--voice", "simulated", "--total-tokens-per-second", "1500") as engine,
        running_serve(upstreams=engine.address) as serve,
        httpx.Client(base_url=serve.url, timeout=60) as client,
    ):
        answer = client.post("/v1/audio/jobs", json={**body, "model": "tts-1", "input": text})
        job = f"/v1/audio/jobs/{answer.raise_for_status().json()['id']}"
        for call in range(calls + 1):
            for name, action in (("alone", "pause"), ("beside a job", "resume")):
                client.post(f"{job}/{action}")
                time.sleep(1.5)  # the job's generations end, or begin
                seconds = first_byte_seconds(client, "/v1/audio/speech", body)
                if call:
                    taken[name].append(seconds)
    print("| | p50 ms | worst ms |\n|---|---|---|")
    for name, times in taken.items():
        print(f"| {name} | {statistics.median(times) * 1000:.1f} | {max(times) * 1000:.1f} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--voice", default="cpu", choices=["cpu", "simulated"])
    parser.add_argument("--job", action="store_true", help="on a simulated A100, beside a job")
    arguments = parser.parse_args()
    if arguments.job:
        beside_a_job(arguments.calls)
        return
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
