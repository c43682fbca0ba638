"""Real processes and real sockets for tests: a gateway in a thread, engines as processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from gateway.api.routes import Route
from gateway.app import Application, Runtime
from gateway.commands.serve import KEEP_ALIVE_SECONDS
from gateway.server.connections import Crowd
from gateway.server.http_protocol import bounded_protocol
from gateway.settings import load_settings
from gateway.telemetry.logging import log_config
from loadtest.processes import DEADLINE_SECONDS, answers, running_engine, wait_until

__all__ = ["Gateway", "answers", "running_engine", "running_gateway", "until", "wait_until"]


def namespaces_can_be_made() -> bool:
    """Whether this process may make namespaces; inside some sandboxes not even root may."""
    command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    if os.geteuid() != 0 or shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


async def until(fact: Callable[[], object]) -> None:
    """Let the event loop go on until something is true that has no event."""
    async with asyncio.timeout(120):
        while not fact():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class Gateway:
    """A gateway on a loopback port, served by a real uvicorn in a thread of this process.

    Attributes:
        url: Its base address.
        runtime: Its live state, for looking at slots and leases.
        crowd: Its connections.
    """

    def __init__(self, *, keep_alive_seconds: int = KEEP_ALIVE_SECONDS, **settings: Any) -> None:
        self._data = tempfile.TemporaryDirectory(
            prefix="speech-gateway-", ignore_cleanup_errors=True
        )
        defaults = {"probe_interval_seconds": 0.2, "data_dir": self._data.name}
        self._settings = load_settings(**{**defaults, **settings})
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._app = Application(self._settings)
        self.crowd = Crowd(self._settings)
        config = uvicorn.Config(
            self._app,
            http=bounded_protocol(self.crowd),
            loop="uvloop",
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=log_config("warning"),
            server_header=False,
            reset_contextvars=True,
            timeout_keep_alive=keep_alive_seconds,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="gateway", daemon=True)
        self.loop: asyncio.AbstractEventLoop | None = None

    def _serve(self) -> None:
        async def main() -> None:
            self.loop = asyncio.get_running_loop()
            await self._server.serve(sockets=[self._socket])

        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            runner.run(main())

    @property
    def runtime(self) -> Runtime:
        """What the application holds while it runs."""
        runtime = self._app.runtime
        assert isinstance(runtime, Runtime)
        return runtime

    @property
    def app(self) -> ASGIApp:
        """The application itself, without a server before it."""
        return self._app

    @property
    def routes(self) -> list[Route]:
        """What is mounted."""
        return self._app.routes

    @property
    def connections(self) -> int:
        """Connections of clients."""
        return len(self._server.server_state.connections)

    def start(self, *, ready: bool = True) -> None:
        """Serve, and wait until it is live (and ready)."""
        self._thread.start()
        wait_until(lambda: answers(self.url + "/health"), "the gateway is live")
        if ready:
            wait_until(lambda: answers(self.url + "/ready"), "the gateway is ready")

    def stop(self) -> None:
        """Shut down and wait for it."""
        self._server.should_exit = True
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive(), "the gateway did not stop"
        self._socket.close()
        self._data.cleanup()

    def metric(self, name: str, **labels: str) -> float:
        """One sample of the gateway's own counters; 0 while there is none."""
        value = self.runtime.metrics.registry.get_sample_value(name, labels)
        return value or 0.0


@contextmanager
def running_gateway(*, ready: bool = True, **settings: Any) -> Iterator[Gateway]:
    """A gateway with the given settings; `upstreams` must be among them."""
    gateway = Gateway(**settings)
    gateway.start(ready=ready)
    try:
        yield gateway
    finally:
        gateway.stop()
