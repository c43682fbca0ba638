"""Slots for generations and a bounded first-come queue in front of them.

Nothing here touches HTTP; `acquire` either returns with a slot or raises `QueueFull`, and a slot
is given back synchronously, so that no cancellation can lose it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from gateway.errors import QueueFull, QueueTimeout, QueueTooSlow, ShuttingDown

# Releases over which the time that a slot is held is observed: four times all slots, within these
# bounds, so that a few long texts among short ones do not shake the estimate.
FEWEST_RELEASES = 8  # below that nothing is predicted
SHORTEST_WINDOW = 64
LONGEST_WINDOW = 512
LONGEST_RETRY_AFTER_SECONDS = 60.0  # clients give up above 120 s (OpenAI's SDKs)
# Who would wait longer than this share of the deadline is refused at once: the rest of it is for
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


class Admission:
    """At most `slots` generations at once, at most `places` waiting, in order of arrival.

    Args:
        slots: Generations that may run at once.
        places: Requests that may wait.
        timeout_seconds: Longest wait.
        clock: Monotonic seconds.
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
        # What the slots were held for, all together, at the start and at each release: time in
        # which nobody holds one does not count, and a slot that never comes back does.
        window = min(max(SHORTEST_WINDOW, 4 * slots), LONGEST_WINDOW)
        self._held_at_releases: deque[float] = deque([0.0], maxlen=window + 1)
        self._held_seconds = 0.0
        self._noted_at = clock()
        self._closed = False

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

    def _note(self) -> float:
        """Bring up to date for how long slots have been held, all together."""
        now = self._clock()
        self._held_seconds += self.in_flight * (now - self._noted_at)
        self._noted_at = now
        return self._held_seconds

    def _predicted_wait_seconds(self) -> float | None:
        """The wait of a request that came now, or None while too little has been seen."""
        releases = len(self._held_at_releases) - 1
        if releases < min(max(FEWEST_RELEASES, self.slots), LONGEST_WINDOW):
            return None
        held = (self._note() - self._held_at_releases[0]) / releases
        return predicted_wait_seconds(self.queued, held, self.slots)

    def retry_after_seconds(self) -> float:
        """When to come again: after as long as a request that came now would wait."""
        wait = self._predicted_wait_seconds() or 1.0
        return min(max(wait, 1.0), LONGEST_RETRY_AFTER_SECONDS)

    async def acquire(self, timeout_seconds: float | None = None) -> float:
        """Take a slot, waiting in line if need be.

        Args:
            timeout_seconds: A tighter bound than the queue's own, or None.

        Returns:
            Seconds that the caller waited.

        Raises:
            QueueFull: The queue is full.
            QueueTooSlow: The wait would be too long; told at once.
            QueueTimeout: The wait was too long.
            ShuttingDown: Nothing new begins any more.
        """
        if self._closed:
            raise ShuttingDown
        if self.try_acquire():
            return 0.0
        if len(self._waiting) >= self.places:
            raise QueueFull(
                "The queue is full; try again later.",
                retry_after_seconds=self.retry_after_seconds(),
            )
        limit = self.timeout_seconds
        if timeout_seconds is not None:
            limit = min(limit, timeout_seconds)
        predicted = self._predicted_wait_seconds() if self._waiting else None
        if predicted is not None and predicted > DEADLINE_SHARE * limit:
            raise QueueTooSlow(
                f"A slot would come free in about {predicted:.0f} seconds; try again later.",
                retry_after_seconds=self.retry_after_seconds(),
            )
        started = self._clock()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(limit):
                await future
        except BaseException as error:
            if future.done() and not future.cancelled() and not future.exception():
                self.release()  # the slot came at the moment in which the caller was cancelled
            elif future in self._waiting:
                self._waiting.remove(future)
            if isinstance(error, TimeoutError):
                raise QueueTimeout(
                    f"No slot came free within {limit:g} seconds; try again later.",
                    retry_after_seconds=self.retry_after_seconds(),
                ) from None
            raise
        return self._clock() - started

    def close(self) -> None:
        """Let nothing new begin; what runs may still take further slots of its own."""
        self._closed = True
        while self._waiting:
            future = self._waiting.popleft()
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
        self._held_at_releases.append(self._note())
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)  # the slot changes hands: in_flight stays
                return
        self.in_flight -= 1
