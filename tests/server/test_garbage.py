"""What a request leaves behind: no circle of objects, which only a collection would free."""

from __future__ import annotations

import asyncio
import gc

from starlette.types import Message

from gateway.server.disconnect import Disconnect

REQUESTS = 50


def test_a_watched_request_leaves_no_garbage() -> None:
    """A collection stops every stream; nothing a request did may make one necessary."""

    async def answer() -> None:
        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError("nothing comes")

        async with Disconnect(receive) as watch:
            await asyncio.sleep(0)
            watch.stop()

    async def run() -> int:
        await asyncio.create_task(answer())
        gc.collect()
        gc.disable()
        try:
            for _ in range(REQUESTS):
                await asyncio.create_task(answer())
            await asyncio.sleep(0)
            return gc.collect()
        finally:
            gc.enable()

    assert asyncio.run(run()) < REQUESTS
