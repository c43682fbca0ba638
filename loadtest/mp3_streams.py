"""Many MP3 streams at once through one gateway: does its event loop stay free?

A simulated engine shares 1,500 tokens a second among 200 streams, as an A100 would; the gateway's
loop is measured from inside, with a timer that should fire every 5 ms.
    python -m loadtest.mp3_streams [--streams 200]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import suppress

import aiohttp
import uvicorn

from gateway.app import create_app
from gateway.settings import load_settings
from loadtest.processes import free_port, running_engine

TICK_SECONDS = 0.005
TEXT = "The sea was calm that night, and the ship went slowly along the dark coast to the north."


async def watch_loop(delays: list[float]) -> None:
    """Note by how much each tick of a timer comes late."""
    while True:
        due = time.perf_counter() + TICK_SECONDS
        await asyncio.sleep(TICK_SECONDS)
        delays.append(time.perf_counter() - due)


async def read(session: aiohttp.ClientSession, url: str, response_format: str) -> int:
    """One answer; its bytes."""
    body = {"input": TEXT, "response_format": response_format}
    async with session.post(url, json=body) as answer:
        answer.raise_for_status()
        return len(await answer.read())


async def drive(url: str, streams: int, response_format: str) -> list[int]:
    """All streams at once."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        return await asyncio.gather(*(read(session, url, response_format) for _ in range(streams)))


def drive_in_thread(url: str, streams: int, response_format: str) -> list[int]:
    """The client's own loop, apart from the one that is measured."""
    return asyncio.run(drive(url, streams, response_format))


async def measure(upstream: str, streams: int, response_format: str) -> tuple[list[float], int]:
    """Serve, watch the loop, let the clients run."""
    port = free_port()
    settings = load_settings(
        upstreams=upstream, port=port, max_in_flight=streams, first_audio_timeout_seconds=120
    )
    app = create_app(settings)
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_level="warning", access_log=False, ws="none")
    )
    serving = asyncio.create_task(server.serve())
    while not (server.started and app.runtime.pool.ready):  # noqa: ASYNC110  (no event)
        await asyncio.sleep(TICK_SECONDS)
    delays: list[float] = []
    watching = asyncio.create_task(watch_loop(delays))
    sizes = await asyncio.to_thread(
        drive_in_thread, f"http://127.0.0.1:{port}/v1/audio/speech", streams, response_format
    )
    watching.cancel()
    server.should_exit = True
    with suppress(asyncio.CancelledError):
        await serving
    return sorted(delays), sum(size > 0 for size in sizes)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--response-format", default="mp3")
    arguments = parser.parse_args()
    with running_engine(
        *("--voice", "simulated", "--tokens-per-second", "100"),
        *("--total-tokens-per-second", "1500"),
    ) as engine:
        began = time.monotonic()
        with asyncio.Runner() as runner:
            delays, complete = runner.run(
                measure(engine.address, arguments.streams, arguments.response_format)
            )
    print(
        f"{complete} of {arguments.streams} complete in {time.monotonic() - began:.1f} s; "
        f"event-loop delay p50 {delays[len(delays) // 2] * 1000:.1f} ms, "
        f"p99 {delays[int(len(delays) * 0.99)] * 1000:.1f} ms, worst {delays[-1] * 1000:.1f} ms"
    )


if __name__ == "__main__":
    main()
