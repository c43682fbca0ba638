"""How counters outlive the worker that counted: its files belong to its place, not to its process.

A worker that takes a dead one's place counts on in the same files, so that nothing is lost and the
folder never grows; only what was true of the dead one alone (its gauges) is forgotten.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import values
from prometheus_client.multiprocess import mark_process_dead


def keep_counters_of(place: int) -> None:
    """Count in the files of a place from here on; call it before any metric is made.

    Args:
        place: Number of the worker's place, which no other living worker has.
    """
    # The library's own name for files is the process id: a file for every worker that ever lived.
    by_place: Any = values.MultiProcessValue(process_identifier=lambda: place)  # type: ignore[no-untyped-call]
    values.ValueClass = by_place


def forget_live_gauges(folder: str, place: int) -> None:
    """Forget what a dead worker had in hand.

    Args:
        folder: PROMETHEUS_MULTIPROC_DIR of the workers.
        place: Number of its place.
    """
    mark_process_dead(place, folder)  # type: ignore[no-untyped-call]
