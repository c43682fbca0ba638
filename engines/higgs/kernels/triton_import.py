"""Triton where it is installed; elsewhere a stand-in that lets the kernels' files be imported.

The kernels themselves run only on a GPU; the plain PyTorch twins beside them run everywhere.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = SimpleNamespace(jit=lambda function: function)
    tl = None


# `interpret`: the kernels take tensors of a CPU, too, for tests under TRITON_INTERPRET=1.
dispatch = SimpleNamespace(interpret=False)


def runs_kernels(tensor: Any) -> bool:
    """Tell whether the kernels take this tensor; else their twins do."""
    return bool(tensor.is_cuda) or dispatch.interpret


__all__ = ["dispatch", "runs_kernels", "tl", "triton"]
