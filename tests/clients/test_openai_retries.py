"""OpenAI's SDKs come back by themselves after a 429 or 503, and when the gateway says."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from engines.simulator.waveform import expected_pcm
from tests.clients.openai_scenario import TEXT
from tests.clients.scripts import missing, require, result, started_sdk
from tests.running import Gateway, running_engine, running_gateway, wait_until

SDKS = ("current", "httpx", pytest.param("node", marks=pytest.mark.node))
AUDIO_BYTES = len(expected_pcm(TEXT, "en_woman"))
# The SDKs' own first pause is at most half a second: a longer one is the gateway's word.
BUSY_SECONDS, STARTING_SECONDS = 1.0, 5.0
REFUSED_SECONDS = 240.0  # three interpreters start, on a machine however busy


@contextmanager
def late_engine() -> Iterator[tuple[str, Callable[[], None]]]:
    """An address that refuses connections, and what starts an engine on it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound but not listening: refused, and nobody else's
        started: list[subprocess.Popen[bytes]] = []

        def start() -> None:
            command = [sys.executable, "-m", "engines.serve", "--voice", "simulated"]
            fd = listener.fileno()
            started.append(subprocess.Popen([*command, "--fd", str(fd)], pass_fds=(fd,)))

        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", start
        finally:
            for process in started:
                process.terminate()
                process.wait(10)


@contextmanager
def occupied(gateway: Gateway) -> Iterator[None]:
    """The one slot is taken by a stream that never ends, until the block does."""
    body = {"model": "tts-1", "input": f"fault-stall-4800 {TEXT}", "response_format": "pcm"}
    url = gateway.url + "/v1/audio/speech"
    with httpx.stream("POST", url, json=body, timeout=300) as answer:
        chunks = answer.iter_raw()  # kept: the end of an iterator closes the answer
        next(chunks)
        yield


def installed() -> list[str]:
    """The SDKs that can run here."""
    return [sdk for sdk in ("current", "httpx", "node") if missing(sdk) is None]


def retried(
    gateways: dict[str, Gateway],
    refusals: Callable[[Gateway], float],
    relieve: Callable[[], None],
) -> dict[str, dict[str, Any]]:
    """What each SDK tells, at a gateway of its own: all are refused, then the cause goes."""
    with ExitStack() as running:
        processes = {
            sdk: running.enter_context(started_sdk(sdk, gateway.url + "/v1", "retry"))
            for sdk, gateway in gateways.items()
        }
        wait_until(
            lambda: all(refusals(gateway) >= 2 for gateway in gateways.values()),
            "of every SDK, the call without retries and the one with them were refused",
            REFUSED_SECONDS,
        )
        relieve()
        return {sdk: result(process) for sdk, process in processes.items()}


@pytest.fixture(scope="module")
def told_while_full() -> dict[str, dict[str, Any]]:
    """A gateway whose one slot is taken, until it comes free."""
    with (
        running_engine("--voice", "simulated", "--tokens-per-second", "2000") as engine,
        ExitStack() as running,
        ExitStack() as slots,
    ):
        bounds: dict[str, Any] = {"max_in_flight": 1, "max_queued": 0, "idle_timeout_seconds": 300}
        gateways = {
            sdk: running.enter_context(running_gateway(upstreams=engine.address, **bounds))
            for sdk in installed()
        }
        for gateway in gateways.values():
            slots.enter_context(occupied(gateway))
        return retried(
            gateways,
            lambda gateway: gateway.metric("gateway_rejections_total", reason="queue_full"),
            slots.close,
        )


@pytest.fixture(scope="module")
def told_while_starting() -> dict[str, dict[str, Any]]:
    """A gateway whose engine is not there yet, until it is."""
    labels = {"surface": "openai", "outcome": "upstream_error"}
    with late_engine() as (address, start_engine), ExitStack() as running:
        gateways = {
            sdk: running.enter_context(running_gateway(upstreams=address, ready=False))
            for sdk in installed()
        }
        return retried(
            gateways,
            lambda gateway: gateway.metric("gateway_requests_total", **labels),
            start_engine,
        )


def check(told: dict[str, Any], status: int, name: str, told_seconds: float) -> None:
    """It was refused, waited as long as it was told, and got everything."""
    assert told["refusal"]["status"] == status
    assert told["refusal"]["class"] == name
    assert told["refusal"]["request_id"].startswith("req_")
    assert told["told_seconds"] >= told_seconds
    assert told["retries"] >= 1
    assert told["seconds"] >= told["retries"] * told_seconds
    assert told["bytes"] == AUDIO_BYTES


@pytest.mark.parametrize("sdk", SDKS)
def test_a_full_gateway_costs_a_wait_not_an_error(
    told_while_full: dict[str, dict[str, Any]], sdk: str
) -> None:
    """429: the SDK comes back when the gateway said, and is served."""
    require(sdk)
    check(told_while_full[sdk], 429, "RateLimitError", BUSY_SECONDS)


@pytest.mark.parametrize("sdk", SDKS)
def test_an_engine_that_still_starts_costs_a_wait_not_an_error(
    told_while_starting: dict[str, dict[str, Any]], sdk: str
) -> None:
    """503: the SDK comes back when the gateway said, and is served."""
    require(sdk)
    check(told_while_starting[sdk], 503, "InternalServerError", STARTING_SECONDS)
