"""An engine's application on a loopback port, in a thread of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from gateway.telemetry.logging import log_config
from loadtest.processes import DEADLINE_SECONDS, free_port, wait_until


@contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """Serve until the block ends; its address."""
    port = free_port()
    config = uvicorn.Config(
        app,
        port=port,
        http="httptools",
        access_log=False,
        log_config=log_config("warning"),
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="engine under test", daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, "the engine serves")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(DEADLINE_SECONDS)
