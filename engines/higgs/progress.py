"""Lines on stderr that say how far a long start has come."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

EVERY_SECONDS = 2.0

Item = TypeVar("Item")


def show(line: str) -> None:
    """Print a line."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201  (the command's own progress)


def shown(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Yield items; at the first, and at most every two seconds, say how many are done."""
    due = 0.0
    for done, item in enumerate(items):
        if time.monotonic() >= due:
            due = time.monotonic() + EVERY_SECONDS
            show(f"{what}: {done} of {len(items)}")
        yield item
