"""FFmpeg's own switches, which PyAV gives no Python name.

The one place that uses a private module of PyAV: only its file is wanted, which is the library
that FFmpeg's functions are in. pyproject.toml bounds PyAV's version.
"""

from __future__ import annotations

import ctypes
from typing import Any


def ffmpeg_function(name: str) -> Any | None:
    """A function of FFmpeg's libraries; None where the platform's loader cannot find it.

    Args:
        name: As in FFmpeg's headers.
    """
    from av import _core  # noqa: PLC0415 (a private module: its file alone is wanted)

    try:
        return getattr(ctypes.CDLL(_core.__file__), name)
    except (OSError, AttributeError):
        return None
