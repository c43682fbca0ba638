"""A player that starts at the first chunk and never waits longer than it must.

What it starves is what a listener hears as gaps; waiting that the client itself caused (it read
slowly) is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Player:
    """Follows deliveries of audio and sums the seconds without any.

    Attributes:
        underrun_seconds: Starved so far.
    """

    underrun_seconds: float = 0.0
    _started: float | None = None
    _delivered_seconds: float = 0.0

    def deliver(self, asked: float, came: float, delivered_seconds: float) -> None:
        """Note a delivery.

        Args:
            asked: Monotonic time at which the client was ready for it.
            came: Monotonic time at which it was there.
            delivered_seconds: Audio delivered in all, this delivery included.
        """
        if self._started is None:
            self._started = came
        else:
            dry = self._started + self._delivered_seconds + self.underrun_seconds
            if came > asked and came > dry:
                self.underrun_seconds += came - max(asked, dry)
        self._delivered_seconds = delivered_seconds
