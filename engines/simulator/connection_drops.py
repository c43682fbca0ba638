"""Connections that a simulated engine drops in the middle of an answer, or before it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send


class CutError(Exception):
    """The connection is to be dropped.

    Args:
        reset: With a TCP reset; without, the stream ends as a killed process' does.
    """

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__("cut")
        self.reset = reset


class TransportInScope:
    """Puts uvicorn's transport into the scope, where the faults that need a socket find it.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            scope["transport"] = send.__self__.transport  # type: ignore[attr-defined]
        await self._app(scope, receive, send)


async def or_drop(answer: Awaitable[None], scope: Scope, receive: Receive) -> None:
    """Send an answer, and close the connection where a CutError ends it.

    Args:
        answer: What sends it.
        scope: The request's, with its transport.
        receive: ASGI receive, to wait until the connection is gone.
    """
    try:
        await answer
    except CutError as error:
        transport: asyncio.Transport = scope["transport"]
        if error.reset:
            linger = struct.pack("ii", 1, 0)  # closing discards what is unsent: a reset
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
            transport.abort()
        else:
            transport.close()  # after what has been sent
        while (await receive())["type"] != "http.disconnect":
            pass
