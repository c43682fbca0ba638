"""One generation while it runs: its audio is watched, collected, and bounded in time."""

from __future__ import annotations

import logging
from typing import Protocol

from gateway.audio.pcm import BYTES_PER_SAMPLE
from gateway.audio.runaway import RunawayGuard
from gateway.errors import UpstreamError
from gateway.speech.prepare import GenerationPlan
from gateway.telemetry.metrics import Metrics
from gateway.upstream.dialect import SAMPLES_PER_TOKEN
from gateway.upstream.retry import Running, TooShort

logger = logging.getLogger("gateway.speech")


class Source(Protocol):
    """Where an answer's PCM comes from."""

    @property
    def received_bytes(self) -> int:
        """PCM received from upstreams so far."""

    async def read(self) -> bytes:
        """The next PCM, whole samples; empty only at the end."""

    def close(self) -> None:
        """Stop and give back what it holds; idempotent, synchronous."""


class CompleteAudio:
    """A source whose PCM is there already.

    Args:
        pcm: What it yields.
        received_bytes: How much of it an upstream made.
    """

    def __init__(self, pcm: bytes = b"", received_bytes: int = 0) -> None:
        self.received_bytes = received_bytes
        self._pcm = pcm

    async def read(self) -> bytes:
        """All of it, then the end."""
        pcm, self._pcm = self._pcm, b""
        return pcm

    def close(self) -> None:
        """Hold nothing."""


def plan_again(plan: GenerationPlan, error: UpstreamError) -> GenerationPlan:
    """The plan of the next try: at the engine's own temperature where a lower one ran away."""
    if isinstance(error, RanAwayCold) and plan.warmer is not None:
        logger.info("a generation below temperature 1 ran away and is made once more at 1.0")
        return plan.warmer
    return plan


class RanAwayCold(UpstreamError):
    """A generation below the engine's own temperature did not find its end."""

    code = "upstream_ran_away"


class WatchedGeneration:
    """A running generation under watch: too long, silent for long, or cut short.

    Args:
        running: It has produced its first audio.
        plan: What its audio may be.
        metrics: Where runaways are counted.
    """

    def __init__(self, running: Running, plan: GenerationPlan, metrics: Metrics) -> None:
        self.received_bytes = 0
        self._running = running
        self._plan = plan
        self._metrics = metrics
        self._guard = RunawayGuard(plan.longest_samples, plan.quiet_limit_seconds)
        self._ended = False

    async def read(self) -> bytes:
        """The next PCM, whole samples; empty only at the end.

        Raises:
            TooShort: It ended long before its text can have been said.
            RanAwayCold: It ran away, and its plan knows what to do instead.
            GatewayError: It broke off.
        """
        while not self._ended:
            pcm = await self._running.read()
            self.received_bytes += len(pcm)
            kept = self._guard.feed(pcm) if pcm else b""
            if not pcm or self._guard.ended:
                kept += self._finish(complete=not pcm)
            if kept:
                return kept
        return b""

    def _finish(self, *, complete: bool) -> bytes:
        self._ended = True
        self._running.close()  # a runaway must leave the GPU now
        samples = self.received_bytes // BYTES_PER_SAMPLE
        if complete and samples < self._plan.shortest_samples:
            raise TooShort("The upstream's audio is far too short for its text.")
        reason = self._guard.ended
        if reason is None and samples + SAMPLES_PER_TOKEN >= self._plan.longest_samples:
            reason = "too_long"  # the engine itself stopped at max_tokens, one frame sooner on chat
        if reason and not (reason == "too_long" and self._plan.bounded_by_client):
            self._metrics.runaway.inc(reason)
        if reason and self._plan.warmer is not None:
            raise RanAwayCold("The upstream did not find the end of the text.")
        return self._guard.finish()

    def close(self) -> None:
        """Stop it on the upstream; idempotent."""
        self._running.close()


async def collect(generation: WatchedGeneration) -> CompleteAudio:
    """All PCM of a generation, which its guard bounds; closes it."""
    pcm = bytearray()
    try:
        while data := await generation.read():
            pcm += data
    finally:
        generation.close()
    return CompleteAudio(bytes(pcm), generation.received_bytes)
