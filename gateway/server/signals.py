"""How a process is asked to end: by signals, or by the end of its standard input."""

from __future__ import annotations

import os
import signal
import threading

ORPHAN_GRACE_SECONDS = 3.0


def stop_signals() -> list[signal.Signals]:
    """The signals that ask for the end; a hang-up does not where `nohup` wants it ignored."""
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hangs_up else [])]


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
