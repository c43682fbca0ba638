"""Keeps an engine command that knows nothing of the gateway: it ends when the gateway does.

Run as `python -m gateway.server.subreaper SECONDS COMMAND...` with a pipe as standard input. The
end of that pipe, which even a SIGKILL of the gateway brings about, ends the command and all that it
started.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # prctl(2): orphans below this process become its children
LOOK_EVERY_SECONDS = 0.1
STATUS_NOT_FOUND = 127  # as a shell says it
STATUS_SIGNAL = 128


def keep(command: Sequence[str], grace_seconds: float) -> int:
    """Runs a command until it ends or is to end, and leaves nothing of it behind.

    Args:
        command: The program and its arguments.
        grace_seconds: Time between SIGTERM and SIGKILL.

    Returns:
        Its exit status, 128 + N for signal N.
    """
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    _adopt_orphans()
    threading.Thread(target=_wait_for_parent, args=(asked,), daemon=True).start()
    try:
        process = subprocess.Popen(  # noqa: S603  (the operator's own command)
            command, stdin=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return STATUS_NOT_FOUND
    while _reap(process) is None and not asked.is_set():
        asked.wait(LOOK_EVERY_SECONDS)
    _end(process, grace_seconds)
    status = process.returncode
    return STATUS_SIGNAL - status if status < 0 else status


def _reap(process: subprocess.Popen[bytes]) -> int | None:
    """Reap all that has ended, orphans included; the command's status, if it has."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == process.pid:
                process.returncode = os.waitstatus_to_exitcode(ended[1])
    return process.returncode


def _wait_for_parent(asked: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    asked.set()


def _end(process: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """SIGTERM to all that is left, and SIGKILL to what does not go.

    The group is asked first: an engine that was asked twice might not end in order.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    end = time.monotonic() + grace_seconds
    while time.monotonic() < end:
        _reap(process)
        if not _children():
            return
        time.sleep(LOOK_EVERY_SECONDS)
    while left := _children():  # each death may hand over orphans
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap(process)
        time.sleep(LOOK_EVERY_SECONDS)


def _adopt_orphans() -> None:
    """Become the parent of every orphan below: none can escape, and none stays a zombie."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _children() -> list[int]:
    """Processes whose parent this one is, zombies included."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                # proc(5): the name in parentheses may hold anything, state and parent follow it.
                words = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                if int(words[1]) == os.getpid():
                    found.append(int(entry.name))
    return found


if __name__ == "__main__":
    sys.exit(keep(sys.argv[2:], float(sys.argv[1])))
