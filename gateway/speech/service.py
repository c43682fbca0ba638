"""The straight line: a prepared request, a slot, an upstream, audio, bytes. Orchestration only."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Iterator
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

from gateway.access.rate_limits import charge_audio
from gateway.audio.join import Joiner
from gateway.audio.pcm import silence
from gateway.audio.transcoder import BitRates, Transcoder
from gateway.errors import (
    QueueFull,
    ShuttingDown,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.settings import Settings
from gateway.speech.activity import Activity
from gateway.speech.admission import Admission
from gateway.speech.encoded_stream import EncodedStream
from gateway.speech.generation import (
    CompleteAudio,
    Source,
    WatchedGeneration,
    collect,
    plan_again,
)
from gateway.speech.long_text import LookAhead, SegmentedSource
from gateway.speech.prepare import GenerationPlan, PreparedSpeech, prepare
from gateway.speech.request import SpeechRequest
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.request_record import RequestRecord, current_record
from gateway.text.boundary import Boundary
from gateway.text.split import Segment
from gateway.text.spoken_text import SpokenText, read_text
from gateway.upstream.capabilities import Needs
from gateway.upstream.dialect import Reference
from gateway.upstream.pool import Pool
from gateway.upstream.retry import Attempts
from gateway.upstream.wait_limit import WaitLimit

SILENT_TEXT_SECONDS = 0.3
BUFFERED_ATTEMPTS = 3
# A longer text would hold up the event loop: 100,000 characters take 0.1 s, of hostile text 1.4 s
# (2026-11-25, 2-core machine).
READ_AT_ONCE_CHARACTERS = 4096


class SpeechService:
    """Makes answers.

    Args:
        settings: Bounds and defaults.
        admission: The slots.
        pool: The upstreams.
        attempts: Starts generations.
        metrics: Where all is counted.
        executor: Bounded threads for codecs; at most one job a request is in them.
        activity: Where requests are noted.

    Attributes:
        look_ahead: What all long requests have made ahead.
    """

    def __init__(
        self,
        settings: Settings,
        admission: Admission,
        pool: Pool,
        attempts: Attempts,
        metrics: Metrics,
        executor: Executor,
        activity: Activity,
    ) -> None:
        self.look_ahead = LookAhead()
        self._settings = settings
        self._pool = pool
        self._metrics = metrics
        self._activity = activity
        self._admission = admission
        self._attempts = attempts
        self._executor = executor
        self._open_requests = 0
        self._peak = 0
        metrics.slots.set(admission.slots)
        metrics.queue_places.set(admission.places)
        # Asked for at each scrape: counting them up and down would cost every request.
        metrics.in_flight.set_function(lambda: self._open_requests)
        metrics.slots_in_use.set_function(lambda: admission.in_flight)
        metrics.queued.set_function(lambda: admission.queued)
        self._bit_rates = BitRates(settings.mp3_kbps, settings.opus_kbps, settings.aac_kbps)

    async def read_text(
        self, written: str, most_characters: int | None = None, *, normalise: bool = True
    ) -> SpokenText:
        """Check a client's text, and compute what is known of it; of a long one in a thread.

        Args:
            written: As the client sent it.
            most_characters: Another bound than that of a request.
            normalise: False leaves it as it is, as the setting does for all.

        Raises:
            InvalidRequest: It cannot be spoken.
            NoHealthyUpstream: There is nothing yet that could speak.
        """
        settings = self._settings
        most = most_characters or settings.max_input_characters
        normalise, scripts = settings.normalise_text and normalise, self._pool.scripts

        def read() -> SpokenText:
            return read_text(written, most, normalised=normalise, scripts=scripts)

        if len(written) < READ_AT_ONCE_CHARACTERS:
            text = read()
        else:
            text = await asyncio.get_running_loop().run_in_executor(self._executor, read)
        self._pool.require_ready()
        return text

    def prepare(self, request: SpeechRequest) -> PreparedSpeech:
        """Decide how a request is made.

        Raises:
            InvalidRequest: It leaves the engine no room, or no engine at hand can do it.
        """
        pool, voice, model = self._pool, request.voice, request.model
        context_tokens = pool.context_tokens(voice, model)
        scene = request.system_prompt is not None
        needs = Needs(request.text.spoken, request.references, scene)
        if request.text.is_dialogue and not pool.able(voice, model, needs):
            # What reads no dialogue is given one turn after another, each in its speaker's voice.
            if request.directed:
                pool.require_able(needs)
            return prepare(request, self._settings, context_tokens, turn_by_turn=True)
        undirected = request.voice is not None and not request.directed
        if undirected and needs.scene and not pool.able(voice, model, needs):
            # A Chatterbox client's knobs are words about the scene: never an error where an engine
            # takes none (docs/compatibility.md).
            request = replace(request, system_prompt=None)
            needs = replace(needs, scene=False)
        pool.require_able(needs)
        keeps_voice = needs.scene and pool.keeps_preset_in_scene(voice, model, needs)
        return prepare(request, self._settings, context_tokens, keeps_voice=keeps_voice)

    async def open(self, prepared: PreparedSpeech, arrived: float) -> EncodedStream:
        """Bring a request to its first audio.

        Args:
            prepared: What to say, and how.
            arrived: When it came, `time.monotonic()`.

        Raises:
            GatewayError: Nothing was sent yet: an honest status.
        """
        record = current_record()
        answer = self._answer(prepared, arrived, record)
        try:
            if prepared.request.text.silent:
                answer.source = CompleteAudio(silence(SILENT_TEXT_SECONDS))
            else:
                answer.queue_wait_seconds = record.queue_wait_seconds = await self._admit(answer)
                # The wait for a slot has a limit of its own.
                answer.limit.at += answer.queue_wait_seconds
                with answer.limit:
                    answer.source = await self._source(prepared)
                record.first_audio_seconds = time.monotonic() - arrived
                self._metrics.time_to_first_audio.observe(record.first_audio_seconds)
        except BaseException as error:
            answer.close(error)
            raise
        answer.entry.speak(partial(getattr, answer.source, "received_bytes"))
        return answer

    def _answer(
        self, prepared: PreparedSpeech, arrived: float, record: RequestRecord
    ) -> EncodedStream:
        """Note a request and charge its caller; the answer has no audio yet."""
        request = prepared.request
        record.add_text(request.text.written, shown=self._settings.log_text)
        record.response_format, record.voice = request.response_format, request.voice_label
        self._metrics.input_characters.inc(by=len(request.text.written))
        transcoder = Transcoder(
            request.response_format,
            speed=request.speed,
            sample_rate_hz=request.sample_rate_hz,
            buffered=request.buffered,
            bit_rates=self._bit_rates,
        )
        at = asyncio.get_running_loop().time() + prepared.timeout_seconds
        return EncodedStream(
            request,
            charge_audio(request.text.likely_seconds),
            self._activity.note(request),
            transcoder,
            WaitLimit(at, _too_late),
            self._executor,
            self._metrics,
            arrived,
        )

    @property
    def in_flight(self) -> int:
        """Generations that hold a slot now."""
        return self._admission.in_flight

    async def _admit(self, answer: EncodedStream) -> float:
        """Wait for a slot that the answer gives back."""
        metrics = self._metrics
        try:
            waited = await self._admission.acquire()
        except (QueueFull, ShuttingDown) as error:
            reason = error.code if isinstance(error, QueueFull) else "shutdown"
            metrics.rejections.inc(reason)
            raise
        metrics.queue_wait.observe(waited)
        answer.leave = self._leave
        self._open_requests += 1
        if self._open_requests > self._peak:
            self._peak = self._open_requests
            metrics.in_flight_peak.set(self._peak)
        return waited

    def _leave(self) -> None:
        """Give back what `_admit` took."""
        self._open_requests -= 1
        self._admission.release()

    def _source(self, prepared: PreparedSpeech) -> Awaitable[Source]:
        """Waits for the first audio."""
        segments = prepared.segments()
        first, second = next(segments), next(segments, None)
        if second is not None:
            return self._segmented(prepared, itertools.chain((first, second), segments))
        plan = prepared.plan(first.text)
        return self._complete(plan) if prepared.request.buffered else self._generate(plan)

    async def _segmented(
        self, prepared: PreparedSpeech, segments: Iterator[Segment]
    ) -> SegmentedSource:
        source = SegmentedSource(
            prepared,
            segments,
            self._generate,
            self._attempts.may_repeat,
            self._admission,
            Joiner({Boundary.TURN: self._settings.turn_pause_seconds}),
            self.look_ahead,
        )
        try:
            await source.open()
        except BaseException:
            source.close()
            raise
        return source

    async def _generate(self, plan: GenerationPlan) -> WatchedGeneration:
        running = await self._attempts.start(plan.generation, plan.shortest_samples)
        return WatchedGeneration(running, plan, self._metrics)

    async def make_segment(
        self, prepared: PreparedSpeech, text: str, earlier: tuple[Reference, ...]
    ) -> bytes:
        """The whole PCM of one segment of a job, which holds a slot of its own.

        Args:
            prepared: The job's request, which is buffered.
            text: What the segment says; nothing is a short silence.
            earlier: Audio of earlier segments that goes along.

        Raises:
            GatewayError: It was not made.
        """
        if not text:
            return silence(SILENT_TEXT_SECONDS)
        try:
            async with asyncio.timeout(self._settings.request_timeout_seconds):
                made = await self._complete(prepared.plan(text, earlier))
        except TimeoutError:
            raise UpstreamTimeout("The segment took too long.") from None
        return await made.read()

    async def _complete(self, plan: GenerationPlan) -> CompleteAudio:
        """A whole generation; one that breaks off is made again, as nothing was sent yet."""
        for attempt in range(1, BUFFERED_ATTEMPTS + 1):
            generation = await self._generate(plan)
            try:
                return await collect(generation)
            except UpstreamError as error:
                if not error.retryable or attempt == BUFFERED_ATTEMPTS:
                    raise
                if not self._attempts.may_repeat(error):
                    raise
                plan = plan_again(plan, error)
        raise AssertionError("unreachable")


def _too_late() -> UpstreamTimeout:
    return UpstreamTimeout("The whole request took too long.")
