"""Tests of engines/higgs are left out, with the reason, where torch or transformers is missing."""

from __future__ import annotations

import importlib.util
import os

import pytest

MISSING = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]

if not MISSING:
    import torch

    torch.set_num_threads(1)  # tiny tensors: a second thread only waits, for long on a busy machine
    if not torch.cuda.is_available():
        # Read by Triton when a kernel's module is imported, so here, before any test's module.
        os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collect_file() -> None:
    """Skip the folder before its modules import what is missing."""
    if MISSING:
        pytest.skip(f"needs {' and '.join(MISSING)}: scripts/install higgs-test")
