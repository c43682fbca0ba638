"""What runs for a client ends when the client leaves, at once and whatever it is waiting for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive

from gateway.errors import ClientGone


class Disconnect:
    """Cancels the task that it was made in when the client leaves."""

    def __init__(self, receive: Receive) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("not in a task")
        self.task = task
        self.gone = False
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self.task.cancel()

    def stop(self) -> None:
        """Stop watching: the answer is complete. Idempotent."""
        # Not kept: its traceback leads back here, and such a circle waits for the collector.
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()

    async def absorb(self) -> None:
        """Take in a cancellation that is on its way while the block ends with another error.

        Raises:
            ClientGone: There was one.
        """
        if self.gone:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                if self.task.uncancel():
                    raise
            raise ClientGone


@asynccontextmanager
async def watch_disconnect(receive: Receive) -> AsyncIterator[Disconnect]:
    """Run the block until the client leaves; the request's body must have been read.

    Raises:
        ClientGone: It left; the block was cancelled.
    """
    watch = Disconnect(receive)
    try:
        yield watch
    except asyncio.CancelledError:
        if watch.gone and watch.task.uncancel() == 0:
            raise ClientGone from None
        raise
    except BaseException:
        await watch.absorb()
        raise
    finally:
        watch.stop()
