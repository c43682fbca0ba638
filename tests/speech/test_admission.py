"""Admission: never more than the slots, first come first served, and no slot is ever lost."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import QueueFull
from gateway.speech.admission import Admission

pytestmark = pytest.mark.anyio


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_free_slot_is_taken_at_once() -> None:
    """Nobody waits while a slot is free."""
    admission = Admission(slots=1, places=0, timeout_seconds=1)
    assert await admission.acquire() == 0.0
    assert repr(admission) == "<Admission 1/1 in flight, 0/0 queued>"


async def test_those_who_wait_are_served_in_order_of_arrival() -> None:
    """The queue is first come, first served."""
    admission = Admission(slots=1, places=10, timeout_seconds=60)
    await admission.acquire()
    served: list[int] = []

    async def client(number: int) -> None:
        await admission.acquire()
        served.append(number)
        admission.release()

    tasks = [asyncio.create_task(client(number)) for number in range(5)]
    await settle()
    assert admission.queued == 5
    admission.release()
    await asyncio.gather(*tasks)
    assert served == [0, 1, 2, 3, 4]
    assert admission.in_flight == 0


async def test_a_request_gets_the_slot_of_spare_work_that_still_runs() -> None:
    """Work that has ended has nothing to give way with."""
    admission = Admission(slots=2, places=10, timeout_seconds=60)
    async with admission.spare(60) as running:
        async with admission.spare(60):
            pass
        ended = asyncio.Event()
        running.give_way = ended.set
        await admission.acquire()
        request = asyncio.create_task(admission.acquire())
        await settle()
        assert ended.is_set()
    await request
    assert admission.in_flight == 2


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    """Waiting in vain helps nobody."""
    admission = Admission(slots=1, places=0, timeout_seconds=60)
    await admission.acquire()
    with pytest.raises(QueueFull) as refused:
        await admission.acquire()
    assert refused.value.retry_after_seconds is not None
    assert 1 <= refused.value.retry_after_seconds <= 60


async def test_a_wait_that_is_too_long_is_refused_and_frees_its_place() -> None:
    """The queue's deadline holds, and the place is free again."""
    admission = Admission(slots=1, places=1, timeout_seconds=0.01)
    await admission.acquire()
    with pytest.raises(QueueFull):
        await admission.acquire()
    assert admission.queued == 0
    assert admission.in_flight == 1


async def test_a_client_that_leaves_the_queue_frees_its_place() -> None:
    """Cancelled in line: the next one moves up."""
    admission = Admission(slots=1, places=2, timeout_seconds=60)
    await admission.acquire()
    leaving = asyncio.create_task(admission.acquire())
    staying = asyncio.create_task(admission.acquire())
    await settle()
    leaving.cancel()
    await asyncio.wait([leaving])
    assert admission.queued == 1
    admission.release()
    assert await staying >= 0
    assert admission.in_flight == 1


async def test_a_slot_that_comes_at_the_moment_of_cancellation_is_not_lost() -> None:
    """The slot was handed over, then its new owner was cancelled before it ran."""
    admission = Admission(slots=1, places=2, timeout_seconds=60)
    await admission.acquire()
    waiting = asyncio.create_task(admission.acquire())
    await settle()
    admission.release()  # handed over ...
    waiting.cancel()  # ... and cancelled in the same turn of the loop
    await asyncio.wait([waiting])
    assert admission.in_flight == 0
    await asyncio.wait_for(admission.acquire(), 1)


@given(st.lists(st.sampled_from(["come", "leave", "done"]), max_size=60))
def test_no_history_loses_or_doubles_a_slot(history: list[str]) -> None:
    """Whatever clients do, the slots in use are those that somebody holds."""

    async def run() -> None:
        admission = Admission(slots=2, places=3, timeout_seconds=60)
        tasks: list[asyncio.Task[float]] = []
        holders = 0
        for event in history:
            if event == "come":
                tasks.append(asyncio.create_task(admission.acquire()))
            elif event == "leave" and tasks:
                tasks.pop().cancel()
            elif event == "done" and holders:
                holders -= 1
                admission.release()
            await settle()
            for task in [task for task in tasks if task.done()]:
                tasks.remove(task)
                holders += task.exception() is None
            assert admission.in_flight == holders <= 2
            assert admission.queued == len(tasks) <= 3
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
