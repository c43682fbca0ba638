"""A bound of waits: it ends one that is too long, and no other thing."""

from __future__ import annotations

import asyncio

import pytest

from gateway.upstream.wait_limit import WaitLimit


def now() -> float:
    """Loop time."""
    return asyncio.get_running_loop().time()


def test_a_wait_that_is_too_long_ends() -> None:
    """With TimeoutError; the task itself is not cancelled."""

    async def run() -> int:
        limit = WaitLimit(now() + 0.01)
        with pytest.raises(TimeoutError), limit:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert asyncio.run(run()) == 0


def test_a_bound_that_is_moved_holds_at_its_new_place() -> None:
    """The old time passes within a wait, and nothing happens; the new one ends it."""

    async def run() -> float:
        limit = WaitLimit(now() + 0.01)
        with limit:
            await asyncio.sleep(0)
        limit.at = moved = now() + 0.1
        with pytest.raises(TimeoutError), limit:
            await asyncio.Event().wait()
        return now() - moved

    assert asyncio.run(run()) >= 0


def test_a_bound_that_is_moved_to_an_earlier_time_holds() -> None:
    """Behind a first audio that could take long, a hang is noticed as soon as any other."""

    async def run() -> float:
        limit = WaitLimit(now() + 20)
        with limit:
            await asyncio.sleep(0)
        limit.at = now() + 0.01
        with pytest.raises(TimeoutError), limit:
            await asyncio.Event().wait()
        return now() - limit.at

    assert asyncio.run(run()) < 10


def test_time_between_waits_does_not_count() -> None:
    """A reader that is held up by its client is not late; its next wait is bounded again."""

    async def run() -> None:
        limit = WaitLimit(now() + 0.01)
        with limit:
            await asyncio.sleep(0)
        await asyncio.sleep(0.03)
        limit.at = now() + 0.02
        with limit:
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError), limit:
            await asyncio.Event().wait()

    asyncio.run(run())


def test_a_bound_in_the_past_ends_the_next_wait() -> None:
    """Bytes without audio may come for ever."""

    async def run() -> None:
        limit = WaitLimit(now() - 1)
        with pytest.raises(TimeoutError), limit:
            await asyncio.Event().wait()

    asyncio.run(run())


def test_a_cancellation_from_outside_stays_one() -> None:
    """A client that leaves is no timeout, even where both come together."""

    async def run(*, late: bool) -> asyncio.Task[None]:
        async def wait() -> None:
            with WaitLimit(now() + (0.0 if late else 60.0)):
                await asyncio.Event().wait()

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task

    assert asyncio.run(run(late=False)).cancelled()
    assert asyncio.run(run(late=True)).cancelled()


def test_an_error_within_the_wait_is_its_own() -> None:
    """And a closed limit leaves no timer behind."""

    async def run() -> None:
        limit = WaitLimit(now() + 60)
        with pytest.raises(OSError, match="broken"), limit:
            raise OSError("broken")
        limit.close()
        limit.close()

    asyncio.run(run())
