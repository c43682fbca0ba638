"""Days of overload, stalls and leaving crowds, with real deadlines on a clock that jumps."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import QueueFull
from gateway.speech.admission import Admission, predicted_wait_seconds


class JumpingClock(asyncio.SelectorEventLoop):
    """An event loop that never waits: its clock jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__(JumpingSelector(self))
        self.now = 0.0

    def time(self) -> float:
        """Seconds that have passed in its world."""
        return self.now


class JumpingSelector(selectors.DefaultSelector):
    """Looks for what is ready, and instead of waiting for more lets time pass."""

    def __init__(self, loop: JumpingClock) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now."""
        ready = super().select(0)
        if not ready and timeout:
            self._loop.now += timeout
        return ready


@dataclass
class Day:
    """What became of the requests of a simulation, in seconds of its world."""

    waits: list[float] = field(default_factory=list)
    refusals: dict[str, list[float]] = field(default_factory=dict)
    busy_seconds: float = 0.0


DEADLINE_SECONDS = 10.0
SLOTS = 8


async def come(
    admission: Admission, day: Day, service_seconds: float, patience_seconds: float
) -> None:
    """One client: it holds its slot for the service's time, or leaves when it is tired of it."""
    clock = asyncio.get_running_loop().time
    came = clock()
    try:
        async with asyncio.timeout(patience_seconds):
            try:
                await admission.acquire()
            except QueueFull as error:
                day.refusals.setdefault(error.code, []).append(clock() - came)
                return
            began = clock()
            day.waits.append(began - came)
            try:
                await asyncio.sleep(service_seconds)
            finally:
                day.busy_seconds += clock() - began
                admission.release()
    except TimeoutError:
        pass  # gone


def new_admission(places: int = 1000) -> Admission:
    """An admission on the running loop's clock."""
    clock = asyncio.get_running_loop().time
    return Admission(SLOTS, places, DEADLINE_SECONDS, clock=clock)


async def crowd(
    admission: Admission, day: Day, rate: float, seconds: float, patience_seconds: float = 1e6
) -> list[asyncio.Task[None]]:
    """Clients at a constant rate, whatever happens; a service takes two seconds."""
    tasks = []
    for _ in range(round(rate * seconds)):
        tasks.append(asyncio.create_task(come(admission, day, 2.0, patience_seconds)))
        await asyncio.sleep(1 / rate)
    return tasks


Result = TypeVar("Result")


def simulated(world: Coroutine[Any, Any, Result]) -> Result:
    """Run it in no time."""
    with asyncio.Runner(loop_factory=JumpingClock) as runner:
        return runner.run(world)


@pytest.mark.parametrize("calm_rate", [1.0, 3.5])
def test_ten_times_the_load_is_spoken_in_time_and_the_rest_refused_at_once(
    calm_rate: float,
) -> None:
    """After a calm minute: slots never idle, nobody waits in vain, no refusal comes late."""

    async def world() -> tuple[Day, float]:
        admission, calm, day = new_admission(), Day(), Day()
        tasks = await crowd(admission, calm, calm_rate, 60.0)
        began = asyncio.get_running_loop().time()
        tasks += await crowd(admission, day, 40.0, 60.0)
        await asyncio.gather(*tasks)
        assert repr(admission) == f"<Admission 0/{SLOTS} in flight, 0/1000 queued>"
        return day, asyncio.get_running_loop().time() - began

    day, seconds = simulated(world())
    assert max(day.waits) <= DEADLINE_SECONDS
    assert day.refusals.keys() == {"queue_too_slow"}
    assert max(day.refusals["queue_too_slow"]) == 0.0
    assert day.busy_seconds >= 0.97 * SLOTS * seconds


def test_a_crowd_that_leaves_at_once_does_not_make_the_line_look_short() -> None:
    """Slots that came free because clients went away are no sign of a quick engine."""

    async def world() -> Day:
        admission, day = new_admission(), Day()
        tasks = await crowd(admission, Day(), 4.0, 60.0)
        for _ in range(6):  # they stay for a moment, again and again
            moment = Day()
            await asyncio.gather(*(come(admission, moment, 2.0, 0.1) for _ in range(SLOTS)))
        tasks += await crowd(admission, day, 40.0, 30.0)
        await asyncio.gather(*tasks)
        return day

    day = simulated(world())
    assert max(day.waits) <= 0.8 * DEADLINE_SECONDS
    assert day.refusals.keys() == {"queue_too_slow"}


def test_an_engine_that_was_slow_before_a_pause_refuses_nobody_after_it() -> None:
    """What lies further back than the longest wait is forgotten."""

    async def world() -> Day:
        admission, day = new_admission(), Day()
        slow = [come(admission, Day(), 60.0, 1e6) for _ in range(3 * SLOTS)]
        await asyncio.gather(*slow)  # the second and third of each slot are refused in time
        await asyncio.gather(*(come(admission, Day(), 60.0, 1e6) for _ in range(SLOTS)))
        await asyncio.sleep(DEADLINE_SECONDS + 1.0)
        await asyncio.gather(*(come(admission, day, 1.0, 1e6) for _ in range(4 * SLOTS)))
        return day

    day = simulated(world())
    assert len(day.waits) == 4 * SLOTS
    assert not day.refusals


def test_a_fresh_gateway_knows_nothing_and_lets_its_places_and_its_deadline_decide() -> None:
    """No slot has come free yet: there is nothing to predict from."""

    async def world() -> Day:
        admission, day = new_admission(places=20), Day()
        clients = [come(admission, day, 60.0, 1e6) for _ in range(SLOTS + 21)]
        first = asyncio.gather(*clients[:-2])
        await asyncio.sleep(5.0)
        await asyncio.gather(first, *clients[-2:])
        return day

    day = simulated(world())
    assert day.refusals == {"queue_full": [0.0], "queue_timeout": [DEADLINE_SECONDS] * 20}


def test_an_engine_that_stalls_closes_the_line_and_opens_it_when_it_speaks_again() -> None:
    """The age of what is held counts: nobody joins a line that does not move."""

    async def world() -> tuple[Day, Day]:
        admission, stalled, after = new_admission(), Day(), Day()
        await asyncio.gather(*await crowd(admission, Day(), 4.0, 60.0))
        stuck = [asyncio.create_task(come(admission, Day(), 100.0, 1e6)) for _ in range(SLOTS + 3)]
        await asyncio.sleep(90.0)
        asyncio.create_task(come(admission, Day(), 1.0, 1e6))  # noqa: RUF006  (first in line)
        await asyncio.sleep(0)
        await asyncio.gather(*(come(admission, stalled, 1.0, 1e6) for _ in range(5)))
        await asyncio.gather(*stuck)
        await asyncio.gather(*await crowd(admission, after, 3.5, 60.0))
        return stalled, after

    stalled, after = simulated(world())
    assert stalled.refusals == {"queue_too_slow": [0.0] * 5}
    assert not after.refusals


def test_long_and_short_requests_mixed_hardly_ever_run_into_the_deadline() -> None:
    """Every fourth holds its slot ten times as long, at far more than the slots can do."""

    async def world() -> Day:
        admission, day = new_admission(), Day()
        await asyncio.gather(*await crowd(admission, Day(), 3.0, 60.0))
        tasks = []
        for number in range(2400):
            service_seconds = 5.0 if number % 4 == 0 else 0.5
            tasks.append(asyncio.create_task(come(admission, day, service_seconds, 1e6)))
            await asyncio.sleep(0.05)
        await asyncio.gather(*tasks)
        return day

    day = simulated(world())
    assert len(day.refusals.get("queue_timeout", ())) <= 0.1 * len(day.waits)


def test_a_load_that_fits_is_never_refused() -> None:
    """Nine tenths of what the slots can do, in bursts of twice the slots."""

    async def world() -> Day:
        admission, day, tasks = new_admission(), Day(), []
        for _ in range(100):
            tasks += [asyncio.create_task(come(admission, day, 2.0, 1e6)) for _ in range(2 * SLOTS)]
            await asyncio.sleep(4.5)
        await asyncio.gather(*tasks)
        return day

    day = simulated(world())
    assert len(day.waits) == 200 * SLOTS
    assert not day.refusals


@pytest.mark.parametrize(
    ("ahead", "held_seconds", "slots", "expected"),
    [(0, 4.0, 1, 4.0), (0, 4.0, 4, 1.0), (3, 4.0, 4, 4.0), (99, 4.0, 16, 25.0), (5, 0.0, 2, 0.0)],
)
def test_the_wait_is_that_of_all_who_stand_before(
    ahead: int, held_seconds: float, slots: int, expected: float
) -> None:
    """So many turns, each as long as the slots together take to free one."""
    assert predicted_wait_seconds(ahead, held_seconds, slots) == expected


CLIENTS = st.lists(
    st.tuples(
        st.floats(0.0, 5.0),  # after the one before
        st.floats(0.0, 30.0),  # holds its slot
        st.sampled_from([0.0, 0.5, 5.0, 10.0, 1e6]),  # stays
    ),
    max_size=60,
)


@given(CLIENTS, st.integers(0, 5))
def test_no_crowd_loses_a_slot_or_a_place_and_nobody_is_refused_while_a_slot_is_free(
    clients: list[tuple[float, float, float]], places: int
) -> None:
    """Arrivals, departures, ends and deadlines in whatever order, some at the same moment."""

    async def world() -> None:
        admission, day = new_admission(places), Day()
        tasks = []
        for pause, service_seconds, patience_seconds in clients:
            await asyncio.sleep(pause)
            free = admission.in_flight < SLOTS or (not admission.queued and places)
            refused = sum(map(len, day.refusals.values()))
            task = asyncio.create_task(come(admission, day, service_seconds, patience_seconds))
            tasks.append(task)
            await asyncio.sleep(0)
            assert not (free and task.done() and sum(map(len, day.refusals.values())) > refused)
            assert admission.in_flight <= SLOTS
            assert admission.queued <= places
            assert not admission.queued or admission.in_flight == SLOTS
        await asyncio.gather(*tasks)
        assert repr(admission) == f"<Admission 0/{SLOTS} in flight, 0/{places} queued>"
        assert all(wait <= DEADLINE_SECONDS for wait in day.waits)

    simulated(world())


def test_a_fresh_gateway_learns_from_the_first_slots_that_come_free() -> None:
    """Ten times the load from the first moment on: few wait in vain before the line is closed."""

    async def world() -> Day:
        admission, day, tasks = new_admission(), Day(), []
        for number in range(1200):
            service_seconds = 0.5 + number * 5 % 8 / 2  # 0.5 s to 4 s
            tasks.append(asyncio.create_task(come(admission, day, service_seconds, 1e6)))
            await asyncio.sleep(1 / 35)
        await asyncio.gather(*tasks)
        return day

    day = simulated(world())
    assert len(day.refusals.get("queue_timeout", [])) <= SLOTS
    assert len(day.refusals["queue_too_slow"]) > 1000
