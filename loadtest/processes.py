"""Engines and gateways as real processes, for load tests, proofs and tests."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import httpx

from gateway.server.engine_process import EngineSupervisor
from gateway.settings import PREFIX

DEADLINE_SECONDS = 120.0  # of what is sure to happen on a machine however busy
FIRST_PORT, PORTS = 10_000, 22_768


def wait_until(
    fact: Callable[[], Any], what: str, deadline_seconds: float = DEADLINE_SECONDS
) -> Any:
    """Wait for a fact about another process.

    Returns:
        The fact, as soon as it is true.

    Raises:
        AssertionError: It did not come true in time.
    """
    end = time.monotonic() + deadline_seconds
    pause = threading.Event()
    while True:
        value = fact()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_seconds:g} s: {what}")
        pause.wait(0.01)


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        # Only loopback is asked, over and over: a TLS context would take 20 ms of a processor each.
        answer = httpx.get(url, timeout=5, verify=False)  # noqa: S501
        return answer.status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def engine_state(address: str) -> dict[str, Any]:
    """What a simulated engine saw and does."""
    value = httpx.get(address + "/simulator/state", timeout=DEADLINE_SECONDS).json()
    assert isinstance(value, dict)  # noqa: S101  (for the types)
    return value


def free_port() -> int:
    """A loopback port that nobody listens on now.

    The system gives those from 32,768 on to connections by itself: one of them could be somebody
    else's before a process that takes seconds to start has opened it.
    """
    while True:
        port = FIRST_PORT + secrets.randbelow(PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def running_engine(*arguments: str, relay: bool = False) -> Iterator[EngineSupervisor]:
    """A real engine process.

    Args:
        *arguments: What follows `speech-gateway engine`.
        relay: Log what it writes; otherwise it writes where this process does.
    """

    def command(fd: int) -> list[str]:
        base = [sys.executable, "-m", "engines.serve", "--fd", str(fd), "--exit-with-parent"]
        return [*base, *arguments]

    engine = EngineSupervisor(command, relay=relay)
    engine.start()
    try:
        wait_until(lambda: answers(engine.address + "/health"), "the engine is live")
        yield engine
    finally:
        engine.stop()


class ServeProcess:
    """A `speech-gateway serve` process.

    Attributes:
        url: Its base address.
        process: The process.
    """

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.process = process

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_SECONDS)


@contextmanager
def running_serve(
    *arguments: str,
    ready: bool = True,
    stderr: IO[bytes] | None = None,
    before: Sequence[str] = (),
    deadline_seconds: float = DEADLINE_SECONDS,
    **settings: Any,
) -> Iterator[ServeProcess]:
    """A gateway in its own process.

    Args:
        *arguments: What follows `speech-gateway serve`.
        ready: Wait until it can speak; else until it is live.
        stderr: Where it logs.
        before: The command that runs it, such as a profiler.
        deadline_seconds: For its start.
        **settings: Become GATEWAY_ variables.
    """
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    with tempfile.TemporaryDirectory(prefix="speech-gateway-") as folder:
        settings = {"data_dir": folder, **settings}
        environment |= {PREFIX + name.upper(): str(value) for name, value in settings.items()}
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "gateway", "serve", "--port", str(port), *arguments],
            env=environment,
            stderr=stderr,
        )
        serve = ServeProcess(f"http://127.0.0.1:{port}", process)
        try:
            path = "/ready" if ready else "/health"
            wait_until(
                lambda: answers(serve.url + path) or process.poll() is not None,
                path,
                deadline_seconds,
            )
            yield serve
        finally:
            if process.poll() is None:
                serve.stop()
