"""The engine as a child process: started, restarted when it dies, gone when the gateway goes.

The child ends at the end of its stdin, which even a SIGKILL of the parent brings about; it has a
session of its own, so that a terminal's Ctrl-C does not end it while answers are being finished.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO

logger = logging.getLogger("gateway.engine")
output_logger = logging.getLogger("gateway.engine.output")

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
HEALTHY_SECONDS = 30.0  # an engine that lived this long starts again without a pause
STOP_SECONDS = 5.0
# A GPU engine gives its memory back in order within some seconds; Docker itself grants ten.
COMMAND_STOP_SECONDS = 8.0
KEEPER_MARGIN_SECONDS = 3.0
LOOK_SECONDS = 1.0
BACKLOG = 1024
LONGEST_LINE_BYTES = 4096
_LINE_END = re.compile(rb"[\r\n]+")  # progress bars end their lines with \r


def engine_command(fd: int) -> list[str]:
    """The command of the CPU engine on an inherited socket."""
    return [sys.executable, "-m", "engines.serve", "--fd", str(fd), "--exit-with-parent"]


@dataclass(eq=False)
class Supervisor:
    """Runs one child until `stop`.

    Attributes:
        command: The program and its arguments; it must end at the end of its stdin.
        pass_fds: Descriptors that it inherits.
        stop_seconds: Time between SIGTERM and SIGKILL.
        relay: Pass its output on, line by line, under the logger `engines.output`;
            otherwise it writes where this process writes.
        starts: How often it was started.
    """

    command: Sequence[str]
    pass_fds: Sequence[int] = ()
    stop_seconds: float = STOP_SECONDS
    relay: bool = False
    starts: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        """Prepare the thread that watches."""
        self._thread = threading.Thread(target=self._run, name="engine-supervisor", daemon=True)

    def start(self) -> None:
        """Start the child and watch over it."""
        self._thread.start()

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._stopping.is_set():
                return None
            self._process = subprocess.Popen(  # noqa: S603  (our own or the operator's command)
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if self.relay else None,
                stderr=subprocess.STDOUT if self.relay else None,
                pass_fds=self.pass_fds,
                start_new_session=True,
            )
            self.starts += 1
            return self._process

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            began = time.monotonic()
            process = self._spawn()
            if process is None:
                return
            if process.stdout:
                threading.Thread(
                    target=relay_output, args=(process.stdout,), name="engine-output", daemon=True
                ).start()
            status = process.wait()
            if process.stdin:
                process.stdin.close()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > HEALTHY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            logger.error("the engine died with status %d; starting it again", status)
            self._stopping.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def restart(self) -> None:
        """End the child, by force if it does not go; another one is started in its place."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(self.stop_seconds)
            except subprocess.TimeoutExpired:
                process.kill()

    def stop(self) -> None:
        """End the child, by force if it does not go; idempotent."""
        with self._lock:
            self._stopping.set()
        self.restart()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)


class EngineSupervisor(Supervisor):
    """Runs an engine of this package on a free loopback port.

    The parent holds the listening socket, so that a restart keeps the address, and requests that
    arrive in between wait in its backlog.

    Args:
        command: Makes the child's command from the number of its inherited socket.
        relay: Pass its output on in the log.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]] = engine_command,
        *,
        relay: bool = False,
    ) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        fd = self._socket.fileno()
        super().__init__(command(fd), pass_fds=(fd,), relay=relay)

    @property
    def address(self) -> str:
        """Base address of the engine."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def stop(self) -> None:
        """End the engine and close its socket; idempotent."""
        super().stop()
        self._socket.close()


async def restart_when_stuck(
    engine: Supervisor,
    healthy: Callable[[], bool],
    seconds: float,
    look_seconds: float = LOOK_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Restarts an engine that worked since its start and then not for so long; runs for ever.

    An engine core that is killed from outside leaves a process that accepts requests and answers
    none (docs/contract.md section 1). One that still loads has not worked yet, and is left alone.

    Args:
        engine: Whose child it is.
        healthy: Whether the engine works.
        seconds: Time without health after which the child is ended.
        look_seconds: Pause between two looks.
        clock: Tells seconds.
    """
    worked_at: float | None = None
    start_that_worked = 0
    while True:
        await asyncio.sleep(look_seconds)
        now = clock()
        if healthy():
            worked_at, start_that_worked = now, engine.starts
        elif (
            worked_at is not None
            and start_that_worked == engine.starts
            and now - worked_at >= seconds
        ):
            logger.error("the engine has not worked for %.0f s: starting it again", now - worked_at)
            worked_at = None
            await asyncio.to_thread(engine.restart)


def command_supervisor(command: str, stop_seconds: float = COMMAND_STOP_SECONDS) -> Supervisor:
    """A supervisor of any command that starts an engine on an address of its own.

    Args:
        command: As in a shell, without a shell's expansions; the settings have checked it.
        stop_seconds: Time between SIGTERM and SIGKILL.
    """
    keeper = [sys.executable, "-m", "gateway.server.subreaper", str(stop_seconds)]
    # The keeper kills after its own time; it must not be killed before.
    margin = KEEPER_MARGIN_SECONDS
    return Supervisor(
        [*keeper, *shlex.split(command)], stop_seconds=stop_seconds + margin, relay=True
    )


def relay_output(pipe: IO[bytes]) -> None:
    """Log what a process writes, a line each, until it has written all; memory is bounded."""
    rest = b""
    with pipe:
        while data := pipe.read1(LONGEST_LINE_BYTES):  # type: ignore[attr-defined]
            *lines, rest = _LINE_END.split(rest + data)
            for line in lines:
                _log_line(line)
            if len(rest) > LONGEST_LINE_BYTES:
                _log_line(rest)
                rest = b""
    _log_line(rest)


def _log_line(line: bytes) -> None:
    text = line.decode("utf-8", "replace").rstrip()
    if text:
        output_logger.info("%s", text)
