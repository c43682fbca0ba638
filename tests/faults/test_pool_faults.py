"""One of three engines dies, stands still or comes to rest, and what a hundred clients get.

Real engine processes on ports of their own, so that a killed one can be started again where it was.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import aiohttp
import httpx
import pytest

from engines.simulator.waveform import expected_pcm
from gateway.app import LEAST_RETRIES
from gateway.upstream.retry_budget import SHARE
from loadtest.processes import engine_state, free_port
from tests.asking import AS_ADMIN, WITH_ADMIN
from tests.running import Gateway, answers, running_gateway, wait_until

CLIENTS = 100
TEXT = "Every {0} clients ask number {0} for a sentence that nobody else has asked for yet."
WHOLE, ABORTED = "whole", "aborted"


class Engine:
    """A simulated engine on a port of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; `live` says when it answers."""
        command = [
            *(sys.executable, "-m", "engines.serve", "--voice", "simulated"),
            *("--port", str(self.port), "--tokens-per-second", "100", "--exit-with-parent"),
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)

    def live(self) -> bool:
        """Whether it answers."""
        return answers(self.address + "/health")

    def mend(self) -> None:
        """Make it well again, whatever a test did to it."""
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self.start()
        self.signal(signal.SIGCONT)
        wait_until(self.live, "the engine is live")
        httpx.post(self.address + "/simulator/faults", json={}).raise_for_status()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def stop(self) -> None:
        """End it, whatever state it is in."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process = None

    def generations(self) -> int:
        """How many it has begun."""
        return int(engine_state(self.address)["requests_total"])


@pytest.fixture(scope="module")
def processes() -> Iterator[list[Engine]]:
    """Three engines, started at once."""
    with ExitStack() as scope:
        engines = [Engine() for _ in range(3)]
        for engine in engines:
            scope.callback(engine.stop)
            engine.start()
        yield engines


@pytest.fixture
def engines(processes: list[Engine]) -> list[Engine]:
    """The three, all well."""
    for engine in processes:
        engine.mend()
    return processes


@pytest.fixture
def gateway(engines: list[Engine]) -> Iterator[Gateway]:
    """A gateway that knows all three, and is ready to use each."""
    with running_gateway(
        upstreams=",".join(engine.address for engine in engines),
        max_in_flight=128,
        # One engine is stopped, and the others must not be taken for it on a busy machine.
        first_audio_timeout_seconds=8,
        idle_timeout_seconds=8,
        **WITH_ADMIN,
    ) as running:
        wait_until(lambda: all_ready(running), "all three are ready")
        yield running


def all_ready(gateway: Gateway) -> bool:
    """Whether each upstream takes part."""
    return all(upstream.state == "ready" for upstream in gateway.runtime.pool.upstreams)


async def ask(session: aiohttp.ClientSession, url: str, number: int, first: asyncio.Event) -> str:
    """One streamed request; how it ended. `first` is set at its first audio.

    They come over a second and a half, so that some are before their first audio at any moment.
    """
    await asyncio.sleep(number * 0.015)
    text = TEXT.format(number)
    body = {"model": "tts-1", "input": text, "voice": "belinda", "response_format": "pcm"}
    heard = b""
    try:
        async with session.post(url + "/v1/audio/speech", json=body) as answer:
            if answer.status != 200:
                return str(answer.status)
            async for data in answer.content.iter_any():
                heard += data
                first.set()
    except aiohttp.ClientPayloadError:
        assert expected_pcm(text, "belinda").startswith(heard), "wrong audio before the abort"
        return ABORTED
    assert heard == expected_pcm(text, "belinda"), "a clean end of something else"
    return WHOLE


async def crowd(url: str, victim: Engine, number: signal.Signals) -> Counter[tuple[bool, str]]:
    """A hundred requests, and a signal to an engine as soon as forty of them have heard audio.

    Returns:
        How they ended, by whether they had heard audio when the signal was sent.
    """
    firsts = [asyncio.Event() for _ in range(CLIENTS)]
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.timeout(60):
        tasks = [
            asyncio.create_task(ask(session, url, number, first))
            for number, first in enumerate(firsts)
        ]
        waits = asyncio.as_completed([first.wait() for first in firsts])
        for waiting in itertools.islice(waits, 40):
            await waiting
        had_audio = [first.is_set() for first in firsts]
        victim.signal(number)
        endings = await asyncio.gather(*tasks)
    return Counter(zip(had_audio, endings, strict=True))


def test_killing_one_of_three_fails_nobody_who_had_not_heard_audio(
    gateway: Gateway, engines: list[Engine]
) -> None:
    """They are spoken elsewhere; those who had are aborted at worst; the engine comes back."""
    ended = asyncio.run(crowd(gateway.url, engines[0], signal.SIGKILL))
    print(ended)
    assert sum(ended.values()) == CLIENTS
    unheard = {ending: count for (had, ending), count in ended.items() if not had}
    # One may have heard its first audio between the count and the signal.
    assert unheard.keys() <= {WHOLE, ABORTED}
    assert ended.keys() <= {(True, WHOLE), (True, ABORTED), (False, WHOLE), (False, ABORTED)}
    aborted_late = unheard.get(ABORTED, 0)
    assert gateway.metric("gateway_requests_total", surface="openai", outcome="truncated") == (
        aborted_late + ended[True, ABORTED]
    )
    assert gateway.metric("gateway_requests_total", surface="openai", outcome="upstream_error") == 0
    wait_until(lambda: gateway.runtime.pool.upstreams[0].state == "ejected", "it is ejected")
    engines[0].mend()
    wait_until(lambda: all_ready(gateway), "it takes part again")
    before = engines[0].generations()
    asyncio.run(crowd(gateway.url, engines[0], signal.SIGCONT))
    assert engines[0].generations() > before


def test_an_engine_that_stands_still_is_passed_over_until_it_goes_on(
    gateway: Gateway, engines: list[Engine]
) -> None:
    """SIGSTOP: connections stay open and silent; the timeouts tell, and others speak."""
    ended = asyncio.run(crowd(gateway.url, engines[1], signal.SIGSTOP))
    assert sum(ended.values()) == CLIENTS
    assert {ending for had, ending in ended if not had} <= {WHOLE, ABORTED}
    wait_until(lambda: gateway.runtime.pool.upstreams[1].state != "ready", "it is ejected")
    engines[1].signal(signal.SIGCONT)
    wait_until(lambda: all_ready(gateway), "it takes part again")


def test_draining_moves_new_requests_and_cuts_no_stream(
    gateway: Gateway, engines: list[Engine]
) -> None:
    """An engine can be replaced while people listen to it."""
    admin = gateway.url + "/admin/upstreams"
    body = {
        "model": "tts-1",
        "input": TEXT.format(1) * 3,
        "voice": "belinda",
        "response_format": "pcm",
    }
    with httpx.stream("POST", gateway.url + "/v1/audio/speech", json=body, timeout=120) as answer:
        parts = answer.iter_raw()
        heard = next(parts)
        states = httpx.get(admin, headers=AS_ADMIN).json()["upstreams"]
        (busy,) = [state["upstream"] for state in states if state["in_flight"]]
        drained = httpx.post(admin + "/drain", json={"upstream": busy}, headers=AS_ADMIN).json()
        assert (drained["state"], drained["in_flight"]) == ("draining", 1)
        (engine,) = [engine for engine in engines if engine.address == busy]
        before = engine.generations()
        asyncio.run(crowd(gateway.url, engine, signal.SIGCONT))
        assert engine.generations() == before
        heard += b"".join(parts)
    assert heard == expected_pcm(TEXT.format(1) * 3, "belinda")
    named = {"upstream": busy + "/"}
    resumed = httpx.post(admin + "/resume", json=named, headers=AS_ADMIN).json()
    assert resumed["state"] == "ready"
    asyncio.run(crowd(gateway.url, engine, signal.SIGCONT))
    assert engine.generations() > before


def test_an_address_that_has_no_name_or_nobody_behind_it_costs_nothing(
    engines: list[Engine],
) -> None:
    """A wrong line in the settings is logged, and the others speak."""
    upstreams = ["http://no-such-host.invalid:8000", f"http://127.0.0.1:{free_port()}"]
    upstreams.append(engines[0].address)
    with running_gateway(upstreams=",".join(upstreams), **WITH_ADMIN) as gateway:
        answer = httpx.post(
            gateway.url + "/v1/audio/speech",
            json={
                "model": "tts-1",
                "input": TEXT.format(2),
                "voice": "belinda",
                "response_format": "pcm",
            },
            timeout=120,
        )
        assert answer.content == expected_pcm(TEXT.format(2), "belinda")
        states = httpx.get(gateway.url + "/admin/upstreams", headers=AS_ADMIN).json()["upstreams"]
        assert [state["state"] for state in states] == ["starting", "starting", "ready"]
        assert states[0]["failures"] > 0


def test_when_all_fail_the_budget_ends_the_retries(engines: list[Engine]) -> None:
    """A dead fleet sees a fifth more requests than clients send, not three times as many."""
    broken = {"always": "raise"}
    with running_gateway(upstreams=engines[0].address, max_in_flight=4) as gateway:
        httpx.post(engines[0].address + "/simulator/faults", json=broken).raise_for_status()
        before = engines[0].generations()
        body = {"model": "tts-1", "input": TEXT.format(3), "voice": "belinda"}
        asked, began = 60, time.monotonic()
        with httpx.Client(base_url=gateway.url, timeout=120) as client:
            for _ in range(asked):
                assert client.post("/v1/audio/speech", json=body).status_code == 502
        attempts = engines[0].generations() - before
        exhausted = gateway.metric("gateway_retry_budget_exhausted_total")
        elapsed = time.monotonic() - began
    # The reserve, a fifth of the requests, one a second.
    assert asked < attempts <= asked + LEAST_RETRIES + SHARE * asked + elapsed + 1
    assert exhausted > 0
