"""Fixtures that every room's tests share: a simulated engine, and a gateway in front of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.running import Gateway, running_engine, running_gateway

# Gateways that a test starts without a folder of their own do not write to the user's.
_DATA = tempfile.TemporaryDirectory(prefix="speech-gateway-tests-")
os.environ["XDG_DATA_HOME"] = _DATA.name


@pytest.fixture
def anyio_backend() -> str:
    """Tests marked `anyio` run on asyncio: aiohttp, the upstream transport, knows no other loop."""
    return "asyncio"


@pytest.fixture(scope="module")
def engine_arguments() -> tuple[str, ...]:
    """Arguments of the module's engine; a module that needs others overrides this fixture."""
    return ("--tokens-per-second", "5000")


@pytest.fixture(scope="module")
def engine(engine_arguments: tuple[str, ...]) -> Iterator[str]:
    """Address of a simulated engine, by default far faster than real time."""
    with running_engine("--voice", "simulated", *engine_arguments) as supervisor:
        yield supervisor.address


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    """Settings of the module's gateway; a module that needs others overrides this fixture."""
    return {}


@pytest.fixture(scope="module")
def gateway(engine: str, gateway_settings: dict[str, Any]) -> Iterator[Gateway]:
    """A gateway in front of the engine."""
    with running_gateway(upstreams=engine, **gateway_settings) as running:
        yield running


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the contract suite: `pytest tests/contract --engine-url http://host:port`."""
    parser.addoption(
        "--engine-url", help="engine that tests/contract asks; default: a simulated one"
    )
    parser.addoption("--engine-api-key", help="bearer key of that engine")
