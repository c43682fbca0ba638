"""The simulated voice: the container's timing and chunks with a waveform in place of speech."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from engines.server.contract import REFERENCE_TOKENS_PER_SECOND, in_stream_error
from engines.simulator import waveform
from engines.simulator.chunks import Chunk, Generation, plan_chunks
from engines.simulator.clock import GpuClock, Stream
from engines.simulator.connection_drops import CutError
from engines.simulator.faults import AT_BYTES, ENDLESS, SILENT, Fault, Kind
from engines.voice import BYTES_PER_TOKEN, PRESETS, EngineFailureError, Job, Voice

MODEL_ID = "higgs-audio-v2-generation-3B-base"
KILLING_TOKENS = ("<|AUDIO|>", "<|AUDIO_OUT|>")  # docs/contract.md section 6
UNDECODED = "unsupported operand type(s) for *: 'NoneType' and 'int'"  # section 4
BUFFERED_FRAMES = 20  # section 3: 38,400 bytes followed the error's text
EVENTS_APART_SECONDS = 0.1  # a chat's token events are written so often, not one by one
DYING_SECONDS = 0.02  # what was sent reaches the client's socket first


@dataclass(frozen=True, slots=True)
class SimulatedJob(Job):
    """A job and what befalls it."""

    fault: Fault | None = None


def kill_process() -> None:
    """End like the container does when its engine dies: no goodbye to anybody."""
    os.kill(os.getpid(), signal.SIGKILL)


class SimulatedVoice(Voice):
    """Makes the waveform at a GPU's pace.

    Args:
        clock: The GPU.
        first_token_seconds: Time before the first token.
        prefill_tokens_per_second: Speed of reading reference audio.
        crash_on_special_tokens: Whether an audio token in a text kills the process.

    Attributes:
        running: Generations whose client waits for them.
        peak_running: Most of them at once.
        special_tokens_total: Texts that would have killed the container.
    """

    def __init__(
        self,
        clock: GpuClock,
        *,
        first_token_seconds: float = 0.0,
        prefill_tokens_per_second: float = 20_000.0,
        crash_on_special_tokens: bool = True,
    ) -> None:
        self.model_id = MODEL_ID
        self.presets: tuple[str, ...] = PRESETS
        self.clock = clock
        self.running = 0
        self.peak_running = 0
        self.aborted_total = 0
        self.finished_total = 0
        self.audio_tokens_total = 0
        self.special_tokens_total = 0
        self._crash_on_special_tokens = crash_on_special_tokens
        self._first_token_seconds = first_token_seconds
        self._prefill_tokens_per_second = prefill_tokens_per_second
        self._ids: set[str] = set()

    @property
    def waiting(self) -> int:
        """Generations in line for the GPU."""
        return self.clock.waiting

    @property
    def cache_usage(self) -> float:
        """Share of the streams that may run at once which do; at 1 new ones wait."""
        return self.clock.running / self.clock.max_running

    async def start(self) -> None:
        """Make the waveform."""
        waveform.table()

    async def stop(self) -> None:
        """Nothing to release: streams end with their connections."""

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a generation as running, and as aborted when its client leaves."""
        self.running += 1
        self.peak_running = max(self.peak_running, self.running)
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted_total += 1
            raise
        finally:
            self.running -= 1

    async def generate(self, job: Job) -> AsyncGenerator[bytes, None]:
        """Yield the chunks that the container would, when it would."""
        self._meet_special_tokens(job)
        fault = job.fault if isinstance(job, SimulatedJob) else None
        if job.request_id in self._ids:
            raise EngineFailureError(f"Request id {job.request_id} already running.")
        self._ids.add(job.request_id)
        try:
            with self.counted():
                if fault is not None and fault.kind is Kind.RAISE_BEFORE:
                    raise EngineFailureError("simulated failure before the first token")
                async with aclosing(self._pieces(job, fault)) as pieces:
                    async for piece in pieces:
                        yield piece
                self.finished_total += 1
        finally:
            self._ids.discard(job.request_id)

    def _meet_special_tokens(self, job: Job) -> None:
        words = [job.text, job.system_prompt or "", *(text for text, _ in job.references)]
        if any(token in text for text in words for token in KILLING_TOKENS):
            self.special_tokens_total += 1
            if self._crash_on_special_tokens:
                kill_process()

    async def _pieces(self, job: Job, fault: Fault | None) -> AsyncGenerator[bytes, None]:
        endless = fault is not None and fault.kind in ENDLESS
        frames = job.max_tokens if endless else waveform.frames_of(job.text)
        generation = Generation(frames, job.max_tokens, lead_tokens=int(job.every_token))
        stream = await self.clock.enter(
            delay_seconds=self._prefill_seconds(job), last_token=generation.tokens
        )
        try:
            sound = _Sound(waveform.start_of(job.text, job.preset or ""), fault)
            if fault is None or fault.kind not in SILENT:
                for chunk in plan_chunks(generation, job.chunk_tokens, job.overlap_tokens):
                    async for empty in self._pass_time(job, stream, generation, chunk.at_token):
                        yield empty
                    for piece in sound.pieces(chunk, job):
                        self.audio_tokens_total += len(piece) // BYTES_PER_TOKEN
                        yield piece
                    if sound.over:
                        await sound.befall(chunk)
                        return
            async for empty in self._pass_time(job, stream, generation, generation.tokens):
                yield empty
        finally:
            self.clock.leave(stream)

    async def _pass_time(
        self, job: Job, stream: Stream, generation: Generation, token: int
    ) -> AsyncIterator[bytes]:
        """Wait for a token; an empty piece for those that a chat's client sees pass."""
        done = job.ending.tokens or 0
        if job.every_token:
            step = max(1, int(self.clock.tokens_per_second * EVENTS_APART_SECONDS))
            while done + step < token:
                done += step
                await self.clock.wait_for(stream, done)
                job.ending.tokens = done
                yield b""
        await self.clock.wait_for(stream, token)
        job.ending.tokens = token
        if generation.truncated and token == generation.tokens:
            job.ending.finish_reason = "length"
            if job.every_token and done < token:
                yield b""

    def _prefill_seconds(self, job: Job) -> float:
        tokens = job.reference_seconds * REFERENCE_TOKENS_PER_SECOND
        return self._first_token_seconds + tokens / self._prefill_tokens_per_second


class _Sound:
    """The audio of one generation, spoilt by its fault."""

    def __init__(self, start: int, fault: Fault | None) -> None:
        self._start = start
        self._fault = fault
        self._sent_bytes = 0
        self.over = False

    def pieces(self, chunk: Chunk, job: Job) -> Iterator[bytes]:
        """What a chunk sends; `over` says that the fault's bytes are sent."""
        if not chunk.decoded:
            if job.every_token:
                raise EngineFailureError(UNDECODED)
            return
        pcm = waveform.audio(self._start, chunk.first_frame, chunk.frames)
        fault = self._fault
        if fault is not None:
            room = max(0, fault.number - self._sent_bytes)
            if fault.kind is Kind.QUIET:
                pcm = pcm[:room] + waveform.murmur(max(0, len(pcm) - room))
            elif fault.kind in AT_BYTES and len(pcm) > room:
                pcm, self.over = pcm[:room], True
        self._sent_bytes += len(pcm)
        if pcm:
            yield pcm

    async def befall(self, chunk: Chunk) -> None:
        """What happens when a fault's bytes have been sent."""
        assert self._fault is not None  # noqa: S101  (over only with a fault)
        kind = self._fault.kind
        if kind is Kind.STALL:
            await asyncio.Event().wait()
        elif kind is Kind.CUT:
            raise CutError
        elif kind in {Kind.RAISE_AFTER, Kind.RAISE_EVEN}:
            message = failure_message(odd=kind is Kind.RAISE_AFTER)
            buffered = waveform.audio(self._start, chunk.first_frame, BUFFERED_FRAMES)
            raise EngineFailureError(message, buffered)
        elif kind is Kind.DIE:
            await asyncio.sleep(DYING_SECONDS)
            kill_process()


def failure_message(*, odd: bool) -> str:
    """A message whose JSON has an odd or an even length: odd shifts the samples behind it."""
    message = "simulated failure after the first chunk"
    return message if len(in_stream_error(message)) % 2 == int(odd) else message + "!"
