"""Audio in the response format, as it comes: the end of the straight line.

An `EncodedStream` owns everything its request holds (slot, source, codec) and gives it back in
`close`, which is synchronous so that no cancellation can interrupt it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

from gateway.access.rate_limits import Settle
from gateway.audio.pcm import BYTES_PER_SAMPLE, ENGINE_BYTES_PER_SECOND
from gateway.audio.playback import Player
from gateway.audio.transcoder import Transcoder
from gateway.speech.activity import RequestProgress
from gateway.speech.generation import CompleteAudio, Source
from gateway.speech.request import SpeechRequest
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.request_record import current_record
from gateway.upstream.dialect import SAMPLES_PER_TOKEN
from gateway.upstream.wait_limit import WaitLimit

FIRST_SLICE_BYTES = 9_600  # 0.2 s: every codec has bytes after that (AAC needs 0.1 s)
COUNT_EVERY_SECONDS = 2.0  # finer than any scrape
SLICE_BYTES = 48_000  # 1 s: a few milliseconds of a thread for the slowest codec

NO_AUDIO = CompleteAudio()  # of every answer before it has its own


@dataclass(slots=True, eq=False, repr=False)
class EncodedStream:
    """One answer; closed by its sender.

    Attributes:
        request: What is answered.
        settle: Charges its caller the seconds that were made.
        entry: Its line in the process's activity.
        transcoder: Its codec.
        limit: Of its time.
        executor: Threads for the codec.
        metrics: Where it is counted.
        arrived: When the request came, `time.monotonic()`.
        source: Its PCM, once there is some.
        leave: Gives its slot back, once it has one.
        queue_wait_seconds: What it waited for that.
        sent_bytes: Encoded bytes that were read so far.
    """

    request: SpeechRequest
    settle: Settle
    entry: RequestProgress
    transcoder: Transcoder
    limit: WaitLimit
    executor: Executor
    metrics: Metrics
    arrived: float
    source: Source = NO_AUDIO
    leave: Callable[[], None] | None = None
    queue_wait_seconds: float = 0.0
    sent_bytes: int = 0
    _uncounted_bytes: int = 0
    _delivered_seconds: float = 0.0
    _counted_seconds: float = 0.0
    _counted_tokens: int = 0
    _counted_at: float = 0.0
    _ended: bool = False
    _closed: bool = False
    _pending: bytes = b""  # PCM that is still to be encoded
    _player: Player = field(default_factory=Player)
    _job: Future[bytes] | None = None
    _encode_seconds: float = 0.0

    @property
    def audio_seconds(self) -> float:
        """Audio that has left the codec."""
        return self.transcoder.output_seconds

    @property
    def audio_tokens(self) -> int:
        """Audio tokens that the engine made for what was received."""
        return -(-self.source.received_bytes // (SAMPLES_PER_TOKEN * BYTES_PER_SAMPLE))

    async def read(self) -> bytes:
        """The next encoded bytes; empty only at the end.

        Raises:
            GatewayError: It broke off; what was read so far is incomplete.
        """
        asked = time.monotonic()
        data = b""
        while not data and not self._ended:
            pcm = self._pending
            if not pcm:
                with self.limit:
                    pcm = await self.source.read()
            if self.transcoder.needs_thread:
                data = await self._encoded_in_thread(pcm)
            else:  # a thread costs more than the step
                data = self._encoded(pcm)
            self._ended = not pcm
        if data:
            now = time.monotonic()
            if not self.sent_bytes:
                self.metrics.time_to_first_byte.observe(now - self.arrived)
                current_record().first_byte_seconds = now - self.arrived
            self.sent_bytes += len(data)
            self._player.deliver(asked, now, self.transcoder.output_seconds)
        return data

    def _encoded(self, pcm: bytes) -> bytes:
        """What the codec makes of some PCM, or of its end."""
        return self.transcoder.feed(pcm) if pcm else self.transcoder.finish()

    async def _encoded_in_thread(self, pcm: bytes) -> bytes:
        """What the codec makes of the front of some PCM; the rest is pending.

        An engine may send a whole sentence at once: the client need not wait until all of it is
        encoded, nor another answer for the thread.
        """
        size = SLICE_BYTES if self.sent_bytes else FIRST_SLICE_BYTES
        self._pending = pcm[size:]

        def timed() -> bytes:
            started = time.thread_time()
            try:
                return self._encoded(pcm[:size])
            finally:
                self._encode_seconds += time.thread_time() - started

        self._job = self.executor.submit(timed)
        return await asyncio.wrap_future(self._job)

    async def read_all(self) -> bytes:
        """The whole answer."""
        parts = []
        while data := await self.read():
            parts.append(data)
        return b"".join(parts)

    def close(self, error: BaseException | None = None) -> None:
        """Give everything back; idempotent. A codec at work in a thread is freed when done.

        Args:
            error: Why there is no answer.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self.limit.close()
            self.source.close()
        finally:
            if self.leave is not None:
                self.leave()
            self.entry.close(error)
            self.settle(self.source.received_bytes / ENGINE_BYTES_PER_SECOND)
        if self._job is not None and not self._job.done():
            self._job.add_done_callback(lambda _: self.transcoder.close())
        else:
            self.transcoder.close()

    def count_delivered(self, body_bytes: int) -> None:
        """Count what has been sent, so that a long answer shows in the metrics as it goes.

        Args:
            body_bytes: Bytes of the answer's body that were sent, framing included.
        """
        self._uncounted_bytes += body_bytes
        self._delivered_seconds = self.transcoder.output_seconds
        now = time.monotonic()
        if now - (self._counted_at or self.arrived) >= COUNT_EVERY_SECONDS:
            self._counted_at = now
            self._count()

    def _count(self) -> None:
        """Bring the counters up to date; a few microseconds that not every chunk need cost."""
        metrics = self.metrics
        metrics.response_bytes.inc(by=self._uncounted_bytes)
        self._uncounted_bytes = 0
        seconds, self._counted_seconds = self._counted_seconds, self._delivered_seconds
        labels = self.request.surface, self.request.response_format, self.request.voice_label
        metrics.audio_seconds.inc(*labels, by=self._counted_seconds - seconds)
        tokens, self._counted_tokens = self._counted_tokens, self.audio_tokens
        metrics.audio_tokens.inc(by=self._counted_tokens - tokens)

    def observe(self, outcome: str) -> None:
        """Count the answer as it ended."""
        self._count()
        audio_seconds = self.audio_seconds
        current_record().add_audio(audio_seconds)
        self.entry.judge(outcome)
        metrics, request = self.metrics, self.request
        elapsed = time.monotonic() - self.arrived
        metrics.request_duration.observe(elapsed)
        if self._encode_seconds:
            metrics.encode_seconds.inc(request.response_format, by=self._encode_seconds)
        if outcome == "ok" and audio_seconds:
            metrics.audio_duration.observe(audio_seconds)
            metrics.real_time_factor.observe(elapsed / audio_seconds)
            if not request.buffered:
                metrics.underrun.observe(self._player.underrun_seconds)
