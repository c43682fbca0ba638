"""Slots for generations and a bounded first-come queue in front of them.

Nothing here touches HTTP; `acquire` either returns with a slot or raises `QueueFull`, and a slot
is given back synchronously, so that no cancellation can lose it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.errors import QueueFull, QueueTimeout, QueueTooSlow, ShuttingDown

# Releases over which the time that a slot is held is observed: four times all slots, within these
# bounds, so that a few long texts among short ones do not shake the estimate.
FEWEST_RELEASES = 8  # below that, and below the slots, the estimate is a lower bound
SHORTEST_WINDOW = 64
LONGEST_WINDOW = 512
LONGEST_RETRY_AFTER_SECONDS = 60.0  # clients give up above 120 s (OpenAI's SDKs)
# A request whose estimated wait exceeds this share of the deadline is refused: the rest is for
# the first audio, and for what the estimate is wrong by.
DEADLINE_SHARE = 0.7


def predicted_wait_seconds(ahead: int, held_seconds: float, slots: int) -> float:
    """How long a request will wait for its slot.

    Args:
        ahead: Requests that wait before it.
        held_seconds: Mean time for which a slot is held.
        slots: How many there are; all are taken.
    """
    return (ahead + 1) * held_seconds / slots


class Turns:
    """For how long slots were held until they came free, lately.

    Time in which nobody holds a slot does not count, and a slot that never comes back does.

    Args:
        fewest: Releases that make a mean.
        window: Most releases over which it is taken.
        memory_seconds: After so long without a slot held, all is forgotten.
    """

    def __init__(self, fewest: int, window: int, memory_seconds: float) -> None:
        self._fewest = fewest
        self._memory_seconds = memory_seconds
        self._held_seconds = 0.0
        self._without_seconds = 0.0
        # What the slots were held for, all together, at the start and at each release.
        self._held_at_releases: deque[float] = deque([0.0], maxlen=window + 1)

    @property
    def many(self) -> bool:
        """Whether there were releases enough for a mean."""
        return len(self._held_at_releases) > self._fewest

    def mean_seconds(self) -> float:
        """Slot-seconds of a release, of all or of the last few, whichever is more.

        The last few tell first of an engine that became slow or stands still. While there were
        fewer, it is the least that the mean will be: those that are not over count as if they
        were. It is 0 where no release is known.
        """
        releases = len(self._held_at_releases) - 1
        if releases == 0:
            return 0.0
        return max(
            (self._held_seconds - self._held_at_releases[-1 - min(among, releases)]) / among
            for among in (self._fewest, max(self._fewest, releases))
        )

    def pass_time(self, seconds: float, held: int) -> None:
        """So many slots were held for so long."""
        self._held_seconds += held * seconds
        self._without_seconds = 0.0 if held else self._without_seconds + seconds
        if self._without_seconds > self._memory_seconds:
            self._held_at_releases.clear()
            self._held_at_releases.append(self._held_seconds)

    def note_release(self) -> None:
        """One came free."""
        self._held_at_releases.append(self._held_seconds)


class SpareSlot:
    """A slot that a request may have back at any time.

    Attributes:
        give_way: Called at most once, when a request has to wait: ends the work at once.
    """

    def __init__(self) -> None:
        self.give_way: Callable[[], object] = lambda: None


class Admission:
    """At most `slots` generations at once, at most `places` waiting, in order of arrival.

    Args:
        slots: Generations that may run at once.
        places: Requests that may wait.
        timeout_seconds: Longest wait.
        clock: Monotonic seconds.

    Attributes:
        closed: Nothing new begins any more.
    """

    def __init__(
        self,
        slots: int,
        places: int,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots = slots
        self.places = places
        self.timeout_seconds = timeout_seconds
        self.in_flight = 0
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._spare_waiting: deque[asyncio.Future[None]] = deque()
        self._spare_slots: list[SpareSlot] = []
        window = min(max(SHORTEST_WINDOW, 4 * slots), LONGEST_WINDOW)
        fewest = min(max(FEWEST_RELEASES, slots), window)
        # What lies further back than the longest wait says nothing about those who wait now.
        self._turns = Turns(fewest, window, timeout_seconds)
        # Those that ended while all slots were taken: an engine with less to do is quicker, and a
        # crowd of clients that all leave at once makes a line look short.
        self._full_turns = Turns(fewest, window, timeout_seconds)
        self._noted_at = clock()
        self.closed = False

    def __repr__(self) -> str:
        """State, for tests and logs."""
        return (
            f"<Admission {self.in_flight}/{self.slots} in flight, "
            f"{self.queued}/{self.places} queued>"
        )

    @property
    def queued(self) -> int:
        """Requests that wait now."""
        return len(self._waiting)

    def _note(self) -> None:
        """Bring up to date for how long slots have been held."""
        now = self._clock()
        passed, self._noted_at = now - self._noted_at, now
        self._turns.pass_time(passed, self.in_flight)
        full = self.in_flight == self.slots
        self._full_turns.pass_time(passed, self.in_flight if full else 0)

    def _predicted_wait_seconds(self) -> float | None:
        """The wait of a request that came now, or None while too little has been seen."""
        self._note()
        held = self._full_turns.mean_seconds()
        if not self._full_turns.many:
            held = max(held, self._turns.mean_seconds())
        return predicted_wait_seconds(self.queued, held, self.slots) if held else None

    def retry_after_seconds(self) -> float:
        """When to come again: after as long as a request that came now would wait."""
        wait = self._predicted_wait_seconds() or 1.0
        return min(max(wait, 1.0), LONGEST_RETRY_AFTER_SECONDS)

    async def acquire(self, *, first: bool = False) -> float:
        """Take a slot, waiting in line if need be.

        Args:
            first: Go to the head of the line and need no place in it: only for the few requests
                of the gateway's own.

        Returns:
            Seconds that the caller waited.

        Raises:
            QueueFull: The queue is full.
            QueueTooSlow: The wait would be too long; told at once.
            QueueTimeout: The wait was too long.
            ShuttingDown: Nothing new begins any more.
        """
        if self.closed:
            raise ShuttingDown
        if self.try_acquire():
            return 0.0
        if not first:
            self._refuse_in_vain()
            if self._spare_slots:
                self._spare_slots.pop().give_way()
        started = self._clock()
        try:
            await self._wait_in(self._waiting, self.timeout_seconds, first=first)
        except TimeoutError:
            raise QueueTimeout(
                f"No slot came free within {self.timeout_seconds:g} seconds; try again later.",
                retry_after_seconds=self.retry_after_seconds(),
            ) from None
        return self._clock() - started

    def _refuse_in_vain(self) -> None:
        """Raise QueueFull or QueueTooSlow where waiting would lead to nothing."""
        if len(self._waiting) >= self.places:
            raise QueueFull(
                "The queue is full; try again later.",
                retry_after_seconds=self.retry_after_seconds(),
            )
        predicted = self._predicted_wait_seconds() if self._waiting else None
        if predicted is not None and predicted > DEADLINE_SHARE * self.timeout_seconds:
            raise QueueTooSlow(
                f"A slot would come free in about {predicted:.0f} seconds; try again later.",
                retry_after_seconds=self.retry_after_seconds(),
            )

    @asynccontextmanager
    async def spare(self, patience_seconds: float) -> AsyncIterator[SpareSlot]:
        """A slot for work that can wait; it is given back at the end of the block.

        Args:
            patience_seconds: After so long the work waits like a request, at the head of the
                queue, and need not give way any more.

        Raises:
            QueueTimeout: No slot came free for long.
            ShuttingDown: Nothing new begins any more.
        """
        slot = SpareSlot()
        if self.closed:
            raise ShuttingDown
        if self.try_acquire() or await self._wait_for_spare(patience_seconds):
            self._spare_slots.append(slot)
        else:
            await self.acquire(first=True)
        try:
            yield slot
        finally:
            if slot in self._spare_slots:
                self._spare_slots.remove(slot)
            self.release()

    async def _wait_for_spare(self, patience_seconds: float) -> bool:
        """Wait for a slot that no request waits for; False when there was none in time."""
        try:
            await self._wait_in(self._spare_waiting, patience_seconds)
        except TimeoutError:
            return False
        return True

    async def _wait_in(
        self, line: deque[asyncio.Future[None]], seconds: float, *, first: bool = False
    ) -> None:
        """Wait in a line until a slot is handed over, at its head or its end.

        Raises:
            TimeoutError: None was in time.
            ShuttingDown: Nothing new begins any more.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.insert(0 if first else len(line), future)
        try:
            async with asyncio.timeout(seconds):
                await future
        except BaseException:
            if future.done() and not future.cancelled() and not future.exception():
                self._note()
                self._pass_on()  # the slot came at the moment in which the caller was cancelled
            elif future in line:
                line.remove(future)
            raise

    def close(self) -> None:
        """Let nothing new begin; what runs may still take further slots of its own."""
        self.closed = True
        for waiting in (self._waiting, self._spare_waiting):
            while waiting:
                future = waiting.popleft()
                if not future.done():
                    future.set_exception(ShuttingDown())

    def try_acquire(self) -> bool:
        """Take a slot that is free and that nobody waits for, without waiting."""
        if self.in_flight < self.slots and not self._waiting:
            self._note()
            self.in_flight += 1
            return True
        return False

    def release(self) -> None:
        """Give a slot back; the first in line gets it."""
        self._note()
        self._turns.note_release()
        if self.in_flight == self.slots:
            self._full_turns.note_release()
        self._pass_on()

    def _pass_on(self) -> None:
        """Hand a slot to the first in line, if there is one; `_note` was called just now."""
        for waiting in (self._waiting, self._spare_waiting):
            while waiting:
                future = waiting.popleft()
                if not future.done():
                    future.set_result(None)  # the slot changes hands: in_flight stays
                    return
        self.in_flight -= 1
