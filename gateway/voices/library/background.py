"""The library within a running gateway: its changes one at a time, in a thread of their own.

A change decodes a stranger's file and may wait for another process; streams that need the codecs'
threads must not wait with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from gateway.errors import LibraryUnusable, QueueFull
from gateway.voices.library.library import VoiceLibrary

logger = logging.getLogger("gateway.voices")

MOST_CHANGES = 16  # that run or wait; each holds an upload of at most 10 MiB
RETRY_AFTER_SECONDS = 2.0
PURGE_INTERVAL_SECONDS = 600.0

Result = TypeVar("Result")


@dataclass(slots=True)
class VoiceKeeper:
    """Changes a library for the requests of one process."""

    library: VoiceLibrary
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changes: int = 0

    async def change(self, work: Callable[[], Result]) -> Result:
        """Run one of the library's methods that block.

        Raises:
            QueueFull: Too many changes wait.
            GatewayError: What the method raises.
        """
        if self._changes >= MOST_CHANGES:
            raise QueueFull(
                "Too many voices are being changed.", retry_after_seconds=RETRY_AFTER_SECONDS
            )
        self._changes += 1
        try:
            async with self._one_at_a_time:
                return await asyncio.to_thread(work)
        finally:
            self._changes -= 1

    async def run(self, interval_seconds: float = PURGE_INTERVAL_SECONDS) -> None:
        """Delete what is past its grace, now and then, until cancelled."""
        while True:
            await asyncio.sleep(interval_seconds)
            if self.library.snapshot.removed:
                try:
                    await asyncio.to_thread(self.library.purge)
                except LibraryUnusable as error:
                    logger.warning("voice library: %s", error.message)
