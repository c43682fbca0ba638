"""The `engine` command: one engine process on a port, or on a socket that it inherits.

`python -m engines.serve --voice simulated --port 8000` runs it without the command.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import functools
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from engines.higgs.command import add_higgs_arguments, create_higgs
from engines.server.app import CONTEXT_TOKENS, Engine, EngineOptions, create_engine_app
from engines.server.presets import PresetFolder
from engines.simulator.app import add_simulator_arguments, create_simulator
from gateway.server.signals import stop_at_end_of_stdin
from gateway.telemetry.logging import log_config

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
        "--voice", choices=["cpu", "higgs", "simulated"], default="cpu", help="what makes the sound"
    )
    parser.add_argument("--api-key", help="bearer key that every /v1 path wants")
    parser.add_argument("--served-model-name", help="the model's name")
    parser.add_argument("--max-model-len", "--context", type=int, help="context tokens")
    parser.add_argument(
        "--voice-presets-dir",
        type=Path,
        help="folder with a config.json whose voices replace the engine's own presets",
    )
    parser.add_argument(
        "--exit-with-parent",
        action="store_true",
        help="stop when standard input ends, as it does when the parent process dies",
    )
    add_higgs_arguments(parser)
    add_simulator_arguments(parser)


class EngineServer(uvicorn.Server):
    """uvicorn with a listener that can be closed for a while, and a call at SIGTERM.

    Args:
        config: uvicorn's own.
        listener: The listening socket.
        at_exit: Called when a signal asks for the end, before anything is closed.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        at_exit: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._at_exit = at_exit
        self._reopening: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop serving."""
        if self._at_exit is not None:
            self._at_exit()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener at once, then wait for what is open."""
        if self._reopening is not None:
            self._reopening.cancel()
        self._listener.close()
        await super().shutdown(sockets)

    async def refuse(self, seconds: float) -> None:
        """Refuse connections for a while, also where a parent process holds the socket too."""
        if self._reopening is not None and not self._reopening.done():
            return
        for server in self.servers:
            server.close()
        self.servers.clear()
        # Closing alone would leave the parent's copy listening.
        address = self._listener.getsockname()
        self._listener.shutdown(socket.SHUT_RDWR)
        try:
            self._listener.bind(address)  # a port that the system chose was given back to it
        except OSError as error:
            if error.errno != errno.EINVAL:  # one that was asked for is still bound
                raise
        self._reopening = asyncio.get_running_loop().create_task(self._reopen(seconds))

    async def _reopen(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._listener.listen(BACKLOG)
        loop = asyncio.get_running_loop()
        protocol: Any = self.config.http_protocol_class  # as uvicorn's own startup makes them
        create = functools.partial(
            protocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        copy = self._listener.dup()
        self.servers.append(await loop.create_server(create, sock=copy, backlog=BACKLOG))


def run_from_arguments(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    if arguments.exit_with_parent:
        stop_at_end_of_stdin()
    simulator = None
    app: Any
    try:
        folder = arguments.voice_presets_dir
        options = EngineOptions(
            arguments.served_model_name,
            arguments.api_key,
            arguments.max_model_len or CONTEXT_TOKENS,
            PresetFolder(folder, may_be_empty=arguments.voice == "higgs") if folder else None,
        )
        if arguments.voice == "simulated":
            app, simulator = create_simulator(arguments, options)
        elif arguments.voice == "higgs":
            app = create_higgs(arguments, options)
        else:
            from engines.cpu.voice import CpuVoice  # noqa: PLC0415  (the extra `cpu`)

            app = create_engine_app(Engine(CpuVoice(), options))
        listener = _listen(arguments)
    except ValueError as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(f"cannot listen on {arguments.host}:{arguments.port}: {error.strerror}")
    stalls = simulator is not None and arguments.stall_on_sigterm
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=log_config("warning"),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=None if stalls else DRAIN_SECONDS,
    )

    def freeze() -> None:
        if simulator is not None and stalls:
            simulator.voice.clock.frozen = True

    server = EngineServer(config, listener, freeze)
    if simulator is not None:
        simulator.refuse = server.refuse
    _exit_with_success_at_signals()
    with listener, contextlib.suppress(SystemExit):
        server.run(sockets=[listener.dup()])
    return 0


def _listen(arguments: argparse.Namespace) -> socket.socket:
    if arguments.fd is not None:
        return socket.socket(fileno=arguments.fd)
    return socket.create_server((arguments.host, arguments.port), backlog=BACKLOG)


def _complain(message: str) -> int:
    print(f"speech-gateway: {message}", file=sys.stderr)  # noqa: T201  (a command's own error)
    return STATUS_USAGE


def _exit_with_success_at_signals() -> None:
    """End with 0: uvicorn raises the signal again when it has shut down in order."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def main(argv: Sequence[str] | None = None) -> int:
    """Run an engine from its own command line."""
    parser = argparse.ArgumentParser(prog="engines.serve", description=__doc__)
    add_engine_arguments(parser)
    return run_from_arguments(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
