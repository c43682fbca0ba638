"""What all client connections share: their bounds, and the bytes that they hold together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from gateway.settings import Settings


class Waiting(Protocol):
    """A connection without a request that runs."""

    def leave(self) -> None:
        """Close it."""


@dataclass(eq=False, slots=True)
class Crowd:
    """All connections of clients together.

    Attributes:
        bounds: The settings, which say what they may do.
        waiting: Those without a request that runs, the longest waiting first.
        held_bytes: What large bodies of running requests sum up to.
    """

    bounds: Settings
    waiting: dict[Waiting, None] = field(default_factory=dict)
    held_bytes: int = 0
