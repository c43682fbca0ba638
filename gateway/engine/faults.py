"""The ways in which the simulated engine misbehaves, and how a test asks for them.

A fault is named by flag, by `POST /simulator/faults`, or by a marker in the text itself
(`fault-hang` or `fault-cut-48000`), which also reaches the engine through a gateway.
"""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

MOST_PLANNED = 10_000


class Kind(Enum):
    """A fault; the number that some take stands behind the name."""

    HANG = "hang"  # accept, and never answer
    SLOW_HEADERS = "slow"  # answer after so many milliseconds
    STALL = "stall"  # go silent after so many bytes of audio
    CUT = "cut"  # drop the connection after so many bytes of audio
    RESET = "reset"  # drop the connection without an answer
    RAISE_BEFORE = "raise"  # error JSON as the whole body of a 200
    RAISE_AFTER = "raiselate"  # error JSON inside the audio after so many bytes, audio behind it
    EMPTY = "empty"  # 200 with an empty body
    ERROR = "error"  # 500 text/plain
    TRUNCATE = "truncate"  # a clean end after so many bytes
    RUNAWAY = "runaway"  # never stop before max_tokens
    QUIET = "quiet"  # never stop, and near-silent after so many bytes
    DIE = "die"  # the process kills itself after so many bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        kind: Which.
        number: Bytes of audio before it, or milliseconds.
    """

    kind: Kind
    number: int = 0


_MARKER = re.compile(r"\bfault-([a-z]+)(?:-(\d{1,9}))?")


def parse_fault(text: str) -> Fault:
    """A fault from `name` or `name-number`.

    Raises:
        ValueError: No such fault.
    """
    name, _, number = text.partition("-")
    return Fault(Kind(name), int(number or 0))


def marked_fault(text: str) -> Fault | None:
    """The fault that a text asks for."""
    found = _MARKER.search(text)
    if found is None or found[1] not in {kind.value for kind in Kind}:
        return None
    return Fault(Kind(found[1]), int(found[2] or 0))


class FaultPlan:
    """Decides which generation meets a fault.

    Args:
        always: The fault of every generation, or None.
    """

    def __init__(self, always: Fault | None = None) -> None:
        self.always = always
        self._next: deque[Fault] = deque(maxlen=MOST_PLANNED)
        self._rate = 0.0
        self._kinds: Sequence[Fault] = ()
        self._random = random.Random(0)  # noqa: S311  (repeatable faults, no secret)

    def plan(
        self, *, upcoming: Sequence[Fault], rate: float, kinds: Sequence[Fault], seed: int
    ) -> None:
        """Set what the coming generations meet: first `upcoming`, then `kinds` at a rate."""
        self._next = deque(upcoming, maxlen=MOST_PLANNED)
        self._rate, self._kinds = rate, kinds
        self._random = random.Random(seed)  # noqa: S311

    def draw(self, text: str) -> Fault | None:
        """The fault of the next generation."""
        marked = marked_fault(text)
        if marked:
            return marked
        if self._next:
            return self._next.popleft()
        if self._kinds and self._random.random() < self._rate:
            return self._random.choice(self._kinds)
        return self.always
