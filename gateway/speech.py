"""The straight line: request, text, slot, upstream, audio, bytes. Orchestration only."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from contextlib import ExitStack

from gateway.admission import Admission
from gateway.answer import Answer
from gateway.audio.pcm import silence
from gateway.audio.transcoder import BitRates, Transcoder
from gateway.errors import QueueFull, UpstreamError, UpstreamTimeout
from gateway.metrics import Metrics
from gateway.request import SpeechRequest
from gateway.settings import Settings
from gateway.take import Deadline, Plan, Recording, Source, Take, collect, plan_take
from gateway.text.estimate import looks_silent
from gateway.text.sanitise import check_text, sanitise_text
from gateway.upstream.attempts import Attempts
from gateway.upstream.pool import Pool

SILENT_TEXT_SECONDS = 0.3
BUFFERED_ATTEMPTS = 3


class SpeechService:
    """Makes answers.

    Args:
        settings: Bounds and defaults.
        admission: The slots.
        pool: The upstreams, for the lists of voices and models.
        attempts: Starts generations.
        metrics: Where all is counted.
        executor: Bounded threads for codecs; at most one job a request is in them.
    """

    def __init__(
        self,
        settings: Settings,
        admission: Admission,
        pool: Pool,
        attempts: Attempts,
        metrics: Metrics,
        executor: Executor,
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.metrics = metrics
        self._admission = admission
        self._attempts = attempts
        self._executor = executor
        self._bit_rates = BitRates(settings.mp3_kbps, settings.opus_kbps, settings.aac_kbps)

    async def open(self, request: SpeechRequest, arrived: float) -> Answer:
        """Bring a request to its first audio.

        Args:
            request: What to say, as a surface understood it.
            arrived: When it came, `time.monotonic()`.

        Raises:
            GatewayError: Nothing was sent yet: an honest status.
        """
        check_text(request.text, self.settings.max_input_characters)
        text = sanitise_text(request.text)
        self.metrics.input_characters.inc(len(request.text))
        with ExitStack() as scope:
            if looks_silent(text):
                source: Source = Recording(silence(SILENT_TEXT_SECONDS))
                waited = 0.0
            else:
                self.pool.require_ready()
                waited = await self._admit(scope)
                source = await self._start(request, text)
                scope.callback(source.close)
                self.metrics.time_to_first_audio.observe(time.monotonic() - arrived)
            transcoder = Transcoder(
                request.response_format,
                speed=request.speed,
                sample_rate_hz=request.sample_rate_hz,
                buffered=request.buffered,
                bit_rates=self._bit_rates,
            )
            return Answer(
                request,
                source,
                transcoder,
                scope.pop_all(),
                self._executor,
                self.metrics,
                arrived=arrived,
                queue_wait_seconds=waited,
            )

    async def _admit(self, scope: ExitStack) -> float:
        """Wait for a slot that `scope` gives back."""
        metrics = self.metrics
        with metrics.queued.track_inprogress():
            try:
                waited = await self._admission.acquire()
            except QueueFull:
                metrics.rejections.labels("queue").inc()
                raise
        metrics.queue_wait.observe(waited)
        metrics.in_flight.inc()
        scope.callback(metrics.in_flight.dec)
        scope.callback(self._admission.release)
        return waited

    async def _start(self, request: SpeechRequest, text: str) -> Source:
        """The source of a text, at its first audio."""
        deadline = asyncio.get_running_loop().time() + self.settings.request_timeout_seconds
        plan = plan_take(self.settings, request, text)
        try:
            async with asyncio.timeout_at(deadline):
                if request.buffered:
                    return await self._record(plan)
                return Deadline(await self._take(plan), deadline)
        except TimeoutError:
            raise UpstreamTimeout("The whole request took too long.") from None

    async def _take(self, plan: Plan) -> Take:
        running = await self._attempts.start(plan.generation, plan.timeouts, plan.shortest_samples)
        return Take(running, plan, self.metrics)

    async def _record(self, plan: Plan) -> Recording:
        """A whole generation; one that breaks off is made again, as nothing was sent yet."""
        for attempt in range(1, BUFFERED_ATTEMPTS + 1):
            take = await self._take(plan)
            try:
                return await collect(take)
            except UpstreamError as error:
                if not error.retryable or attempt == BUFFERED_ATTEMPTS:
                    raise
                self.metrics.upstream_retries.labels(error.code).inc()
        raise AssertionError("unreachable")
