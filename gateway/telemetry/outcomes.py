"""How requests end: counted here, once each, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import ClientGone, outcome_of
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.request_record import RequestRecord


class Answer(Protocol):
    """What a request holds until it ends."""

    def close(self) -> None:
        """Give everything back."""

    def observe(self, outcome: str) -> None:
        """Count its audio and its times."""


@dataclass(slots=True)
class Held:
    """What a request holds: its answer, once there is one."""

    answer: Answer | None = None


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
        self._requests.labels(surface, outcome).inc()

    @contextmanager
    def counted(self, surface: str, record: RequestRecord | None = None) -> Iterator[Held]:
        """Count how the block ends, and close the answer that it holds.

        What is no error and ends it before it is complete is a client that left. A failure after
        the answer's beginning is `truncated`.

        Args:
            surface: The surface that the request came by.
            record: Of the request whose own answer this is; None where its answer is inside of
                another one, or for nobody who waits.
        """
        held, outcome = Held(), "cancelled"
        try:
            yield held
            outcome = "ok"
        except ClientGone:
            raise
        except Exception as error:
            started = record is not None and record.started
            outcome = "truncated" if started else outcome_of(error)
            raise
        finally:
            if held.answer is not None:
                held.answer.close()
                held.answer.observe(outcome)
            self.count(surface, outcome, record)
