"""A GPU's time, simulated: streams share tokens a second, the rest wait in line.

One ticker moves all streams; a thousand of them cost one loop over a list a tick, not a timer a
token.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

TICK_SECONDS = 0.01


@dataclass(slots=True, eq=False)
class Stream:
    """One generation's place on the GPU.

    Attributes:
        tokens: Generated so far.
        target: The stream's owner waits for this many.
        reached: Resolved when they are there.
        delay_seconds: Left of the time before its first token.
    """

    tokens: float = 0.0
    target: float = 0.0
    reached: asyncio.Future[None] | None = None
    delay_seconds: float = 0.0


class GpuClock:
    """Shares the GPU among streams.

    Args:
        tokens_per_second: Most that one stream gets.
        total_tokens_per_second: Shared equally by all that run.
        max_running: Streams that run at once; later ones wait, first come first served.
    """

    def __init__(
        self, tokens_per_second: float, total_tokens_per_second: float, max_running: int
    ) -> None:
        self.tokens_per_second = tokens_per_second
        self.total_tokens_per_second = total_tokens_per_second
        self.max_running = max_running
        self._running: list[Stream] = []
        self._waiting: deque[tuple[Stream, asyncio.Future[None]]] = deque()
        self._ticker: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        """Streams that have a place."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Streams in line."""
        return len(self._waiting)

    async def enter(self, delay_seconds: float) -> Stream:
        """Take a place, waiting in line if need be.

        Args:
            delay_seconds: Time on the GPU before the first token (prefill).
        """
        stream = Stream(delay_seconds=delay_seconds)
        if self._waiting or len(self._running) >= self.max_running:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            entry = (stream, turn)
            self._waiting.append(entry)
            try:
                await turn
            except BaseException:
                if entry in self._waiting:
                    self._waiting.remove(entry)
                else:
                    self.leave(stream)
                raise
        else:
            self._running.append(stream)
        if self._ticker is None:
            self._ticker = asyncio.create_task(self._tick())
        return stream

    def leave(self, stream: Stream) -> None:
        """Give the place to the next in line."""
        if stream in self._running:
            self._running.remove(stream)
        while self._waiting and len(self._running) < self.max_running:
            following, turn = self._waiting.popleft()
            if not turn.done():
                self._running.append(following)
                turn.set_result(None)

    async def wait_for(self, stream: Stream, tokens: float) -> None:
        """Wait until the stream has generated this many tokens."""
        if stream.tokens >= tokens:
            return
        stream.target = tokens
        stream.reached = asyncio.get_running_loop().create_future()
        await stream.reached

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while self._running:
            await asyncio.sleep(TICK_SECONDS)
            now = loop.time()
            self._advance(now - last)
            last = now
        self._ticker = None

    def _advance(self, elapsed_seconds: float) -> None:
        """Move every stream by its share of the elapsed time."""
        if not self._running:
            return
        share = min(self.tokens_per_second, self.total_tokens_per_second / len(self._running))
        for stream in self._running:
            seconds = elapsed_seconds
            if stream.delay_seconds > 0:
                used = min(seconds, stream.delay_seconds)
                stream.delay_seconds -= used
                seconds -= used
            stream.tokens += share * seconds
            reached = stream.reached
            if reached is not None and stream.tokens >= stream.target:
                stream.reached = None
                if not reached.done():
                    reached.set_result(None)
