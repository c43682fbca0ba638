"""Shuts the gateway down: no new requests, time for running ones, then an abort.

Closing the listener at once is what a load balancer understands best: a refused connection has
begun nothing, so that it goes to another gateway, whereas a 503 would go to the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from gateway.server.signals import stop_signals_handled

LOOK_EVERY_SECONDS = 0.05
CUT_SECONDS = 1.0  # for what was cut off to give its engine and its client notice
GIVE_BACK_SECONDS = 3.0  # for the application to give back what it holds; the process ends anyway

# A collection stops all streams, a microsecond an object: one of everything for half a second where
# 4,000 run. Requests leave no circles, so that this comes once in two million objects that stay, or
# when nothing runs. The youngest two generations hold 2,500 objects at most: 20,000 took 32 ms.
COLLECT_AFTER = (500, 4, 1_000)
COLLECT_SECONDS = 60.0


class Drain:
    """The state of the shutdown.

    Attributes:
        begun: No new request is taken.
        over: What still runs is being cut off.
        at_begin: Called in the event loop when the drain begins.
    """

    def __init__(self) -> None:
        self.begun = False
        self.over = False
        self.at_begin: Callable[[], None] = lambda: None

    def begin(self) -> None:
        """Take no new request, and tell those that wait in line."""
        self.begun = True
        self.at_begin()


class DrainingServer(uvicorn.Server):
    """uvicorn, with the end that a speech gateway needs.

    uvicorn itself would answer what it cuts off with 500, raise the signal again after an orderly
    end (status 143), and take a second SIGTERM for the first.

    Args:
        config: uvicorn's own.
        drain: What the application looks at.
        drain_seconds: Time that running answers get.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, drain_seconds: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._drain_seconds = drain_seconds
        self._collected_at = time.monotonic()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start; what is there by then stays, and no collection of garbage looks at it again."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)

    async def on_tick(self, counter: int) -> bool:
        """Once a minute, as soon as nobody would notice: look for garbage everywhere."""
        now = time.monotonic()
        if now - self._collected_at > COLLECT_SECONDS and not self.server_state.tasks:
            self._collected_at = now
            gc.collect()
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals inside of the block; they end the server, not the process."""
        with stop_signals_handled(self.handle_exit):
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the drain; at the second signal, end it."""
        del sig, frame
        self._drain.begun = True  # from here on it is not ready; the rest follows in the loop
        self.force_exit = self.should_exit
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let what runs finish, cut the rest, and give everything back."""
        self._drain.begin()
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._wait_for_answers()
        await self._cut()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GIVE_BACK_SECONDS):
                await self.lifespan.shutdown()

    async def _wait_for_answers(self) -> None:
        end = time.monotonic() + self._drain_seconds
        while self.server_state.connections or self.server_state.tasks:
            if self.force_exit or time.monotonic() >= end:
                return
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    async def _cut(self) -> None:
        self._drain.over = True
        tasks = set(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CUT_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
