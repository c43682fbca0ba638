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
    REFUSE = "refuse"  # drop the connection, and refuse new ones for so many seconds
    RAISE_BEFORE = "raise"  # error JSON as the whole body of a 200
    RAISE_AFTER = "raiselate"  # error JSON of odd length inside the audio, audio behind it
    RAISE_EVEN = "raiseeven"  # the same with an even length
    EMPTY = "empty"  # 200 with an empty body
    TEXT_ONLY = "textonly"  # the model answers in text: no audio at all
    ERROR = "error"  # 500 text/plain
    TRUNCATE = "truncate"  # a clean end after so many bytes
    RUNAWAY = "runaway"  # never stop before max_tokens
    QUIET = "quiet"  # never stop, and near-silent after so many bytes
    DIE = "die"  # the process kills itself after so many bytes


BEFORE_HEADERS = {Kind.HANG, Kind.SLOW_HEADERS, Kind.RESET, Kind.REFUSE, Kind.ERROR}
AT_BYTES = {
    Kind.STALL,
    Kind.CUT,
    Kind.RAISE_AFTER,
    Kind.RAISE_EVEN,
    Kind.TRUNCATE,
    Kind.DIE,
}
ENDLESS = {Kind.RUNAWAY, Kind.QUIET}
SILENT = {Kind.EMPTY, Kind.TEXT_ONLY}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        kind: Which.
        number: Bytes of audio before it, milliseconds or seconds.
    """

    kind: Kind
    number: int = 0

    def __str__(self) -> str:
        """As `parse_fault` reads it."""
        return f"{self.kind.value}-{self.number}"


_MARKER = re.compile(r"\bfault-([a-z]+)(?:-(\d{1,9}))?")
_FAULT = re.compile(r"([a-z]+)(?:[-:](\d{1,9}))?")


def parse_fault(text: str) -> Fault:
    """A fault from `name`, `name-number` or `name:number`.

    Raises:
        ValueError: No such fault.
    """
    found = _FAULT.fullmatch(text)
    if found is None or found[1] not in {kind.value for kind in Kind}:
        names = ", ".join(kind.value for kind in Kind)
        raise ValueError(f"no such fault: {text!r}; there are {names}")
    return Fault(Kind(found[1]), int(found[2] or 0))


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
        self.met: dict[str, int] = {}
        self._next: deque[Fault] = deque(maxlen=MOST_PLANNED)
        self._rate = 0.0
        self._kinds: Sequence[Fault] = ()
        self._match = ""
        self._random = random.Random(0)  # noqa: S311  (repeatable faults, no secret)

    def plan(
        self,
        *,
        upcoming: Sequence[Fault] = (),
        rate: float = 0.0,
        kinds: Sequence[Fault] = (),
        seed: int = 0,
        match: str = "",
    ) -> None:
        """Set what the coming generations meet: first `upcoming`, then `kinds` at a rate.

        Only texts that hold `match` meet `upcoming`: a probe's warm-up would use them up else.
        """
        self._match = match
        self._next = deque(upcoming, maxlen=MOST_PLANNED)
        self._rate, self._kinds = rate, kinds
        self._random = random.Random(seed)  # noqa: S311

    def draw(self, text: str) -> Fault | None:
        """The fault of the next generation: its text's own, the planned one, or chance."""
        fault = self._draw(text)
        if fault is not None:
            name = fault.kind.value
            self.met[name] = self.met.get(name, 0) + 1
        return fault

    def _draw(self, text: str) -> Fault | None:
        marked = marked_fault(text)
        if marked is not None:
            return marked
        if self._next and self._match in text:
            return self._next.popleft()
        if self._kinds and self._random.random() < self._rate:
            return self._random.choice(self._kinds)
        return self.always
