"""Fixtures that every room's tests share."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Tests marked `anyio` run on asyncio: aiohttp, the upstream transport, knows no other loop."""
    return "asyncio"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the contract suite: `pytest tests/contract --engine-url http://host:port`."""
    parser.addoption(
        "--engine-url", help="engine that tests/contract asks; default: a simulated one"
    )
    parser.addoption("--engine-api-key", help="bearer key of that engine")
