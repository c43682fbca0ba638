"""A bound of a reader's waits that costs next to nothing a wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(eq=False)
class WaitLimit:
    """Ends a wait with an error, as `asyncio.timeout_at` does, with one timer for all waits.

    A context manager around each wait of one task at a time. A stream waits for every chunk of its
    audio; a timer for each of them is a tenth of what the chunk costs.

    Attributes:
        at: When a wait is over, in loop time; may be moved between waits.
        late: Makes the error.
    """

    at: float
    late: Callable[[], Exception] = TimeoutError
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _waiter: asyncio.Task[object] | None = None
    _timer: asyncio.TimerHandle | None = None
    _over: bool = False

    def __enter__(self) -> None:
        """Begin a wait."""
        self._waiter = asyncio.current_task(self._loop)
        if self._timer is not None and self._timer.when() > self.at:
            self.close()  # moved to an earlier time, as behind a first audio that may take longer
        if self._timer is None:
            self._timer = self._loop.call_at(self.at, self._ring)

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        """End it; an error that leaves it closes the limit, as most often nobody waits again.

        Raises:
            TimeoutError: It took too long, or what `late` makes.
        """
        if error is not None:
            self.close()
        waiter, self._waiter = self._waiter, None
        over, self._over = self._over, False
        cancelled = kind is asyncio.CancelledError
        if over and waiter is not None and waiter.uncancel() == 0 and cancelled:
            raise self.late() from error

    def _ring(self) -> None:
        self._timer = None
        if self._waiter is None:
            return  # the next wait sets the timer again
        if self._loop.time() < self.at:
            self._timer = self._loop.call_at(self.at, self._ring)
        else:
            self._over = True
            self._waiter.cancel()

    def close(self) -> None:
        """Forget the timer; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
