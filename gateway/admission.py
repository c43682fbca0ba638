"""Slots for generations and a bounded first-come queue in front of them.

Nothing here touches HTTP; `acquire` either returns with a slot or raises `QueueFull`, and a slot
is given back synchronously, so that no cancellation can lose it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from gateway.errors import QueueFull

DRAIN_WINDOW = 32  # releases over which the drain rate is observed
LONGEST_RETRY_AFTER_SECONDS = 60.0  # clients give up above 120 s (OpenAI's SDKs)


class Admission:
    """At most `slots` generations at once, at most `places` waiting, in order of arrival.

    Args:
        slots: Generations that may run at once.
        places: Requests that may wait.
        timeout_seconds: Longest wait.
    """

    def __init__(self, slots: int, places: int, timeout_seconds: float) -> None:
        self.slots = slots
        self.places = places
        self.timeout_seconds = timeout_seconds
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._releases: deque[float] = deque(maxlen=DRAIN_WINDOW)

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

    def retry_after_seconds(self) -> float:
        """When a place is likely to be free, from the rate at which slots came free lately."""
        if len(self._releases) < 2:  # noqa: PLR2004  (a rate needs two points)
            return 1.0
        elapsed = time.monotonic() - self._releases[0]
        wait = (self.queued + 1) * elapsed / len(self._releases)
        return min(max(wait, 1.0), LONGEST_RETRY_AFTER_SECONDS)

    async def acquire(self, timeout_seconds: float | None = None) -> float:
        """Take a slot, waiting in line if need be.

        Args:
            timeout_seconds: A tighter bound than the queue's own, or None.

        Returns:
            Seconds that the caller waited.

        Raises:
            QueueFull: The queue is full, or the wait was too long.
        """
        if self.try_acquire():
            return 0.0
        if len(self._waiting) >= self.places:
            raise QueueFull(
                "The queue is full; try again later.",
                retry_after_seconds=self.retry_after_seconds(),
            )
        started = time.monotonic()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        limit = self.timeout_seconds
        if timeout_seconds is not None:
            limit = min(limit, timeout_seconds)
        try:
            async with asyncio.timeout(limit):
                await future
        except BaseException as error:
            if future.done() and not future.cancelled():
                self.release()  # the slot came at the moment in which the caller was cancelled
            elif future in self._waiting:
                self._waiting.remove(future)
            if isinstance(error, TimeoutError):
                raise QueueFull(
                    f"No slot came free within {limit:g} seconds; try again later.",
                    retry_after_seconds=self.retry_after_seconds(),
                ) from None
            raise
        return time.monotonic() - started

    def try_acquire(self) -> bool:
        """Take a slot that is free and that nobody waits for, without waiting."""
        if self.in_flight < self.slots and not self._waiting:
            self.in_flight += 1
            return True
        return False

    def release(self) -> None:
        """Give a slot back; the first in line gets it."""
        self._releases.append(time.monotonic())
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)  # the slot changes hands: in_flight stays
                return
        self.in_flight -= 1
