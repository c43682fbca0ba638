"""The straight line: request, text, slot, upstream, audio, bytes. Orchestration only."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from gateway.access.rate_limits import audio_charged
from gateway.audio.join import Joiner
from gateway.audio.pcm import ENGINE_BYTES_PER_SECOND, silence
from gateway.audio.transcoder import BitRates, Transcoder
from gateway.errors import (
    GatewayError,
    QueueFull,
    ShuttingDown,
    UpstreamError,
    UpstreamTimeout,
    VoiceNotFound,
    outcome_of,
)
from gateway.settings import Settings
from gateway.speech.activity import Activity
from gateway.speech.admission import Admission
from gateway.speech.encoded_stream import Answer
from gateway.speech.generation import (
    Deadline,
    Plan,
    Recording,
    Source,
    Take,
    check_prompt,
    collect,
    plan_again,
    plan_take,
    prompt_tokens,
    with_context,
)
from gateway.speech.long_text import Context, LookAhead, SegmentedSource
from gateway.speech.request import Reference, SpeechRequest
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.request_log import Record, current_record
from gateway.text.boundary import Boundary
from gateway.text.dialogue import is_dialogue, iter_generations, parse_turns
from gateway.text.estimate import looks_silent, speech_seconds
from gateway.text.normalise import normalise
from gateway.text.sanitise import check_text, sanitise_text
from gateway.text.split import Segment, iter_segments
from gateway.text.tokens import CONTEXT_TOKENS
from gateway.upstream.pool import Pool
from gateway.upstream.retry import Attempts
from gateway.voices.library.background import VoiceKeeper
from gateway.voices.library.config_file import Snapshot
from gateway.voices.library.library import LibraryVoice, VoiceLibrary
from gateway.voices.resolve import ChosenVoice, choose_voice

SILENT_TEXT_SECONDS = 0.3
BUFFERED_ATTEMPTS = 3

CHARACTERS_OF_ONE_TIMEOUT = 4096  # OpenAI's longest input; longer ones get more time
# Segments whose voice hangs on an earlier segment's audio wait for it, and carry it in the prompt.
ANCHOR_LIKELY_SECONDS = 20.0
ANCHORED_LIKELY_SECONDS = 40.0

Result = TypeVar("Result")


def context_of(request: SpeechRequest) -> Context:
    """What the segments of a long text are given of earlier ones."""
    if is_dialogue(request.text):
        return Context.DIALOGUE
    if request.references or (request.voice is not None and request.system_prompt is None):
        return Context.NONE
    return Context.FIRST


def prepared(settings: Settings, request: SpeechRequest) -> SpeechRequest:
    """The request with its text as it is spoken: before it is measured, split or judged silent."""
    if not settings.normalise_text:
        return request
    return replace(request, text=normalise(request.text))


def segments_of(request: SpeechRequest, context_tokens: int = CONTEXT_TOKENS) -> Iterator[Segment]:
    """What each generation of a prepared request says, lazily; silent ones are left out."""
    return (
        segment
        for segment in _all_segments(request, context_tokens)
        if not looks_silent(sanitise_text(segment.text))
    )


def _all_segments(request: SpeechRequest, context_tokens: int) -> Iterator[Segment]:
    tokens = prompt_tokens(request)
    if is_dialogue(request.text):
        return iter_generations(
            parse_turns(request.text),
            likely_seconds_budget=ANCHORED_LIKELY_SECONDS,
            context_tokens=context_tokens,
            prompt_tokens=tokens,
        )
    if context_of(request) is Context.FIRST:
        return iter_segments(
            request.text,
            likely_seconds_budget=ANCHORED_LIKELY_SECONDS,
            first_likely_seconds_budget=ANCHOR_LIKELY_SECONDS,
            context_tokens=context_tokens,
            prompt_tokens=tokens,
        )
    return iter_segments(request.text, context_tokens=context_tokens, prompt_tokens=tokens)


@dataclass(slots=True)
class Held:
    """What a counted request holds: its answer, once there is one."""

    answer: Answer | None = None


class SpeechService:
    """Makes answers.

    Args:
        settings: Bounds and defaults.
        admission: The slots.
        pool: The upstreams, for the lists of voices and models.
        attempts: Starts generations.
        metrics: Where all is counted.
        executor: Bounded threads for codecs; at most one job a request is in them.
        library: The voice library, or None.
    """

    def __init__(
        self,
        settings: Settings,
        admission: Admission,
        pool: Pool,
        attempts: Attempts,
        metrics: Metrics,
        executor: Executor,
        library: VoiceLibrary | None = None,
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.metrics = metrics
        self.library = library
        self.keeper = VoiceKeeper(library) if library else None
        self.activity = Activity(show_texts=settings.show_texts)
        self._admission = admission
        self.look_ahead = LookAhead()
        self._attempts = attempts
        self._executor = executor
        self._open_requests = 0
        self._peak = 0
        metrics.slots.set(admission.slots)
        metrics.queue_places.set(admission.places)
        self._bit_rates = BitRates(settings.mp3_kbps, settings.opus_kbps, settings.aac_kbps)

    async def open(self, request: SpeechRequest, arrived: float, voice_label: str) -> Answer:
        """Bring a request to its first audio.

        Args:
            request: What to say, as a surface understood it.
            arrived: When it came, `time.monotonic()`.
            voice_label: The voice in metrics: a preset's name, or `library`.

        Raises:
            GatewayError: Nothing was sent yet: an honest status.
        """
        record = current_record()
        record.add_text(request.text, shown=self.settings.log_text)
        record.response_format, record.voice = request.response_format, voice_label
        check_text(request.text, self.settings.max_input_characters)
        check_prompt(request, self._context_tokens(request))
        self.metrics.input_characters.inc(len(request.text))
        spoken = prepared(self.settings, request)
        with ExitStack() as scope:
            likely_seconds = speech_seconds(spoken.text).likely_seconds
            charge = scope.enter_context(audio_charged(likely_seconds))
            entry = scope.enter_context(self.activity.note(request, voice_label, likely_seconds))
            if looks_silent(sanitise_text(spoken.text)):
                source: Source = Recording(silence(SILENT_TEXT_SECONDS))
                waited = 0.0
            else:
                self.pool.require_ready()
                waited = record.queue_wait_seconds = await self._admit(scope)
                source = await self._start(spoken)
                scope.callback(source.close)
                record.first_audio_seconds = time.monotonic() - arrived
                self.metrics.time_to_first_audio.observe(record.first_audio_seconds)
            charge.made_seconds = lambda: source.received_bytes / ENGINE_BYTES_PER_SECOND
            entry.speak(lambda: source.received_bytes)
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
                voice_label=voice_label,
                entry=entry,
            )

    @property
    def in_flight(self) -> int:
        """Generations that hold a slot now."""
        return self._admission.in_flight

    @property
    def voices(self) -> Snapshot:
        """The library's voices as they are now; empty where there is no library."""
        return self.library.snapshot if self.library else Snapshot()

    def choose_voice(self, name: str | None) -> ChosenVoice:
        """What a client's word for a voice means; None is the default voice.

        Raises:
            VoiceNotFound: With the list of names that work.
        """
        return choose_voice(
            name,
            default=self.settings.default_voice,
            aliases=self.settings.voice_aliases,
            listed=self.pool.voices,
            library=self.voices,
            now=time.time(),
        )

    async def recording_of(self, voice: LibraryVoice) -> Reference:
        """A library voice as a reference.

        Raises:
            VoiceNotFound: It was removed in between.
            InvalidRequest: A file put there by hand that cannot be a reference.
        """
        if self.library is None:
            raise VoiceNotFound("There is no voice library.", param="voice")
        wav = await self.in_thread(partial(self.library.read_audio, voice))
        return Reference(wav, sanitise_text(voice.prompt_transcript))

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Run work that would hold up the event loop in one of the bounded threads."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def speak(
        self, request: SpeechRequest, arrived: float, voice_label: str
    ) -> tuple[bytes, float]:
        """A whole answer, for surfaces that carry audio inside something else.

        Returns:
            Its bytes, and the seconds that it waited for its slot.

        Raises:
            GatewayError: There is no whole answer.
        """
        with self.counted(request, current_record()) as held:
            held.answer = answer = await self.open(request, arrived, voice_label)
            body = await answer.read_all()
            answer.count_delivered(len(body))
        return body, answer.queue_wait_seconds

    @contextmanager
    def counted(self, request: SpeechRequest, record: Record | None = None) -> Iterator[Held]:
        """Count once how a request ends whose answer no surface sends by itself, and close it.

        Args:
            request: What is spoken inside the block, which puts its answer into what it is given.
            record: Where the log reads how it ended, or None.
        """
        held, outcome = Held(), "cancelled"
        try:
            yield held
            outcome = "ok"
        except GatewayError as error:
            outcome = outcome_of(error)
            raise
        finally:
            if held.answer is not None:
                held.answer.close()
                held.answer.observe(outcome)
            if record is not None:
                record.outcome = outcome
            self.metrics.requests.labels(request.surface, outcome).inc()

    async def _admit(self, scope: ExitStack) -> float:
        """Wait for a slot that `scope` gives back."""
        metrics = self.metrics
        with metrics.queued.track_inprogress():
            try:
                waited = await self._admission.acquire()
            except QueueFull as error:
                metrics.rejections.labels(error.code).inc()
                raise
            except ShuttingDown:
                metrics.rejections.labels("shutdown").inc()
                raise
        metrics.queue_wait.observe(waited)
        scope.callback(self._leave)
        self._open_requests += 1
        metrics.in_flight.inc()
        metrics.slots_in_use.inc()
        if self._open_requests > self._peak:
            self._peak = self._open_requests
            metrics.in_flight_peak.set(self._peak)
        return waited

    def _leave(self) -> None:
        """Give back what `_admit` took."""
        self._open_requests -= 1
        self.metrics.in_flight.dec()
        self.metrics.slots_in_use.dec()
        self._admission.release()

    async def _start(self, request: SpeechRequest) -> Source:
        """The source of a request, at its first audio."""
        # A long text may take as many times longer as it is longer.
        parts = 1 + len(request.text) // CHARACTERS_OF_ONE_TIMEOUT
        deadline = asyncio.get_running_loop().time() + parts * self.settings.request_timeout_seconds
        segments = segments_of(request, self._context_tokens(request))
        front = list(itertools.islice(segments, 2))
        try:
            async with asyncio.timeout_at(deadline):
                if len(front) > 1:
                    source = self._segmented(request, itertools.chain(front, segments))
                    try:
                        await source.open()
                    except BaseException:
                        source.close()
                        raise
                    return Deadline(source, deadline)
                plan = self._plan(request, front[0].text, ())
                if request.buffered:
                    return await self._record(plan)
                return Deadline(await self._take(plan), deadline)
        except TimeoutError:
            raise UpstreamTimeout("The whole request took too long.") from None

    def _plan(self, request: SpeechRequest, text: str, context: tuple[Reference, ...]) -> Plan:
        """The plan of one segment: its text as the engine gets it, sanitised last."""
        if self.settings.normalise_text:
            text = normalise(text)  # a segment ends with a stop, too
        text = sanitise_text(text)
        context_tokens = self._context_tokens(request)
        request = with_context(request, text, context, context_tokens)
        return plan_take(self.settings, request, text, context_tokens)

    def _context_tokens(self, request: SpeechRequest) -> int:
        return self.pool.context_tokens(request.voice, request.model)

    def _segmented(self, request: SpeechRequest, segments: Iterator[Segment]) -> SegmentedSource:
        return SegmentedSource(
            segments,
            partial(self._plan, request),
            context_of(request),
            self._take,
            self._attempts.may_repeat,
            self._admission,
            Joiner({Boundary.TURN: self.settings.turn_pause_seconds}),
            self.metrics,
            self.look_ahead,
            whole=request.buffered,
        )

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
                if not self._attempts.may_repeat(error):
                    raise
                plan = plan_again(plan, error)
        raise AssertionError("unreachable")
