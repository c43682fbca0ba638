"""The simulated GPU's time."""

from __future__ import annotations

import asyncio
import math

import pytest

from engines.simulator.clock import GpuClock, Stream

pytestmark = pytest.mark.anyio
DEADLINE_SECONDS = 60.0


def idle_clock(each: float, total: float = math.inf, places: int = 99) -> GpuClock:
    """A clock that only moves when a test says so."""
    clock = GpuClock(each, total, places)
    clock._ticker = asyncio.get_running_loop().create_future()  # type: ignore[assignment]
    return clock


async def enter(clock: GpuClock, last_token: float = math.inf, delay: float = 0.0) -> Stream:
    """Take a place."""
    return await clock.enter(delay_seconds=delay, last_token=last_token)


async def test_streams_share_what_the_gpu_can_do() -> None:
    """Alone at the stream's own speed; many at an equal share of the total."""
    clock = idle_clock(each=100, total=300)
    first = await enter(clock)
    clock.advance(1)
    assert first.tokens == 100
    others = [await enter(clock) for _ in range(5)]
    clock.advance(1)
    assert first.tokens == 150
    assert {stream.tokens for stream in others} == {50}


async def test_prefill_passes_before_the_first_token() -> None:
    """A reference costs its owner time, not the others'."""
    clock = idle_clock(each=100)
    slow, quick = await enter(clock, delay=0.5), await enter(clock)
    clock.advance(0.4)
    assert (slow.tokens, quick.tokens) == (0, 40)
    clock.advance(0.4)
    assert slow.tokens == pytest.approx(30)


async def test_later_streams_wait_in_line_first_come_first_served() -> None:
    """As in vLLM's waiting queue; who finishes makes room, however slowly its client reads."""
    clock = idle_clock(each=100, places=1)
    await enter(clock, last_token=50)
    order: list[int] = []

    async def wait(number: int) -> None:
        await enter(clock, last_token=50)
        order.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert (clock.running, clock.waiting) == (1, 3)
    for number in range(3):
        clock.advance(0.5)
        await asyncio.wait_for(tasks[number], DEADLINE_SECONDS)
    assert order == [0, 1, 2]
    assert clock.waiting == 0


async def test_a_waiting_client_that_leaves_takes_no_place() -> None:
    """Neither before its turn, nor when its turn comes in the same moment."""
    clock = idle_clock(each=100, places=1)
    running = await enter(clock)
    gone, next_one = (asyncio.create_task(enter(clock)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait({gone})
    assert clock.waiting == 1
    clock.leave(running)
    next_one.cancel()
    await asyncio.wait({next_one})
    assert (clock.running, clock.waiting) == (0, 0)


async def test_the_ticker_keeps_real_time_and_stops_when_idle() -> None:
    """50 tokens at 500 a second take a tenth of a second."""
    loop = asyncio.get_running_loop()
    clock = GpuClock(500, math.inf, 10)
    began = loop.time()
    stream = await enter(clock, last_token=50)
    ticker = clock._ticker
    assert ticker is not None
    await asyncio.wait_for(clock.wait_for(stream, 50), DEADLINE_SECONDS)
    assert 0.1 <= loop.time() - began < 1
    await asyncio.wait_for(ticker, DEADLINE_SECONDS)
    assert (clock.running, clock._ticker) == (0, None)


async def test_a_frozen_clock_gives_nothing_to_anybody() -> None:
    """As the container after SIGTERM."""
    clock = idle_clock(each=100)
    stream = await enter(clock)
    clock.frozen = True
    clock.advance(10)
    assert stream.tokens == 0
