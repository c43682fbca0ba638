"""How many attempts may be made again, so that retries cannot multiply an outage.

Each first attempt earns a fifth of a retry, up to a reserve that lets one upstream die: everything
that ran on it may be tried once more elsewhere. When all upstreams fail, what is left is a trickle
of retries and a fifth of the load, never three times the load.
"""

from __future__ import annotations

import time
from collections.abc import Callable

SHARE = 0.2  # Finagle's and Envoy's default
TRICKLE_PER_SECOND = 1.0


class RetryBudget:
    """A bucket of retries.

    Args:
        reserve: The most that it holds, and what it starts with.
        clock: Monotonic seconds.
    """

    def __init__(self, reserve: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._reserve = float(reserve)
        self._clock = clock
        self._balance = self._reserve
        self._filled_at = clock()

    def earn(self) -> None:
        """A first attempt was made."""
        self._balance = min(self._reserve, self._balance + SHARE)

    def spend(self) -> bool:
        """Take one retry out; whether there was one."""
        now = self._clock()
        earned = (now - self._filled_at) * TRICKLE_PER_SECOND
        self._balance = min(self._reserve, self._balance + earned)
        self._filled_at = now
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True
