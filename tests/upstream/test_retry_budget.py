"""Retries have a budget: an outage must not become three times the load."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.retry_budget import RetryBudget


class Clock:
    """Time that a test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Monotonic seconds."""
        return self.now


def test_everything_that_ran_on_a_dead_upstream_may_be_tried_again() -> None:
    """One upstream that dies takes at most a full set of slots with it."""
    budget = RetryBudget(64, Clock())
    assert all(budget.spend() for _ in range(64))
    assert not budget.spend()


def test_a_long_outage_is_retried_by_a_fifth() -> None:
    """When the reserve is gone, five requests earn one retry."""
    budget = RetryBudget(8, Clock())
    while budget.spend():
        pass
    retried = 0
    for _ in range(1000):
        budget.earn()
        retried += budget.spend()
    assert retried == 200


def test_a_quiet_gateway_may_try_again_once_a_second() -> None:
    """The first request after an outage is not refused its retry for good."""
    clock = Clock()
    budget = RetryBudget(8, clock)
    while budget.spend():
        pass
    clock.now += 1.0
    assert budget.spend()
    assert not budget.spend()


@given(st.lists(st.sampled_from(["earn", "spend", "wait"]), max_size=400))
def test_retries_never_exceed_what_was_earned(steps: list[str]) -> None:
    """Whatever the order: at most the reserve, a fifth of the requests, and one a second."""
    clock = Clock()
    budget = RetryBudget(10, clock)
    spent = earned = waited = 0
    for step in steps:
        if step == "earn":
            budget.earn()
            earned += 1
        elif step == "wait":
            clock.now += 1.0
            waited += 1
        else:
            spent += budget.spend()
    assert spent <= 10 + earned * 0.2 + waited + 1e-6
