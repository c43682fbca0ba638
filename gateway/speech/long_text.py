"""A long text as one source: its segments are made at once where slots are free, heard in order.

The segment that is being heard streams; those behind it are made ahead into bounded buffers. A
segment that fails before any of it was passed on is made again alone. Where nothing else fixes the
voice, earlier segments go along as references of later ones.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import InitVar, dataclass, field, replace

from gateway.audio.encoders.wav import wav_file
from gateway.audio.join import Joiner
from gateway.errors import GatewayError, UpstreamError
from gateway.speech.admission import Admission
from gateway.speech.generation import WatchedGeneration, plan_again
from gateway.speech.prepare import Context, GenerationPlan, PreparedSpeech
from gateway.text.boundary import Boundary
from gateway.text.split import Segment
from gateway.upstream.dialect import Reference

# Segments that may be made ahead of the one that is heard. One of them holds at most its plausible
# audio (about two minutes, 6 MB), so this bounds a long request's memory.
LOOK_AHEAD = 8
# And of all long requests of a process together: clients that stop to listen would else make each
# of them hold all that. Half a GPU's slots by default: who listens is not held up.
MOST_AHEAD = 32
MOST_TRIES = 3
StartGeneration = Callable[[GenerationPlan], Awaitable[WatchedGeneration]]
MayRepeat = Callable[[GatewayError], bool]


@dataclass(eq=False)
class SegmentAudio:
    """One segment: a task fills its buffer, the source drains it.

    Attributes:
        text: What it says.
        plan: Of its next try.
        start: Brings a generation to its first audio.
        release: Gives its slot back.
        may_repeat: Whether one that broke off may be made again.
        keep: Its audio is needed as a reference.
        whole: It is passed on when it is complete.
        received_bytes: PCM received for it, all tries together.
        finished: Its generation is over.
    """

    text: str
    plan: GenerationPlan
    start: StartGeneration
    release: InitVar[Callable[[], None]]  # not kept: it leads to who keeps the segment
    may_repeat: MayRepeat
    keep: bool
    whole: bool
    received_bytes: int = 0
    finished: bool = False
    _kept: list[bytes] = field(default_factory=list)
    _buffer: deque[bytes] = field(default_factory=deque)
    _passed_on: bool = False
    _error: BaseException | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    def __post_init__(self, release: Callable[[], None]) -> None:
        """Begin at once."""
        self._task = asyncio.create_task(self._run())
        # Not in the task's own `finally`: a task that is cancelled before its first step has none.
        self._task.add_done_callback(lambda task: self._finish(task, release))

    async def _run(self) -> None:
        for number in range(1, MOST_TRIES + 1):
            self._buffer.clear()
            self._kept.clear()
            try:
                await self._fill()
            except UpstreamError as error:
                if self._passed_on or not error.retryable or number == MOST_TRIES:
                    raise
                if not self.may_repeat(error):
                    raise
                self.plan = plan_again(self.plan, error)
            else:
                break

    def _finish(self, task: asyncio.Task[None], release: Callable[[], None]) -> None:
        release()
        # Whatever it was, a segment that failed must never pass for one that said all of its text.
        error = None if task.cancelled() else task.exception()
        if self._task is not None:  # it may have failed in the very moment in which it was closed
            self._error = error
        self.finished, self._task = True, None
        self._changed.set()

    @property
    def complete(self) -> bool:
        """Whether all of its audio has been made."""
        return self.finished and self._error is None

    async def _fill(self) -> None:
        generation = await self.start(self.plan)
        try:
            while pcm := await generation.read():
                self.received_bytes += len(pcm)
                self._buffer.append(pcm)
                if self.keep:
                    self._kept.append(pcm)
                self._changed.set()
        finally:
            generation.close()

    def as_reference(self) -> Reference:
        """Its audio and text, for the prompt of a later segment."""
        return Reference(wav_file(b"".join(self._kept)), self.text)

    async def read(self) -> bytes:
        """The next PCM; empty only at the end.

        Raises:
            GatewayError: It failed for good.
        """
        while not self.finished and (self.whole or not self._buffer):
            self._changed.clear()
            await self._changed.wait()
        if self._error and (self.whole or not self._buffer):
            raise self._error
        if not self._buffer:
            return b""
        self._passed_on = True
        return self._buffer.popleft()

    def close(self) -> None:
        """Stop it; idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        self._error = None  # its traceback leads here: a circle that would keep the recordings


class LookAhead:
    """Counts the segments that all long requests of a process have made ahead."""

    def __init__(self) -> None:
        self.segments = 0

    def take(self) -> bool:
        """Count one more, if there may be one more."""
        if self.segments >= MOST_AHEAD:
            return False
        self.segments += 1
        return True

    def give_back(self, segments: int) -> None:
        """These are heard now, or not needed any more."""
        self.segments -= segments


@dataclass(slots=True, eq=False)
class SegmentedSource:
    """The joined audio of many segments.

    Attributes:
        prepared: The request; it plans each segment, and says what later ones are given of earlier.
        segments: The text's segments, taken as they are needed.
        start: Brings a segment to its first audio.
        may_repeat: Whether one that broke off may be made again: the retry budget.
        admission: Further slots, only while nobody waits for one.
        joiner: Trims and joins.
        look_ahead: What is made ahead, shared with the other requests of the process.

    A buffered answer is sent when all of it is there: a segment is passed on when it is complete,
    so that one that breaks off can always be made again.
    """

    prepared: PreparedSpeech
    segments: Iterator[Segment]
    start: StartGeneration
    may_repeat: MayRepeat
    admission: Admission
    joiner: Joiner
    look_ahead: LookAhead
    _waiting: deque[Segment] = field(default_factory=deque)  # the next one, if there is one
    _begun_segments: int = 0
    _kept: dict[int, SegmentAudio] = field(default_factory=dict)  # the first one and the latest
    _own_slot_free: bool = True
    _running: deque[tuple[SegmentAudio, Boundary]] = field(default_factory=deque)
    _received_bytes: int = 0
    _first: bytes = b""
    _begun: bool = False  # the head segment has been given to the joiner
    _ended: bool = False

    def __post_init__(self) -> None:
        """Look at the first segment."""
        self._waiting.extend(itertools.islice(self.segments, 1))

    @property
    def received_bytes(self) -> int:
        """PCM received from the upstreams so far."""
        return self._received_bytes + sum(s.received_bytes for s, _ in self._running)

    async def open(self) -> None:
        """Wait for the first audio: a failure before it can still be answered with a status."""
        self._first = await self.read()

    async def read(self) -> bytes:
        """The next PCM; empty only at the end.

        Raises:
            GatewayError: A segment failed for good.
        """
        if self._first:
            first, self._first = self._first, b""
            return first
        while not self._ended:
            self._make_ahead()
            if not self._running:
                self._ended = True
                return self.joiner.finish()
            head, before = self._running[0]
            if not self._begun:
                self._begun = True
                self.joiner.start_segment(before)
            pcm = await head.read()
            if pcm:
                joined = self.joiner.feed(pcm)
            else:
                joined = self.joiner.end_segment()
                self._running.popleft()
                self.look_ahead.give_back(min(1, len(self._running)))  # the next one is heard
                self._received_bytes += head.received_bytes
                self._begun = False
            if joined:
                return joined
        return b""

    def _make_ahead(self) -> None:
        """Start segments while there are slots for them and their context is there."""
        while self._waiting and len(self._running) <= LOOK_AHEAD:
            if not all(segment.complete for segment in self._earlier()):
                return
            ahead = bool(self._running)
            if ahead and not self.look_ahead.take():
                return
            release = self._take_slot()
            if release is None:
                self.look_ahead.give_back(int(ahead))
                return
            segment = self._waiting.popleft()
            self._waiting.extend(itertools.islice(self.segments, 1))
            made = SegmentAudio(
                segment.text,
                self._plan_next(segment.text),
                self.start,
                release,
                may_repeat=self.may_repeat,
                keep=self.prepared.context is not Context.NONE,
                whole=self.prepared.request.buffered,
            )
            self._keep(made)
            self._running.append((made, segment.before))

    def _plan_next(self, text: str) -> GenerationPlan:
        earlier = tuple(segment.as_reference() for segment in self._earlier())
        plan = self.prepared.plan(text, earlier)
        if not self._begun_segments:
            return plan
        return replace(plan, generation=replace(plan.generation, goes_on=True))

    def _keep(self, made: SegmentAudio) -> None:
        first = self._kept.get(0, made)
        self._kept = {0: first, self._begun_segments: made}
        self._begun_segments += 1

    def _earlier(self) -> list[SegmentAudio]:
        """The segments whose audio goes along with the next one."""
        return [self._kept[number] for number in self.prepared.context.needed(self._begun_segments)]

    def _take_slot(self) -> Callable[[], None] | None:
        """The request's own slot, or a further one that nobody waits for."""
        if self._own_slot_free:
            self._own_slot_free = False
            return self._free_own_slot
        if self.admission.try_acquire():
            return self.admission.release
        return None

    def _free_own_slot(self) -> None:
        self._own_slot_free = True

    def close(self) -> None:
        """Stop every segment; their slots come back as their tasks end."""
        self._waiting.clear()
        self.look_ahead.give_back(max(0, len(self._running) - 1))
        while self._running:
            segment, _ = self._running.popleft()
            self._received_bytes += segment.received_bytes  # it was made, though nobody hears it
            segment.close()
