"""The store of jobs behind the one thread that uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from gateway.speech.jobs.store import Store

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class StoreThread:
    """Runs the methods of a store one at a time, outside of the event loop.

    Attributes:
        blocking: An open store.
        thread: An executor of one thread.
    """

    blocking: Store
    thread: ThreadPoolExecutor

    async def __call__(
        self,
        work: Callable[Concatenate[Store, Parameters], Result],
        *arguments: Parameters.args,
        **named: Parameters.kwargs,
    ) -> Result:
        """Run a method of `Store` with these arguments."""
        call = partial(work, self.blocking, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self.thread, call)

    async def aclose(self) -> None:
        """Close the store and end the thread."""
        await self(Store.close)
        self.thread.shutdown(wait=False)


async def open_store(folder: Path, most_bytes: int) -> StoreThread:
    """Open a store in a thread of its own; the arguments are those of `Store`.

    Raises:
        OSError, sqlite3.Error: The folder cannot be used.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="jobs")
    opened = partial(Store, folder, most_bytes)
    return StoreThread(await asyncio.get_running_loop().run_in_executor(thread, opened), thread)
