"""What all client connections share: their bounds, and the bytes that they hold together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of the connections; see the settings of the same names."""

    max_connections: int
    head_timeout_seconds: float
    send_timeout_seconds: float
    max_body_bytes: int
    max_held_body_bytes: int


def bounds_of(settings: Settings) -> Bounds:
    """The bounds that the settings state."""
    return Bounds(
        max_connections=settings.max_connections,
        head_timeout_seconds=settings.head_timeout_seconds,
        send_timeout_seconds=settings.send_timeout_seconds,
        max_body_bytes=settings.max_body_bytes,
        max_held_body_bytes=settings.max_held_body_bytes,
    )


class Waiting(Protocol):
    """A connection without a request that runs."""

    def leave(self) -> None:
        """Close it."""


@dataclass(eq=False, slots=True)
class Crowd:
    """All connections of clients together.

    Attributes:
        bounds: What they may do.
        waiting: Those without a request that runs, the longest waiting first.
        held_bytes: What large bodies of running requests sum up to.
    """

    bounds: Bounds
    waiting: dict[Waiting, None] = field(default_factory=dict)
    held_bytes: int = 0
