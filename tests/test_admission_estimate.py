"""Who would wait in vain is told so at once; nobody else is."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission import Admission, predicted_wait_seconds
from gateway.errors import QueueFull, QueueTimeout, QueueTooSlow


@pytest.mark.parametrize(
    ("ahead", "held_seconds", "slots", "expected"),
    [(0, 4.0, 1, 4.0), (0, 4.0, 4, 1.0), (3, 4.0, 4, 4.0), (99, 4.0, 16, 25.0), (5, 0.0, 2, 0.0)],
)
def test_the_wait_is_that_of_all_who_stand_before(
    ahead: int, held_seconds: float, slots: int, expected: float
) -> None:
    """So many turns, each as long as the slots together take to free one."""
    assert predicted_wait_seconds(ahead, held_seconds, slots) == expected


class World:
    """Requests against an admission, on a clock that jumps from event to event.

    Args:
        admission: Made with this world's `clock`.
    """

    def __init__(self, slots: int, places: int, timeout_seconds: float) -> None:
        self.now = 0.0
        self.admission = Admission(slots, places, timeout_seconds, clock=lambda: self.now)
        self.outcomes: Counter[str] = Counter()
        self.waits: list[float] = []
        self.refusal_waits: list[float] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, moment: float, call: Callable[[], None]) -> None:
        """Have something happen."""
        heapq.heappush(self._events, (moment, next(self._order), call))

    async def request(self, service_seconds: float) -> None:
        """One request: it waits, holds its slot, and gives it back."""
        came = self.now
        try:
            await self.admission.acquire()
        except QueueFull as error:
            self.outcomes[error.code] += 1
            self.refusal_waits.append(self.now - came)
            return
        self.outcomes["served"] += 1
        self.waits.append(self.now - came)
        self.at(self.now + service_seconds, self.admission.release)

    async def run(self, until: float) -> None:
        """Let time pass; the event loop's own timers never fire meanwhile."""
        while self._events and self._events[0][0] <= until:
            moment, _, call = heapq.heappop(self._events)
            self.now = moment
            call()
            for _ in range(4):
                await asyncio.sleep(0)
        self.now = until


def crowd(rate: float, service_seconds: Callable[[int], float], seconds: float) -> World:
    """Requests at a constant rate after a calm minute; 8 slots, 1,000 places, 10 s deadline."""

    async def main() -> World:
        world = World(8, 1000, 10.0)
        tasks: list[asyncio.Task[None]] = []

        def come(number: int) -> Callable[[], None]:
            def call() -> None:
                tasks.append(asyncio.create_task(world.request(service_seconds(number))))

            return call

        for number in range(60):  # calm: one a second
            world.at(float(number), come(number))
        for number in range(int(rate * seconds)):
            world.at(60 + number / rate, come(number))
        await world.run(60 + seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return world

    return asyncio.run(main())


def test_ten_times_the_load_is_served_in_time_and_the_rest_refused_at_once() -> None:
    """Slots are never idle, nobody waits beyond the deadline, no refusal comes late."""
    world = crowd(40.0, lambda _: 2.0, 60.0)
    possible = 8 / 2.0 * 60
    assert world.outcomes["served"] - 60 >= 0.99 * possible
    assert max(world.waits) <= 10.0
    assert max(world.refusal_waits) == 0.0
    assert world.outcomes.keys() == {"served", "queue_too_slow"}


def test_long_and_short_requests_mixed_are_hardly_different() -> None:
    """Every fourth holds its slot ten times as long: the deadline itself ends few waits."""
    world = crowd(40.0, lambda number: 5.0 if number % 4 == 0 else 0.5, 120.0)
    late = sum(wait > 10.0 for wait in world.waits)  # no timer fires in this world
    assert late <= 0.1 * len(world.waits)
    assert max(world.refusal_waits) == 0.0
    assert world.admission.in_flight == 8


def test_a_load_that_fits_is_never_refused() -> None:
    """Nine tenths of what the slots can do, in bursts of sixteen."""

    async def main() -> World:
        world = World(8, 1000, 10.0)
        for burst in range(100):
            for _ in range(16):
                world.at(burst * 4.5, lambda: tasks.append(asyncio.create_task(world.request(2.0))))
        tasks: list[asyncio.Task[None]] = []
        await world.run(500.0)
        await asyncio.gather(*tasks)
        return world

    assert asyncio.run(main()).outcomes == {"served": 1600}


def test_what_was_slow_before_a_pause_refuses_nobody_whose_turn_is_next() -> None:
    """An empty queue is always open, whatever the estimate says."""

    async def main() -> None:
        world = World(2, 10, 10.0)
        for _ in range(20):  # each slot was held for five minutes
            await world.admission.acquire()
            world.now += 300
            world.admission.release()
        await world.admission.acquire()
        await world.admission.acquire()
        waiting = asyncio.create_task(world.admission.acquire())
        await asyncio.sleep(0)
        assert world.admission.queued == 1
        with pytest.raises(QueueTooSlow) as refused:
            await world.admission.acquire()
        assert refused.value.retry_after_seconds == 60
        world.admission.release()
        await waiting

    asyncio.run(main())


def test_an_engine_that_stands_still_is_noticed_without_a_release() -> None:
    """Held slots count while they are held: the line closes although nothing comes back."""

    async def main() -> None:
        world = World(4, 1000, 10.0)
        for _ in range(20):
            await world.admission.acquire()
            world.now += 1
            world.admission.release()
        for _ in range(4):
            await world.admission.acquire()
        waiting = [asyncio.create_task(world.admission.acquire()) for _ in range(4)]
        await asyncio.sleep(0)
        assert world.admission.queued == 4
        world.now += 60
        with pytest.raises(QueueTooSlow):
            await world.admission.acquire()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(main())


def test_whoever_waits_too_long_all_the_same_is_told_apart() -> None:
    """The estimate knows nothing yet: the deadline is what ends the wait."""

    async def main() -> None:
        admission = Admission(1, 10, 0.01)
        await admission.acquire()
        with pytest.raises(QueueTimeout):
            await admission.acquire()
        assert admission.queued == 0

    asyncio.run(main())


STEPS = st.lists(st.sampled_from(["come", "leave", "release", "second", "minute"]), max_size=120)


async def walk(steps: list[str], slots: int, places: int) -> None:
    """Take the steps, and look after each of them."""
    world = World(slots, places, 10.0)
    admission = world.admission
    tasks: list[asyncio.Task[float]] = []
    holders = 0
    for step in steps:
        world.now += {"second": 1.0, "minute": 60.0}.get(step, 0.0)
        if step == "come":
            tasks.append(asyncio.create_task(admission.acquire()))
        elif step == "leave" and tasks:
            tasks.pop().cancel()
        elif step == "release" and holders:
            admission.release()
            holders -= 1
        for _ in range(4):
            await asyncio.sleep(0)
        done = [task for task in tasks if task.done()]
        tasks = [task for task in tasks if not task.done()]
        holders += sum(not task.cancelled() and task.exception() is None for task in done)
        assert admission.in_flight == holders <= slots
        assert admission.queued == len(tasks) <= places
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for _ in range(holders):
        admission.release()
    assert repr(admission) == f"<Admission 0/{slots} in flight, 0/{places} queued>"


@settings(deadline=None)
@given(STEPS, st.integers(1, 4), st.integers(0, 5))
def test_no_slot_and_no_place_is_ever_lost(steps: list[str], slots: int, places: int) -> None:
    """Whatever the order of arrivals, departures and releases."""
    asyncio.run(walk(steps, slots, places))
