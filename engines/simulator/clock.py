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
        last_token: With this token it gives its place away, however slowly its client reads.
        delay_seconds: Left of the time before its first token (prefill).
        tokens: Generated so far.
        target: The stream's owner waits for this many.
        reached: Resolved when they are there.
    """

    last_token: float = float("inf")
    delay_seconds: float = 0.0
    tokens: float = 0.0
    target: float = 0.0
    reached: asyncio.Future[None] | None = None

    def advance(self, seconds: float, tokens_per_second: float) -> bool:
        """Generate for some time.

        Returns:
            Whether the last token is there.
        """
        if self.delay_seconds > 0:
            used = min(seconds, self.delay_seconds)
            self.delay_seconds -= used
            seconds -= used
        self.tokens = min(self.last_token, self.tokens + tokens_per_second * seconds)
        if self.reached is not None and self.tokens >= self.target:
            if not self.reached.done():
                self.reached.set_result(None)
            self.reached = None
        return self.tokens >= self.last_token


class GpuClock:
    """Shares the GPU among streams.

    Args:
        tokens_per_second: Most that one stream gets.
        total_tokens_per_second: Shared equally by all that run.
        max_running: Streams that run at once; later ones wait, first come first served.

    Attributes:
        frozen: Nobody gets a token any more.
        peak_running: Most streams that ran at once.
        peak_waiting: Most streams that waited at once.
    """

    def __init__(
        self, tokens_per_second: float, total_tokens_per_second: float, max_running: int
    ) -> None:
        self.tokens_per_second = tokens_per_second
        self.total_tokens_per_second = total_tokens_per_second
        self.max_running = max_running
        self.frozen = False
        self.peak_running = 0
        self.peak_waiting = 0
        self._running: dict[Stream, None] = {}  # in order of arrival, quick to leave
        self._waiting: deque[tuple[Stream, asyncio.Future[None]]] = deque()
        self._ticker: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        """Tell what it is doing."""
        return f"GpuClock(running={self.running}, waiting={self.waiting}, frozen={self.frozen})"

    @property
    def running(self) -> int:
        """Streams that have a place."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Streams in line."""
        return len(self._waiting)

    async def enter(self, *, delay_seconds: float, last_token: float) -> Stream:
        """Take a place, waiting in line if need be.

        Args:
            delay_seconds: Time on the GPU before the first token (prefill).
            last_token: How many tokens it will generate.
        """
        stream = Stream(last_token=last_token, delay_seconds=delay_seconds)
        if self._waiting or len(self._running) >= self.max_running:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            entry = (stream, turn)
            self._waiting.append(entry)
            self.peak_waiting = max(self.peak_waiting, len(self._waiting))
            try:
                await turn
            except BaseException:
                if entry in self._waiting:
                    self._waiting.remove(entry)
                else:
                    self.leave(stream)
                raise
        else:
            self._start(stream)
        return stream

    def leave(self, stream: Stream) -> None:
        """Give the place to the next in line; idempotent."""
        self._running.pop(stream, None)
        while self._waiting and len(self._running) < self.max_running:
            following, turn = self._waiting.popleft()
            if not turn.done():
                self._start(following)
                turn.set_result(None)

    async def wait_for(self, stream: Stream, tokens: float) -> None:
        """Wait until the stream has generated this many tokens."""
        if stream.tokens >= tokens and not self.frozen:
            return
        stream.target = tokens
        stream.reached = asyncio.get_running_loop().create_future()
        await stream.reached

    def _start(self, stream: Stream) -> None:
        self._running[stream] = None
        self.peak_running = max(self.peak_running, len(self._running))
        if self._ticker is None:
            self._ticker = asyncio.get_running_loop().create_task(self._tick())

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while self._running:
            await asyncio.sleep(TICK_SECONDS)
            now = loop.time()
            self.advance(now - last)
            last = now
        self._ticker = None

    def advance(self, elapsed_seconds: float) -> None:
        """Move every stream by its share of the elapsed time."""
        if self.frozen or not self._running:
            return
        share = min(self.tokens_per_second, self.total_tokens_per_second / len(self._running))
        for stream in [s for s in self._running if s.advance(elapsed_seconds, share)]:
            self.leave(stream)
