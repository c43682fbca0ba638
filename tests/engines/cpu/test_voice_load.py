"""The CPU voice beside many clients: it stops when nobody listens, is fair, and stays small."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.cpu.voice import CpuVoice
from tests.engines.speaking import PASSAGE, collect, job


@pytest.fixture(scope="module")
def voice() -> Iterator[CpuVoice]:
    """A started voice, shared: what it says does not depend on what it said."""
    started = CpuVoice(threads=2)
    asyncio.run(started.start())
    yield started
    asyncio.run(started.stop())


async def _drained(voice: CpuVoice) -> None:
    """Wait until the pool, which works first come, first served, has done all it was given."""
    loop = asyncio.get_running_loop()
    assert voice._pool is not None
    together = threading.Barrier(voice.threads)
    waits = [loop.run_in_executor(voice._pool, together.wait, 20) for _ in range(voice.threads)]
    await asyncio.gather(*waits)


def test_a_client_that_leaves_stops_the_work_after_the_piece_in_hand() -> None:
    """Of a long text, no more than the piece heard and the one in hand are ever synthesised."""

    async def leave() -> CpuVoice:
        own = CpuVoice(threads=1)
        await own.start()
        stream = own.generate(job("This is one of very many sentences. " * 200))
        assert await anext(stream)
        assert own.running == 1
        await stream.aclose()
        assert own.running == 0
        listening = asyncio.create_task(collect(own, job("Another long one follows now. " * 200)))
        while own.running == 0:  # noqa: ASYNC110 - one turn of the loop, not a wait
            await asyncio.sleep(0)
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening
        await _drained(own)
        await own.stop()
        return own

    own = asyncio.run(leave())
    assert own.aborted_total == 2
    assert own.running == 0
    assert own.pieces_synthesised_total <= 3


def test_a_long_text_does_not_keep_a_short_one_waiting() -> None:
    """With a single thread, a short request is answered while a long one goes on."""

    async def race() -> int:
        own = CpuVoice(threads=1)
        await own.start()
        heard = 0
        started = asyncio.Event()

        async def long() -> None:
            nonlocal heard
            async for _ in own.generate(job("The rain went on and on and on. " * 300)):
                heard += 1
                started.set()

        task = asyncio.create_task(long())
        await asyncio.wait_for(started.wait(), 20)
        before = heard
        assert await collect(own, job("Good morning."))
        between = heard - before
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await own.stop()
        return between

    assert asyncio.run(race()) <= 5


def _resident_bytes() -> int:
    statm = Path("/proc/self/statm").read_text(encoding="ascii")
    return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident memory from /proc")
def test_a_long_text_is_spoken_in_flat_memory(voice: CpuVoice) -> None:
    """Ten thousand characters cost no more memory than one thousand, and none are lost."""

    async def listen(text: str) -> tuple[int, int]:
        most = total = 0
        async for pcm in voice.generate(job(text, max_tokens=1_000_000)):
            total += len(pcm)
            most = max(most, _resident_bytes())
        return total, most

    short = f"{PASSAGE} " * 4
    one, low = asyncio.run(listen(short))
    ten, high = asyncio.run(listen(short * 10))
    assert len(short * 10) >= 10_000 - 100
    assert ten == pytest.approx(10 * one, rel=0.01)
    assert high - low < 24 * 1024 * 1024


def test_the_first_sound_of_a_huge_text_does_not_wait_for_its_end(voice: CpuVoice) -> None:
    """A hundred thousand characters start like ten."""

    async def first() -> tuple[int, int]:
        before = voice.pieces_synthesised_total
        stream = voice.generate(job(f"{PASSAGE} " * 400, max_tokens=1_000_000))
        size = len(await anext(stream))
        await stream.aclose()
        await _drained(voice)
        return size, voice.pieces_synthesised_total - before

    size, made = asyncio.run(first())
    assert size > 0
    assert made <= 2
