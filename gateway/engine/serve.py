"""The `engine` command: one engine process on a port, or on a socket that it inherits."""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import sys
from types import FrameType

import uvicorn

from gateway.engine.app import CONTEXT_TOKENS, Engine, EngineOptions, create_engine_app
from gateway.logs import log_config
from gateway.serve import stop_at_end_of_stdin

KEEP_ALIVE_SECONDS = 5  # docs/contract.md section 1
BACKLOG = 2048
DRAIN_SECONDS = 5
STATUS_USAGE = 2


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `speech-gateway engine`."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on")
    parser.add_argument("--fd", type=int, help="number of an inherited listening socket")
    parser.add_argument(
        "--voice", choices=["cpu", "simulated"], default="cpu", help="what makes the sound"
    )
    parser.add_argument("--api-key", help="bearer key that every /v1 path wants")
    parser.add_argument("--served-model-name", help="the model's name")
    parser.add_argument("--max-model-len", type=int, default=CONTEXT_TOKENS, help="context tokens")
    parser.add_argument(
        "--exit-with-parent",
        action="store_true",
        help="stop when standard input ends, as it does when the parent process dies",
    )
    from gateway.engine.simulator import add_simulator_arguments  # noqa: PLC0415

    add_simulator_arguments(parser)


def run_from_arguments(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    options = EngineOptions(arguments.served_model_name, arguments.api_key, arguments.max_model_len)
    if arguments.voice == "simulated":
        from gateway.engine.simulator import create_simulator  # noqa: PLC0415

        app = create_simulator(arguments, options)
    else:
        from gateway.engine.cpu_voice import CpuVoice  # noqa: PLC0415

        app = create_engine_app(Engine(CpuVoice(), options))
    try:
        listener = (
            socket.create_server((arguments.host, arguments.port), backlog=BACKLOG)
            if arguments.fd is None
            else socket.socket(fileno=arguments.fd)
        )
    except OSError as error:
        print(  # noqa: T201
            f"speech-gateway: cannot listen on {arguments.host}:{arguments.port}: {error.strerror}",
            file=sys.stderr,
        )
        return STATUS_USAGE
    if arguments.exit_with_parent:
        stop_at_end_of_stdin()
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=log_config("warning"),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with contextlib.suppress(SystemExit):
        uvicorn.Server(config).run(sockets=[listener])
    return 0
