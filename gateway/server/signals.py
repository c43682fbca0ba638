"""How a process is asked to end: by signals, or by the end of its standard input."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ORPHAN_GRACE_SECONDS = 3.0


@contextmanager
def stop_signals_handled(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Have the signals that ask for the end handled so inside of the block.

    A hang-up does not ask for it where `nohup` wants it ignored.
    """
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    numbers = [signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hangs_up else [])]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def stop_at_end_of_stdin() -> None:
    """Stop this process when its standard input ends, as it does when its parent dies."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        _stop_self()

    threading.Thread(target=watch, name="stdin-watch", daemon=True).start()


def _stop_self() -> None:
    """Ask for an orderly end, then insist: nobody is left who could."""
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(ORPHAN_GRACE_SECONDS)
    os._exit(1)
