"""The worker processes: started, replaced when they die or hang, drained together at the end.

uvicorn's own supervisor keeps the parent's copy of the listener open during the drain (new clients
would wait for nobody), ignores a second signal, and adds workers at SIGTTIN (more slots than
allowed); this one does neither, and knows each worker by its place.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

from uvicorn.config import STARTUP_FAILURE

from gateway.server.shutdown import stop_signals

logger = logging.getLogger("gateway.workers")

LOOK_EVERY_SECONDS = 0.2
# An event loop that stands still for so long serves nobody; a busy machine must not be taken for
# one, so this is far above any pause that was ever seen.
HANG_SECONDS = 30.0
START_SECONDS = 120.0  # until the first beat: a cold disk and many workers at once
HEALTHY_SECONDS = 10.0  # a worker that lived this long is replaced without a pause
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
EXTRA_DRAIN_SECONDS = 5.0  # beyond the drain: cutting, giving back, and a slow machine

_context = multiprocessing.get_context("spawn")


class Heart:
    """The last moment at which a worker's event loop turned, shared with its parent."""

    def __init__(self) -> None:
        self._beaten: Any = _context.RawValue("d", 0.0)

    def beat(self) -> None:
        """Say that the event loop turns."""
        self._beaten.value = time.monotonic()  # the same clock in every process of a machine

    @property
    def last_beat(self) -> float:
        """`time.monotonic()` of the last beat; 0 before the first."""
        return float(self._beaten.value)


Run = Callable[[int, Heart, socket.socket], None]


@dataclass
class _Place:
    """One of the workers' places and who holds it."""

    number: int
    process: SpawnProcess | None = None
    heart: Heart | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    pause_seconds: float = FIRST_PAUSE_SECONDS

    def hangs(self, now: float) -> bool:
        """Whether its event loop stands still."""
        if self.heart is None:
            return False
        beaten = self.heart.last_beat
        return now - beaten > HANG_SECONDS if beaten else now - self.started_at > START_SECONDS


class Workers:
    """Runs workers until SIGTERM, SIGINT or SIGHUP.

    Args:
        run: What a worker does, given its place's number, its heart and the listener; it must be
            picklable.
        count: How many there are.
        listener: What they accept from; closed here when the drain begins.
        drain_seconds: Time that they get at the end.
        bury: Called with the number of a place whose worker has died.
    """

    def __init__(
        self,
        run: Run,
        count: int,
        listener: socket.socket,
        drain_seconds: float,
        bury: Callable[[int], None],
    ) -> None:
        self._run = run
        self._places = [_Place(number) for number in range(count)]
        self._listener = listener
        self._drain_seconds = drain_seconds
        self._bury = bury
        self._signals = 0
        self._failed = False

    def run(self) -> int:
        """Keep all places filled until a signal, then drain.

        Returns:
            The exit status: 0, or a worker's own if it cannot start at all.
        """
        with self._signal_handlers():
            while not self._signals and not self._failed:
                self._fill()
                self._wait(LOOK_EVERY_SECONDS)
                self._look_after()
            self._drain()
        return STARTUP_FAILURE if self._failed else 0

    @contextlib.contextmanager
    def _signal_handlers(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._on_signal) for number in stop_signals()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Pass it on at once: the first one drains, the second one ends."""
        del number, frame
        self._signals += 1
        self._signal_all(signal.SIGTERM if self._signals == 1 else signal.SIGKILL)

    def _signal_all(self, number: signal.Signals) -> None:
        for process in self._alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid or 0, number)

    def _alive(self) -> list[SpawnProcess]:
        return [p.process for p in self._places if p.process and p.process.exitcode is None]

    def _wait(self, seconds: float) -> None:
        """Wait for a death, at most for so long."""
        sentinels = [process.sentinel for process in self._alive()]
        multiprocessing.connection.wait(sentinels, seconds)

    def _fill(self) -> None:
        """Start a worker in every empty place whose pause is over."""
        for place in self._places:
            if self._signals or place.process or time.monotonic() < place.start_at:
                continue
            heart = Heart()
            process = _context.Process(
                target=self._run,
                args=(place.number, heart, self._listener),
                name=f"worker-{place.number}",
            )
            process.start()
            place.process, place.heart = process, heart
            place.started_at = time.monotonic()
        if self._signals:  # one may have come while a process was being started
            self._signal_all(signal.SIGTERM if self._signals == 1 else signal.SIGKILL)

    def _look_after(self) -> None:
        """Empty the places of the dead, and kill those that hang."""
        now = time.monotonic()
        for place in self._places:
            process = place.process
            if process is None or self._signals:
                continue
            if process.exitcode is None and place.hangs(now):
                logger.error("worker %d (process %d) hangs", place.number, process.pid)
                process.kill()
                process.join()
            if process.exitcode is not None:
                self._replace(place, process.exitcode, now - place.started_at)

    def _replace(self, place: _Place, status: int, lived_seconds: float) -> None:
        beaten = place.heart is not None and place.heart.last_beat > 0
        place.process = place.heart = None
        self._bury(place.number)
        if status == STARTUP_FAILURE and not beaten:
            logger.error("worker %d cannot start", place.number)
            self._failed = True  # it would fail again in the same way
            return
        if lived_seconds > HEALTHY_SECONDS:
            place.pause_seconds = FIRST_PAUSE_SECONDS
        how = f"signal {-status}" if status < 0 else f"status {status}"
        logger.error("worker %d died (%s); starting another", place.number, how)
        place.start_at = time.monotonic() + place.pause_seconds
        place.pause_seconds = min(place.pause_seconds * 2, LONGEST_PAUSE_SECONDS)

    def _drain(self) -> None:
        """Wait for the workers' own drain, then insist."""
        self._listener.close()  # or clients would queue up for workers that take nobody
        if not self._signals:
            self._signal_all(signal.SIGTERM)
        end = time.monotonic() + self._drain_seconds + EXTRA_DRAIN_SECONDS
        while self._alive() and time.monotonic() < end:
            self._wait(LOOK_EVERY_SECONDS)
        for process in self._alive():
            logger.error("process %d did not end in time", process.pid)
            process.kill()
        for place in self._places:
            if place.process is not None:
                place.process.join()
