"""The same load for an hour, to see whether anything grows.

locust -f loadtest/locustfile.py,loadtest/shapes/soak.py
"""

from __future__ import annotations

from locust import LoadTestShape

USERS = 30
SECONDS = 3600


class Soak(LoadTestShape):
    """Thirty users for an hour."""

    def tick(self) -> tuple[int, float] | None:
        """Users and how many of them start in a second, or None at the end."""
        return (USERS, 5.0) if self.get_run_time() < SECONDS else None
