"""Load that climbs step by step, to see where the first audio begins to wait.

locust -f loadtest/locustfile.py,loadtest/shapes/ramp.py
"""

from __future__ import annotations

from locust import LoadTestShape

STEP_USERS = 10
STEP_SECONDS = 30
STEPS = 12


class Ramp(LoadTestShape):
    """Ten users more every half minute, for six minutes."""

    def tick(self) -> tuple[int, float] | None:
        """Users and how many of them start in a second, or None at the end."""
        step = int(self.get_run_time() // STEP_SECONDS)
        return ((step + 1) * STEP_USERS, float(STEP_USERS)) if step < STEPS else None
