"""The `serve` process: it owns the listening socket, the workers and the engine it started.

One worker runs in this very process; several run under uvicorn's supervisor, which replaces one
that dies.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import logging.config
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from gateway.logs import log_config
from gateway.settings import Settings, SettingsError, load_settings, unknown_variables
from gateway.supervisor import EngineSupervisor

logger = logging.getLogger("gateway.serve")

KEEP_ALIVE_SECONDS = 75  # above that of clients' pools: they close first, so no request is lost
BACKLOG = 2048
ORPHAN_GRACE_SECONDS = 3.0
STATUS_USAGE = 2


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `speech-gateway serve`; everything else is a GATEWAY_ variable."""
    parser.add_argument("--host", help="address to listen on (GATEWAY_HOST)")
    parser.add_argument("--port", type=int, help="port to listen on (GATEWAY_PORT)")
    parser.add_argument("--workers", type=int, help="worker processes (GATEWAY_WORKERS)")
    parser.add_argument(
        "--exit-with-parent",
        action="store_true",
        help="stop when standard input ends, as it does when the parent process dies",
    )


def run_serve(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    try:
        settings = load_settings(
            host=arguments.host, port=arguments.port, workers=arguments.workers
        )
        listener = _listen(settings)
    except (SettingsError, OSError) as error:
        print(f"speech-gateway: {error}", file=sys.stderr)  # noqa: T201
        return STATUS_USAGE
    if not settings.upstreams and importlib.util.find_spec("hibari") is None:
        print(  # noqa: T201
            "speech-gateway: GATEWAY_UPSTREAMS is empty and the CPU voice is not installed; "
            "name an engine's address, or install speech-gateway[cpu]",
            file=sys.stderr,
        )
        return STATUS_USAGE
    logging.config.dictConfig(log_config(settings.log_level))
    for name in unknown_variables(os.environ):
        logger.warning("%s is not a setting of this version and has no effect", name)
    if arguments.exit_with_parent:
        stop_at_end_of_stdin()
    with ExitStack() as scope:
        scope.enter_context(listener)
        scope.enter_context(_stop_signals())
        if not settings.upstreams:
            engine = EngineSupervisor()
            scope.callback(engine.stop)
            engine.start()
            settings = settings.model_copy(update={"upstreams": (engine.address,)})
        _serve(settings, listener, scope)
    return 0


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        ) from None


@contextlib.contextmanager
def _stop_signals() -> Iterator[None]:
    """End the block with success at SIGTERM or SIGINT.

    uvicorn drains on these signals and then raises them again, which would end the process with
    status 143 although everything went well.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise SystemExit(0)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with contextlib.suppress(SystemExit):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _serve(settings: Settings, listener: socket.socket, scope: ExitStack) -> None:
    if settings.workers > 1:
        # The Prometheus client looks at this variable when it is imported, in each worker.
        folder = scope.enter_context(tempfile.TemporaryDirectory(prefix="speech-gateway-"))
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    config = uvicorn.Config(
        partial(worker_app, settings),
        factory=True,
        workers=settings.workers,
        log_config=log_config(settings.log_level),
        access_log=False,
        http="httptools",
        ws="none",
        lifespan="on",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )
    host, port = listener.getsockname()[:2]
    logger.info("listening on http://%s:%d", host, port)
    if settings.workers > 1:
        Multiprocess(config, sockets=[listener]).run()
    else:
        uvicorn.Server(config).run(sockets=[listener])


def worker_app(settings: Settings) -> ASGIApp:
    """The application of one worker process; a worker of a dead parent ends itself."""
    from gateway.app import create_app  # noqa: PLC0415  (the Prometheus client, see _serve)

    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(
            target=_stop_after, args=(parent.sentinel,), name="parent-watch", daemon=True
        ).start()
    return create_app(settings)


def stop_at_end_of_stdin() -> None:
    """Stop this process when its standard input ends."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        _stop_self()

    threading.Thread(target=watch, name="stdin-watch", daemon=True).start()


def _stop_after(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    _stop_self()


def _stop_self() -> None:
    """Ask for an orderly end, then insist: nobody is left who could."""
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(ORPHAN_GRACE_SECONDS)
    os._exit(1)
