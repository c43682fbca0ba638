"""Memory of this process, as the kernel counts it."""

from __future__ import annotations

import os
import resource
from pathlib import Path

MEBIBYTE = 1024 * 1024
_STATM = Path("/proc/self/statm")


def memory_info() -> dict[str, float]:
    """Resident memory now and at most, in MiB, and its share of the machine's, in percent.

    The names are Chatterbox's. The engine's own memory is not this process's to tell.
    """
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEBIBYTE  # it is in KiB
    try:
        resident = int(_STATM.read_text().split()[1]) * page_bytes / MEBIBYTE
    except OSError:  # no Linux
        resident = peak
    total = os.sysconf("SC_PHYS_PAGES") * page_bytes / MEBIBYTE
    return {
        "cpu_memory_mb": round(resident, 1),
        "cpu_memory_peak_mb": round(max(peak, resident), 1),
        "cpu_memory_percent": round(100 * resident / total, 2),
    }
