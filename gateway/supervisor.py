"""The engine as a child process: started, restarted when it dies, gone when the gateway goes.

The parent holds the listening socket, so a restart keeps the address and requests that arrive in
between wait in its backlog; the child ends at the end of its stdin, which even a SIGKILL of the
parent brings about.
"""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

logger = logging.getLogger("gateway.engine")

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
HEALTHY_SECONDS = 30.0  # an engine that lived this long starts again without a pause
STOP_SECONDS = 5.0
BACKLOG = 1024


def engine_command(fd: int) -> list[str]:
    """The command of the CPU engine on an inherited socket."""
    return [sys.executable, "-m", "gateway", "engine", "--fd", str(fd), "--exit-with-parent"]


class EngineSupervisor:
    """Runs one engine on a free loopback port until `stop`.

    Args:
        command: Makes the child's command from the number of its inherited socket.
    """

    def __init__(self, command: Callable[[int], Sequence[str]] = engine_command) -> None:
        self._command = command
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="engine-supervisor", daemon=True)
        self.starts = 0

    @property
    def address(self) -> str:
        """Base address of the engine."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def pid(self) -> int | None:
        """Process id of the engine that runs now."""
        process = self._process
        return process.pid if process and process.poll() is None else None

    def start(self) -> None:
        """Start the engine and watch over it."""
        self._thread.start()

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        fd = self._socket.fileno()
        with self._lock:
            if self._stopping.is_set():
                return None
            self._process = subprocess.Popen(  # noqa: S603  (our own command)
                self._command(fd), stdin=subprocess.PIPE, pass_fds=(fd,)
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

    def stop(self) -> None:
        """End the engine, by force if it does not go; idempotent."""
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        self._socket.close()
