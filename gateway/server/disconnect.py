"""What runs for a client ends when the client leaves, at once and whatever it is waiting for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Self

from starlette.types import Receive, Scope

from gateway.errors import ClientGone

# The ASGI extension of a server that calls back when a request's client leaves: a function that
# takes what is to be called from now on.
DISCONNECT = "gateway.disconnect"


class Disconnect:
    """Runs a block until the client leaves; the request's body must have been read.

    The block is cancelled then, and ends with ClientGone, whatever it ends with itself.

    Args:
        receive: Tells that the client has left.
        scope: The request; a server that offers `DISCONNECT` in it is asked to tell, which takes no
            task that waits for it.
    """

    def __init__(self, receive: Receive, scope: Scope | None = None) -> None:
        self._task: asyncio.Task[object] = asyncio.current_task()  # type: ignore[assignment]  # else it would not be awaited
        self._gone = False
        self._receive = receive
        self._when_gone = (scope or {}).get("extensions", {}).get(DISCONNECT)
        self._unwatch: Callable[[], object] = bool  # does nothing

    async def __aenter__(self) -> Self:
        """Watch from now on."""
        if self._when_gone is None:
            self._unwatch = asyncio.create_task(self._watch()).cancel
        else:
            self._when_gone(self._leave)
            self._unwatch = partial(self._when_gone, bool)
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
        self._leave()

    def _leave(self) -> None:
        self._gone = True
        self._task.cancel()

    def stop(self) -> None:
        """Stop watching: the answer is complete. Idempotent."""
        # Not kept: its traceback leads back here, and such a circle waits for the collector.
        unwatch, self._unwatch = self._unwatch, bool
        unwatch()
