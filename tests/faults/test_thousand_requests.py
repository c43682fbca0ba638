"""A thousand requests, a fifth of them meeting a fault: whole and correct, or an honest failure."""

from __future__ import annotations

import asyncio
import collections
import gc
import os
import random
from typing import Any

import aiohttp
import httpx
import psutil

from engines.simulator.waveform import expected_pcm
from loadtest.processes import engine_state
from tests.running import Gateway, running_engine, running_gateway, wait_until

REQUESTS = 1000
CONCURRENT = 50
DEADLINE_SECONDS = 120.0
# The bound of a hang and of a stall: far above what a busy machine takes for honest audio.
TIMEOUT_SECONDS = 4.0
KINDS = [
    "hang",
    "reset",
    "raise",
    "raiselate-40000",
    "raiselate-40001",
    "cut-40000",
    "stall-40000",
    "truncate-1920",
    "empty",
    "error",
    "slow-100",
]
WORDS = ["river", "ran", "slowly", "past", "an", "old", "mill", "and", "nobody", "could", "say"]


def sentence(number: int, dice: random.Random) -> str:
    """A text of its own for each request."""
    return f"Number {number} says: {' '.join(dice.choices(WORDS, k=dice.randint(3, 14)))}."


async def ask(session: aiohttp.ClientSession, url: str, number: int) -> str:
    """One request; what came of it, or an assertion that it was corrupt."""
    dice = random.Random(number)  # noqa: S311  (repeatable requests, no secret)
    text, voice = sentence(number, dice), dice.choice(["mabel", "vex", "belinda"])
    body: dict[str, Any] = {
        "model": "tts-1",
        "input": text,
        "voice": voice,
        "response_format": "pcm",
    }
    body["stream"] = dice.random() < 0.7
    if dice.random() < 0.3:
        body["instructions"] = "in a quiet hall"
        voice = ""
    async with asyncio.timeout(DEADLINE_SECONDS):
        try:
            async with session.post(url, json=body) as answer:
                content = await answer.read()
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError):
            assert body["stream"], "a buffered answer is never aborted"
            return "aborted"
    if answer.status == 200:
        assert content == expected_pcm(text, voice), f"request {number} is corrupt"
        return "complete"
    error = await answer.json()
    assert answer.status in {429, 502, 503, 504}, error
    assert error["error"]["code"]
    return f"refused {answer.status}"


async def run_all(url: str) -> collections.Counter[str]:
    """All requests, some at once."""
    gate = asyncio.Semaphore(CONCURRENT)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(number: int) -> str:
            async with gate:
                return await ask(session, url, number)

        return collections.Counter(await asyncio.gather(*(one(n) for n in range(REQUESTS))))


def running_on(engine: str) -> int:
    """Generations that a simulator runs."""
    return int(engine_state(engine)["running"])


def tasks_of(gateway: Gateway) -> int:
    """Tasks that live on the gateway's event loop."""
    assert gateway.loop is not None
    return len(asyncio.all_tasks(gateway.loop))


def test_a_thousand_requests_with_faults_end_whole_or_honest() -> None:
    """None is corrupt, none hangs past its deadline, nothing is left behind."""
    fast = ("--voice", "simulated", "--tokens-per-second", "3000")
    process = psutil.Process(os.getpid())
    with running_engine(*fast) as first, running_engine(*fast) as second:
        engines = [first.address, second.address]
        with running_gateway(
            upstreams=",".join(engines),
            first_audio_timeout_seconds=TIMEOUT_SECONDS,
            idle_timeout_seconds=TIMEOUT_SECONDS,
            slowest_tokens_per_second=1000,
        ) as gateway:
            url = gateway.url + "/v1/audio/speech"
            wait_until(lambda: all(u.healthy for u in gateway.runtime.pool.upstreams), "ready")
            asyncio.run(run_all(url))  # a warm round without faults: buffers, caches, connections
            gc.collect()
            tasks, memory = tasks_of(gateway), process.memory_info().rss
            for seed, engine in enumerate(engines):
                plan = {"rate": 0.2, "kinds": KINDS, "seed": seed}
                httpx.post(engine + "/simulator/faults", json=plan).raise_for_status()
            outcomes = asyncio.run(run_all(url))
            for engine in engines:
                httpx.post(engine + "/simulator/faults", json={}).raise_for_status()

            assert sum(outcomes.values()) == REQUESTS
            # A fifth meets a fault; only faults after the first byte of a stream may show.
            assert outcomes["complete"] > 0.85 * REQUESTS, outcomes
            assert 0 < outcomes["aborted"] < 0.1 * REQUESTS, outcomes
            wait_until(lambda: not any(map(running_on, engines)), "the engines are free", 20)
            wait_until(lambda: gateway.runtime.admission.in_flight == 0, "all slots are free", 20)
            assert [u.in_flight for u in gateway.runtime.pool.upstreams] == [0, 0]
            wait_until(lambda: tasks_of(gateway) <= tasks, "no task is left", 20)
            gc.collect()
            grown = process.memory_info().rss - memory
            assert grown < 30 * 2**20, f"{grown / 2**20:.0f} MiB more than before"
            print(f"outcomes {dict(outcomes)}; memory {grown / 2**20:+.1f} MiB")
