"""A bare ASGI relay: what uvicorn, uvloop, httptools and aiohttp cost, and nothing else.

Run as `python -m loadtest.peers.bare_relay PORT ENGINE`.
"""

from __future__ import annotations

import struct
import sys
from typing import Any

import aiohttp
import uvicorn

ENGINE = sys.argv[-1]
WAV = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 2**32 - 1, b"WAVE", b"fmt ", 16, 1, 1, 24_000,
                  48_000, 2, 16, b"data", 2**32 - 1)  # fmt: skip
session: aiohttp.ClientSession | None = None


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Pass a body on, and the answer back behind a WAV header."""
    global session  # noqa: PLW0603  (one client for the life of the process)
    if scope["type"] != "http":
        return
    session = session or aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    body = (await receive())["body"]
    async with session.post(ENGINE + "/v1/audio/speech", data=body) as answer:
        headers = [(b"content-type", b"audio/wav")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": WAV, "more_body": True})
        while data := await answer.content.readany():
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), http="httptools", loop="uvloop", lifespan="off",
                log_level="warning", access_log=False)  # fmt: skip
