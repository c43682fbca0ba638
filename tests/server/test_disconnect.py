"""The watch for a client that leaves: it ends a block with one error, and hides no other one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest

from gateway.errors import ClientGone
from gateway.server.disconnect import Disconnect

Block = Callable[[asyncio.Event], Awaitable[None]]


def ends(block: Block) -> list[str]:
    """What a block ends with, and what still comes behind its end.

    Args:
        block: Sets the event when its client shall leave.

    Returns:
        Names of errors; `left over` for a cancellation that the task still counts.
    """
    seen: list[str] = []

    async def watched() -> None:
        left = asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:
            await left.wait()
            return {"type": "http.disconnect"}

        async with Disconnect(receive):
            await block(left)

    async def noted() -> None:
        try:
            await watched()
        except (ClientGone, asyncio.CancelledError) as error:
            seen.append(type(error).__name__)
        task = asyncio.current_task()
        assert task is not None
        if seen == ["ClientGone"] and task.cancelling():
            seen.append("left over")
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            seen.append("CancelledError")

    async def run() -> None:
        await asyncio.wait([asyncio.ensure_future(noted())], timeout=60)

    asyncio.run(run())
    return seen


def test_a_block_whose_client_leaves_ends_and_nothing_of_the_cancellation_stays() -> None:
    """What the task does next, such as closing the connection, is not cancelled."""

    async def block(left: asyncio.Event) -> None:
        left.set()
        await asyncio.Event().wait()

    assert ends(block) == ["ClientGone"]


def test_a_block_that_fails_when_its_client_leaves_ends_with_the_leaving() -> None:
    """Nobody hears of the other failure."""

    async def block(left: asyncio.Event) -> None:
        left.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            raise OSError("broken") from None

    assert ends(block) == ["ClientGone"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_server_that_ends_while_a_client_leaves_cancels_all_the_same(*, fails: bool) -> None:
    """The client's leaving takes in its own cancellation alone."""

    async def block(left: asyncio.Event) -> None:
        task = asyncio.current_task()
        assert task is not None
        left.set()
        if not fails:
            asyncio.get_running_loop().call_soon(task.cancel)  # behind the watch's own
            await asyncio.Event().wait()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            task.cancel()
            raise OSError("broken") from None

    assert ends(block) == ["CancelledError"]


def test_a_cancellation_of_another_kind_is_no_leaving() -> None:
    """The request is not counted as one whose client has left."""

    async def block(_: asyncio.Event) -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.Event().wait()

    assert ends(block) == ["CancelledError"]


def test_a_failure_of_its_own_stays_and_the_watch_is_over() -> None:
    """A watch that went on would cancel what the task does next."""

    async def run() -> int:
        left, asked = asyncio.Event(), asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:
            asked.set()
            await left.wait()
            return {"type": "http.disconnect"}

        async def block() -> None:
            async with Disconnect(receive):
                await asked.wait()
                raise OSError("broken")

        with pytest.raises(OSError, match="broken"):
            await block()
        left.set()
        for _ in range(3):
            await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert asyncio.run(run()) == 0


def test_a_block_that_ends_well_has_ended_well() -> None:
    """Also where its client leaves in the same moment, and the block took that in."""

    async def run() -> str:
        left = asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:
            await left.wait()
            return {"type": "http.disconnect"}

        async with Disconnect(receive):
            left.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "complete"
        return "not reached"

    assert asyncio.run(run()) == "complete"
