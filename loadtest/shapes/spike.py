"""Quiet load with one sudden crowd, to see what is refused and how soon all is well again.

locust -f loadtest/locustfile.py,loadtest/shapes/spike.py
"""

from __future__ import annotations

from locust import LoadTestShape

QUIET_USERS = 10
CROWD_USERS = 200
CROWD_BEGINS_SECONDS = 60
CROWD_ENDS_SECONDS = 120
END_SECONDS = 240


class Spike(LoadTestShape):
    """Ten users; for one minute of the four, two hundred."""

    def tick(self) -> tuple[int, float] | None:
        """Users and how many of them start in a second, or None at the end."""
        now = self.get_run_time()
        if now >= END_SECONDS:
            return None
        crowd = CROWD_BEGINS_SECONDS <= now < CROWD_ENDS_SECONDS
        return (CROWD_USERS, 100.0) if crowd else (QUIET_USERS, 10.0)
