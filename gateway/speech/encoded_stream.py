"""Audio in the response format, as it comes: the end of the straight line.

An `EncodedStream` owns everything its request holds (slot, source, codec) and gives it back in
`close`, which is synchronous so that no cancellation can interrupt it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import ExitStack

from gateway.audio.pcm import BYTES_PER_SAMPLE
from gateway.audio.playback import Player
from gateway.audio.transcoder import Transcoder
from gateway.speech.activity import RequestProgress
from gateway.speech.generation import Source
from gateway.speech.request import SpeechRequest
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.request_record import current_record
from gateway.upstream.dialect import SAMPLES_PER_TOKEN

FIRST_SLICE_BYTES = 9_600  # 0.2 s: every codec has bytes after that (AAC needs 0.1 s)
COUNT_EVERY_SECONDS = 2.0  # finer than any scrape
SLICE_BYTES = 48_000  # 1 s: a few milliseconds of a thread for the slowest codec


class EncodedStream:
    """One answer; closed by its sender.

    Args:
        request: What is answered.
        source: Its PCM.
        transcoder: Its codec.
        scope: Gives back what the request holds, its source included.
        executor: Threads for the codec.
        metrics: Where it is counted.
        arrived: When the request came, `time.monotonic()`.
        queue_wait_seconds: What it waited for its slot.
        entry: Its line in the process's activity.
    """

    def __init__(
        self,
        request: SpeechRequest,
        source: Source,
        transcoder: Transcoder,
        scope: ExitStack,
        executor: Executor,
        metrics: Metrics,
        *,
        arrived: float,
        queue_wait_seconds: float,
        entry: RequestProgress,
    ) -> None:
        self.content_type = transcoder.content_type
        self.queue_wait_seconds = queue_wait_seconds
        self.sent_bytes = 0
        self._request = request
        self._entry = entry
        self._source = source
        self._transcoder = transcoder
        self._scope = scope
        self._executor = executor
        self._metrics = metrics
        self._counted_audio = metrics.audio_seconds.labels(
            request.surface, request.response_format, request.voice_label
        )
        self._uncounted_bytes = 0
        self._delivered_seconds = self._counted_seconds = 0.0
        self._counted_tokens = 0
        self._count_again = arrived + COUNT_EVERY_SECONDS
        self._arrived = arrived
        self._ended = False
        self._pending = b""  # PCM that is still to be encoded
        self._player = Player()
        self._job: Future[bytes] | None = None
        self._encode_seconds = 0.0

    @property
    def audio_seconds(self) -> float:
        """Audio that has left the codec."""
        return self._transcoder.output_seconds

    @property
    def audio_tokens(self) -> int:
        """Audio tokens that the engine made for what was received."""
        return -(-self._source.received_bytes // (SAMPLES_PER_TOKEN * BYTES_PER_SAMPLE))

    async def read(self) -> bytes:
        """The next encoded bytes; empty only at the end.

        Raises:
            GatewayError: It broke off; what was read so far is incomplete.
        """
        asked = time.monotonic()
        data = b""
        while not data and not self._ended:
            pcm = self._slice(self._pending or await self._source.read())
            if pcm:
                data = await self._run(self._transcoder.feed, pcm)
            else:
                data = await self._run(self._transcoder.finish)
                self._ended = True
        if data:
            now = time.monotonic()
            if not self.sent_bytes:
                self._metrics.time_to_first_byte.observe(now - self._arrived)
                current_record().first_byte_seconds = now - self._arrived
            self.sent_bytes += len(data)
            self._player.deliver(asked, now, self.audio_seconds)
        return data

    def _slice(self, pcm: bytes) -> bytes:
        """The front of some PCM; the rest is pending.

        An engine may send a whole sentence at once: the client need not wait until all of it is
        encoded, nor another answer for the thread.
        """
        if not self._transcoder.needs_thread:
            self._pending = b""
            return pcm
        size = SLICE_BYTES if self.sent_bytes else FIRST_SLICE_BYTES
        self._pending = pcm[size:]
        return pcm[:size]

    async def read_all(self) -> bytes:
        """The whole answer."""
        parts = []
        while data := await self.read():
            parts.append(data)
        return b"".join(parts)

    async def _run(self, step: Callable[..., bytes], *arguments: bytes) -> bytes:
        """Run one step of the codec: in a thread, unless a thread costs more than the step."""
        if not self._transcoder.needs_thread:
            return step(*arguments)

        def timed() -> bytes:
            started = time.thread_time()
            try:
                return step(*arguments)
            finally:
                self._encode_seconds += time.thread_time() - started

        self._job = self._executor.submit(timed)
        return await asyncio.wrap_future(self._job)

    def close(self) -> None:
        """Give everything back; idempotent. A codec at work in a thread is freed when done."""
        self._scope.close()
        if self._job is not None and not self._job.done():
            self._job.add_done_callback(lambda _: self._transcoder.close())
        else:
            self._transcoder.close()

    def count_delivered(self, body_bytes: int) -> None:
        """Count what has been sent, so that a long answer shows in the metrics as it goes.

        Args:
            body_bytes: Bytes of the answer's body that were sent, framing included.
        """
        self._uncounted_bytes += body_bytes
        self._delivered_seconds = self.audio_seconds
        now = time.monotonic()
        if now >= self._count_again:
            self._count_again = now + COUNT_EVERY_SECONDS
            self._count()

    def _count(self) -> None:
        """Bring the counters up to date; a few microseconds that not every chunk need cost."""
        metrics = self._metrics
        metrics.response_bytes.inc(self._uncounted_bytes)
        self._uncounted_bytes = 0
        seconds, self._counted_seconds = self._counted_seconds, self._delivered_seconds
        self._counted_audio.inc(self._counted_seconds - seconds)
        tokens, self._counted_tokens = self._counted_tokens, self.audio_tokens
        metrics.audio_tokens.inc(self._counted_tokens - tokens)

    def observe(self, outcome: str) -> None:
        """Count the answer as it ended."""
        self._count()
        current_record().add_audio(self.audio_seconds)
        self._entry.judge(outcome)
        metrics, request = self._metrics, self._request
        elapsed = time.monotonic() - self._arrived
        metrics.request_duration.observe(elapsed)
        if self._encode_seconds:
            metrics.encode_seconds.labels(request.response_format).inc(self._encode_seconds)
        if outcome == "ok" and self.audio_seconds:
            metrics.audio_duration.observe(self.audio_seconds)
            metrics.real_time_factor.observe(elapsed / self.audio_seconds)
            if not request.buffered:
                metrics.underrun.observe(self._player.underrun_seconds)
