"""Files that are whole or not there: what a job has made survives a kill at any moment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes its name only when all of it is on the disk."""
    unfinished = path.with_suffix(".part")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file."""
    with whole_file(path) as file:
        file.write(data)
