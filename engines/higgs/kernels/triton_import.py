"""Triton where it is installed; elsewhere a stand-in that lets the kernels' files be imported.

The kernels themselves run only on a GPU; the plain PyTorch twins beside them run everywhere.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

triton: Any = SimpleNamespace(jit=lambda function: function)
tl: Any = None
if find_spec("triton") is not None:
    triton = importlib.import_module("triton")
    tl = importlib.import_module("triton.language")

__all__ = ["tl", "triton"]
