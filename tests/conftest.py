"""Fixtures that every room's tests share."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Tests marked `anyio` run on asyncio: aiohttp, the upstream transport, knows no other loop."""
    return "asyncio"
