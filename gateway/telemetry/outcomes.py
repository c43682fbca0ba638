"""How requests end: counted here, once each, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

from gateway.errors import ClientGone, outcome_of
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.request_record import RequestRecord


class Answer(Protocol):
    """What a request holds until it ends."""

    def close(self) -> None:
        """Give everything back."""

    def observe(self, outcome: str) -> None:
        """Count its audio and its times."""


class Outcomes:
    """Counts how requests for speech end.

    Args:
        metrics: Where.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._requests = metrics.requests

    def count(self, surface: str, outcome: str, record: RequestRecord | None = None) -> None:
        """Count one request.

        Args:
            surface: The surface that it came by.
            outcome: How it ended.
            record: Where the log reads it, or None.
        """
        if record is not None:
            record.outcome = outcome
        self._requests.inc(surface, outcome)


@dataclass(slots=True)
class Held:
    """Counts how a block ends, and closes the answer that it holds.

    What is no error and ends it before it is complete is a client that left. A failure after the
    answer's beginning is `truncated`.

    Attributes:
        outcomes: Where it is counted.
        surface: The surface that the request came by.
        record: Of the request whose own answer this is; None where its answer is inside of another
            one, or for nobody who waits.
        answer: What is held, once there is one.
    """

    outcomes: Outcomes
    surface: str
    record: RequestRecord | None = None
    answer: Answer | None = None

    def __enter__(self) -> Self:
        """Nothing is held yet."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        """Close the answer, and count how the request ended."""
        if error is None:
            outcome = "ok"
        elif isinstance(error, ClientGone) or not isinstance(error, Exception):
            outcome = "cancelled"
        else:
            started = self.record is not None and self.record.started
            outcome = "truncated" if started else outcome_of(error)
        try:
            if self.answer is not None:
                self.answer.close()
                self.answer.observe(outcome)
        finally:
            self.outcomes.count(self.surface, outcome, self.record)
