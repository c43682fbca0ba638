"""What runs for a client ends when the client leaves, at once and whatever it is waiting for."""

from __future__ import annotations

import asyncio
from typing import Self

from starlette.types import Receive

from gateway.errors import ClientGone


class Disconnect:
    """Runs a block until the client leaves; the request's body must have been read.

    The block is cancelled then, and ends with ClientGone, whatever it ends with itself.

    Args:
        receive: Tells that the client has left.
    """

    def __init__(self, receive: Receive) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("not in a task")
        self._task = task
        self._gone = False
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Watch from now on."""
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, _: object) -> None:
        """Stop watching.

        Raises:
            ClientGone: The client left before the block had ended well.
        """
        self.stop()
        if error is None or not self._gone:
            return
        if not isinstance(error, asyncio.CancelledError):
            # A cancellation is on its way: it is taken in, or it would hit what comes next.
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                if self._task.uncancel():
                    raise
            raise ClientGone
        if self._task.uncancel() == 0:
            raise ClientGone from None

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()

    def stop(self) -> None:
        """Stop watching: the answer is complete. Idempotent."""
        # Not kept: its traceback leads back here, and such a circle waits for the collector.
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
