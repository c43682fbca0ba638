"""The generation loop: one thread that admits requests into slots, prefills and steps.

It alone uses the device for generation. Others talk to it through `submit` and what a `Generation`
says.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
import numpy.typing as npt
import torch

from engines.higgs.generation import CODEBOOKS, EndReason, Generation, GenerationRequest
from engines.higgs.model import Cache, Decoder, to_device
from engines.higgs.prefill import Prefiller, PrefixStore
from engines.higgs.state import FIRST_ROW, SlotState, Status, first_rows, new_slot_fields
from engines.higgs.step import (
    READ_BEHIND_STEPS,
    READ_BLOCK_STEPS,
    StepResult,
    StepRunner,
    batch_sizes,
)
from engines.voice import EngineBusyError, EngineDownError, Metric, PromptTooLongError

logger = logging.getLogger(__name__)

# Streams play 25 frames a second. Beside chunks of prefill they get a quarter more steps than that,
# or 16 between two chunks where the card is slower.
_STEPS_PER_SECOND = 32
_MOST_STEPS_OWED = 16
_HUNG_SECONDS = 10.0
# A stretch of 4 s in which the first codebook takes three codes at most is no speech.
_GUARD_FRAMES = 100
_GUARD_EVERY = 25
_GUARD_CODES = 3
_MANY_ROWS = 16

_ENDS = {Status.STOPPED: EndReason.STOP, Status.FULL: EndReason.LENGTH}


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """How a loop is built.

    Attributes:
        slots: Generations that run at once.
        context: Positions of a slot.
        queue_size: Generations that may wait for a slot.
        prefix_positions: Positions of shared prefixes that are kept.
        chunk_positions: Most positions of a chunk of prefill.
        deterministic: A request's codes do not depend, to the bit, on what else runs.
        never_stop: Mask EOS, so that answers run to their cap: for random weights.
        repetition_guard: End a generation that repeats itself.
    """

    slots: int
    context: int
    queue_size: int = 64
    prefix_positions: int = 4096
    chunk_positions: int = 512
    deterministic: bool = False
    never_stop: bool = False
    repetition_guard: bool = True


class GenerationLoop:
    """Runs generations in slots.

    Args:
        decoder: With its weights on the device.
        options: See `LoopOptions`.
    """

    def __init__(self, decoder: Decoder, options: LoopOptions) -> None:
        self.slots = options.slots
        self.capacity = options.slots + options.queue_size
        self.context_positions = options.context
        self._decoder = decoder
        self._options = options
        self._device = decoder.device
        self._state = SlotState.empty(options.slots + 1, options.context, self._device)
        self._cache = Cache.empty(
            decoder.config, options.slots + 1, options.context, decoder.weights.norm
        )
        sizes = batch_sizes(options.slots, fixed=options.deterministic)
        self._runner = StepRunner(decoder, self._state, self._cache, sizes)
        self._prefiller = Prefiller(
            decoder,
            self._cache,
            PrefixStore(options.prefix_positions),
            chunk_positions=options.chunk_positions,
            coalesce=not options.deterministic,
        )
        self._wake = threading.Condition()
        self._waiting: deque[Generation] = deque()
        self._free = list(range(options.slots))[::-1]
        self._running: dict[int, Generation] = {}
        self._rows: list[Generation | None] | None = None  # None: to be made of those that run
        self._unread: deque[tuple[list[Generation | None], StepResult]] = deque()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._failure: str | None = None
        self._beat = time.monotonic()
        self._owed_steps = 0.0  # to those that run, before the next chunk of prefill
        self._owed_at = 0.0
        self._ended: Counter[EndReason] = Counter()
        self._frames_total = 0
        self._steps_total = 0

    def start(self) -> None:
        """Record the graphs and start the thread; blocks until the loop is ready.

        Raises:
            EngineDownError: It failed at the start.
        """
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._main, args=(ready,), name="higgs-loop", daemon=True
        )
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            raise EngineDownError(self._failure)

    def stop(self) -> None:
        """End the thread; what runs or waits ends as FAILED."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    def submit(self, request: GenerationRequest, notify: Callable[[], None]) -> Generation:
        """Queue a request; never blocks.

        Args:
            request: What to generate.
            notify: Called on the loop's thread when frames came or the generation ended; must be
                quick and must not raise.

        Raises:
            PromptTooLongError: It does not fit a slot.
            EngineBusyError: Slots and queue are full.
            EngineDownError: The loop has ended.
        """
        need = len(request.prompt.token_ids) + request.max_frames + CODEBOOKS
        if need > self.context_positions:
            raise PromptTooLongError(
                f"the request needs {need} positions and a slot has {self.context_positions}"
            )
        seed = request.sampling.seed
        seed = secrets.randbits(63) if seed is None else seed & 0xFFFF_FFFF_FFFF_FFFF
        # Made here: what cannot be written into a slot's fields fails this request, not the loop.
        fields = new_slot_fields(
            request.sampling,
            seed=seed,
            position=len(request.prompt.token_ids),
            max_frames=request.max_frames,
            never_stop=self._options.never_stop,
        )
        generation = Generation(request, seed, fields, notify)
        with self._wake:
            if self._failure is not None or self._stopping:
                raise EngineDownError(self._failure or "the engine is stopping")
            if len(self._waiting) >= self._options.queue_size + len(self._free):
                raise EngineBusyError("All slots are taken and the queue is full.")
            self._waiting.append(generation)
            self._wake.notify()
        return generation

    @property
    def running(self) -> int:
        """Generations that have a slot."""
        return len(self._running) + len(self._prefiller.jobs)

    @property
    def waiting(self) -> int:
        """Generations in the queue."""
        return len(self._waiting)

    def metrics(self) -> Iterator[Metric]:
        """Yield what the loop has done, in vLLM's names where they exist."""
        prefixes = self._prefiller.prefixes
        hits, misses = prefixes.hits_total, prefixes.misses_total
        yield Metric("vllm:prompt_tokens_total", "counter", self._prefiller.positions_total)
        yield Metric("vllm:gpu_prefix_cache_queries_total", "counter", hits + misses)
        yield Metric("vllm:gpu_prefix_cache_hits_total", "counter", hits)
        yield Metric("tts:frames_total", "counter", self._frames_total)
        yield Metric("tts:steps_total", "counter", self._steps_total)
        yield Metric("tts:heartbeat_age_seconds", "gauge", time.monotonic() - self._beat)
        for reason in EndReason:
            labels = f'reason="{reason}"'
            yield Metric("tts:generations_ended_total", "counter", self._ended[reason], labels)

    def alive(self) -> bool:
        """Tell whether the loop runs and, where it has work, has moved within 10 s."""
        if self._failure is not None or self._stopping:
            return False
        busy = bool(self._running or self._waiting or self._prefiller.jobs)
        return not busy or time.monotonic() - self._beat < _HUNG_SECONDS

    # What follows runs on the loop's thread.

    def _main(self, ready: threading.Event) -> None:
        try:
            with torch.inference_mode(), _own_stream(self._device):
                self._runner.capture()
                if self._device.type == "cuda":
                    self._prefiller.warm_up()
                ready.set()
                while self._turn():
                    pass
            self._fail_all("the engine is stopping")
        except Exception as error:
            logger.exception("the generation loop failed")
            self._fail_all(f"{type(error).__name__}: {error}")
        finally:
            ready.set()

    def _turn(self) -> bool:
        """Do what is next; False ends the loop."""
        with self._wake:
            if not (self._waiting or self._running or self._prefiller.jobs or self._unread):
                self._beat = time.monotonic()
                self._wake.wait_for(lambda: self._waiting or self._stopping)
            if self._stopping:
                return False
            self._beat = time.monotonic()
            self._admit()
        self._drop_stopped()
        if self._chunk_is_due():
            self._prefill()
        if self._running:
            self._step()
        elif self._unread:
            self._read(len(self._unread))
        return True

    def _admit(self) -> None:
        for _ in range(len(self._waiting)):
            generation = self._waiting.popleft()
            if generation.wanted_end is not None:
                self._finish(generation, generation.wanted_end)
            elif self._free:
                generation.slot = self._free.pop()
                self._prefiller.add(generation)
            else:
                self._waiting.append(generation)

    def _drop_stopped(self) -> None:
        for generation in [*self._running.values()]:
            if generation.wanted_end is not None:
                self._release(generation, generation.wanted_end)
        for job in [*self._prefiller.jobs]:
            if job.generation.wanted_end is not None:
                self._prefiller.jobs.remove(job)
                self._release(job.generation, job.generation.wanted_end)

    def _chunk_is_due(self) -> bool:
        now = time.monotonic()
        owed = self._owed_steps + (now - self._owed_at) * _STEPS_PER_SECOND
        both = self._running and self._prefiller.jobs
        self._owed_steps, self._owed_at = min(owed, _MOST_STEPS_OWED) if both else 0.0, now
        return bool(self._prefiller.jobs) and self._owed_steps < 1

    def _prefill(self) -> None:
        for generation in self._prefiller.run_chunk():
            rows = torch.from_numpy(first_rows(generation.request.prompt.audio_rows))
            self._state.rows[generation.slot, : FIRST_ROW + 1] = to_device(rows, self._device)
            fields = torch.from_numpy(generation.fields)
            self._state.integers[generation.slot] = to_device(fields, self._device)
            self._running[generation.slot] = generation
            self._rows = None

    def _step(self) -> None:
        if self._rows is None:
            # Deterministic: each slot has its own row, so that neighbours never move a generation.
            # The slot after the last is the scratch slot.
            slots = range(self.slots) if self._options.deterministic else list(self._running)
            self._rows = [self._running.get(slot) for slot in slots]
            self._runner.choose([self.slots if row is None else row.slot for row in self._rows])
        self._unread.append((self._rows, self._runner.run()))
        self._steps_total += 1
        self._owed_steps = max(0.0, self._owed_steps - 1)
        # Many rows are read several steps at once: that is what other threads of the process wait
        # for, and a step of many rows is longer.
        block = READ_BLOCK_STEPS if len(self._running) >= _MANY_ROWS else 1
        while len(self._unread) >= READ_BEHIND_STEPS + block:
            self._read(block)

    def _read(self, steps: int) -> None:
        """Take the rows of the oldest unread steps."""
        told: set[Callable[[], None]] = set()
        oldest = [self._unread.popleft() for _ in range(steps)]
        for generations, alike in groupby(oldest, itemgetter(0)):
            stacked = np.stack([result.wait() for _, result in alike])
            for index, generation in enumerate(generations):
                # One that ended before this step was read has nothing to take.
                if generation is not None and generation.end is None:
                    before = generation.ready
                    self._take(generation, stacked[:, index])
                    if generation.ready > before:
                        told.add(generation.notify)
                        self._frames_total += generation.ready - before
        for notify in told:
            notify()

    def _take(self, generation: Generation, rows: npt.NDArray[np.int32]) -> None:
        """Add rows int32 [steps, 10] of one generation, up to its end."""
        status = rows[:, CODEBOOKS + 1]
        ended = np.flatnonzero(status != Status.RUNNING)
        last = int(status[ended[0]]) if len(ended) else Status.RUNNING
        broken = last == Status.NOT_A_NUMBER
        if len(ended):
            rows = rows[: ended[0] + (0 if broken else 1)]
        before = generation.ready
        if len(rows):
            generation.add_rows(int(rows[0, CODEBOOKS]), rows[:, :CODEBOOKS])
        if broken:
            self._release(generation, EndReason.FAILED, "the model's output is not a number")
        elif len(ended):
            self._release(generation, _ENDS[Status(last)])
        elif self._repeats(generation, before):
            self._release(generation, EndReason.REPETITION)

    def _repeats(self, generation: Generation, before: int) -> bool:
        ready = generation.ready
        due = ready // _GUARD_EVERY > before // _GUARD_EVERY and ready >= _GUARD_FRAMES
        if not self._options.repetition_guard or not due:
            return False
        return len(np.unique(generation.codes[ready - _GUARD_FRAMES : ready, 0])) <= _GUARD_CODES

    def _release(self, generation: Generation, reason: EndReason, error: str | None = None) -> None:
        self._running.pop(generation.slot, None)  # it is not there before its prompt is
        self._rows = None
        self._free.append(generation.slot)
        self._finish(generation, reason, error)

    def _finish(self, generation: Generation, reason: EndReason, error: str | None = None) -> None:
        self._ended[reason] += 1
        generation.finish(reason, error)

    def _fail_all(self, message: str) -> None:
        with self._wake:
            self._failure = message
            everybody = [
                *self._running.values(),
                *(job.generation for job in self._prefiller.jobs),
                *self._waiting,
            ]
            self._running.clear()
            self._prefiller.jobs.clear()
            self._waiting.clear()
        for generation in everybody:
            self._finish(generation, EndReason.FAILED, message)


def _own_stream(device: torch.device) -> AbstractContextManager[None]:
    if device.type != "cuda":
        return nullcontext()
    # Weights, cache and state were written on the stream of the thread that built them.
    torch.cuda.synchronize(device)
    # Its kernels go before the codec's. The context makes its device the thread's, too.
    stream: AbstractContextManager[None] = torch.cuda.stream(torch.cuda.Stream(device, priority=-1))
    return stream
