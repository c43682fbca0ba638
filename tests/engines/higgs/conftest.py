"""Tests of engines/higgs are left out, with the reason, where torch or transformers is missing."""

from __future__ import annotations

import importlib.util

import pytest

MISSING = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]


@pytest.hookimpl(tryfirst=True)
def pytest_collect_file() -> None:
    """Skip the folder before its modules import what is missing."""
    if MISSING:
        pytest.skip(f"needs {' and '.join(MISSING)}: scripts/install higgs-test")
