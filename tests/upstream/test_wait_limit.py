"""A bound of waits: it ends one that is too long, and no other thing."""

from __future__ import annotations

import asyncio
import weakref

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


def test_a_wait_that_is_too_long_ends_with_the_error_of_its_bound() -> None:
    """The bound of a request ends in another way than that of its engine, inside of it."""

    async def run() -> None:
        outer, inner = WaitLimit(now() + 0.01, lambda: ValueError("late")), WaitLimit(now() + 20)
        with pytest.raises(ValueError, match="late"), outer, inner:
            await asyncio.Event().wait()

    asyncio.run(run())


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


def test_a_cancellation_behind_a_wait_that_was_too_long_stays_one() -> None:
    """What a limit remembers of one wait says nothing of the next."""

    async def wait() -> None:
        limit = WaitLimit(now() + 0.01)
        with pytest.raises(TimeoutError), limit:
            await asyncio.Event().wait()
        limit.at = now() + 60
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        with limit:
            await asyncio.Event().wait()

    async def run() -> asyncio.Task[None]:
        task = asyncio.ensure_future(wait())
        await asyncio.wait([task])
        return task

    assert asyncio.run(run()).cancelled()


def test_an_error_within_the_wait_is_its_own() -> None:
    """Also where the wait was too long, and what waited makes another error of that."""

    async def cut() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError("cut") from None

    async def run() -> None:
        limit = WaitLimit(now() + 60)
        with pytest.raises(OSError, match="broken"), limit:
            raise OSError("broken")
        limit.at = now() + 0.01
        with pytest.raises(OSError, match="cut"), limit:
            await cut()
        limit.close()
        limit.close()

    asyncio.run(run())


def test_a_closed_limit_leaves_no_timer_behind() -> None:
    """A timer of minutes would keep it, and with it each of the answers of these minutes."""

    async def run() -> None:
        limit = WaitLimit(now() + 60)
        with limit:
            await asyncio.sleep(0)
        limit.close()
        kept = weakref.ref(limit)
        del limit
        assert kept() is None

    asyncio.run(run())
