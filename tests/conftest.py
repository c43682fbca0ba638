"""Fixtures that every room's tests share: a simulated engine, and a gateway in front of it."""

from __future__ import annotations

import functools
import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tests.running import Gateway, running_engine, running_gateway

# Gateways that a test starts without a folder of their own do not write to the user's.
_DATA = tempfile.TemporaryDirectory(prefix="speech-gateway-tests-")
os.environ["XDG_DATA_HOME"] = _DATA.name

# The files that take longest, to be begun first: else all wait at the end for one of them. What
# does not stand here takes some seconds (scripts/test --durations=0 tells).
LONGEST = (
    # One Docker engine's, one after the other; they wait more than they work.
    *("deploy/test_container", "deploy/test_engine_health", "deploy/test_stack"),
    *(
        "loadtest/test_instructions",
        "api/test_jobs",
        "faults/test_crowds",
        "api/test_schemathesis",
        "commands/test_serve",
    ),
    *("voices/test_library_in_use", "test_listening", "server/test_shutdown", "test_book"),
    *("faults/test_fault_table", "engines/cpu/test_voice_load", "faults/test_pool_faults"),
    *("faults/test_thousand_requests", "faults/test_engine_faults", "engines/cpu/test_voice"),
    *("loadtest/test_benchmark_script", "loadtest/test_benchmark", "loadtest/test_sweep"),
    *("loadtest/test_locust", "server/test_engine_process", "engines/container/test_fetch_weights"),
    *(
        "speech/test_long_text",
        "telemetry/test_metrics",
        "monitoring/test_rules",
        "text/test_markup",
    ),
    *("test_packaging", "upstream/test_mixed_pool", "speech/test_engine_limits"),
)


DOCKER = tuple(f"tests/{name}.py::" for name in LONGEST if name.startswith("deploy/"))


class Scheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist tells no types
    """Gives each worker a file at a time, and one of them all files that share a Docker engine."""

    def _split_scope(self, nodeid: str) -> str:
        return "docker" if nodeid.startswith(DOCKER) else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Share out the tests so."""
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files before all others."""
    ranks = {Path(__file__).parent / f"{name}.py": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope="session", autouse=True)
def one_tls_context() -> Iterator[None]:
    """Let every HTTP client share one TLS context, which no test uses.

    httpx makes one for each client and each call without a client, and reads all certificates for
    it: 20 ms of a processor (2-core machine, 2026-11-25), in every turn of a wait.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        yield


@pytest.fixture
def anyio_backend() -> str:
    """Tests marked `anyio` run on asyncio: the upstreams' connections are its protocols."""
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
