"""The simulated voice: the container's timing and chunks with a waveform in place of speech."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator

from gateway.engine import waveform
from gateway.engine.base import (
    BYTES_PER_TOKEN,
    OVERHEAD_TOKENS,
    PRESETS,
    EngineFailureError,
    Job,
)
from gateway.engine.chunks import plan_chunks
from gateway.engine.clock import GpuClock, Stream
from gateway.engine.contract import REFERENCE_TOKENS_PER_SECOND, ContractError
from gateway.engine.faults import Fault, FaultPlan, Kind

MODEL_ID = "higgs-audio-v2-generation-3B-base"
WAV_BYTES_PER_SECOND = 48_000
KILLING_TOKENS = ("<|AUDIO|>", "<|AUDIO_OUT|>")  # docs/contract.md section 6


class CutError(Exception):
    """The connection is to be dropped."""


def kill_process() -> None:
    """End like the container does when its engine dies: no goodbye to anybody."""
    os.kill(os.getpid(), signal.SIGKILL)


class SimulatedVoice:
    """Makes the waveform at a GPU's pace.

    Args:
        clock: The GPU.
        faults: What goes wrong.
        first_token_seconds: Time before the first token.
        prefill_tokens_per_second: Speed of reading reference audio.
    """

    def __init__(
        self,
        clock: GpuClock,
        faults: FaultPlan,
        *,
        first_token_seconds: float,
        prefill_tokens_per_second: float,
    ) -> None:
        self.model_id = MODEL_ID
        self.presets: tuple[str, ...] = PRESETS
        self.running = 0
        self.aborted_total = 0
        self.audio_tokens_total = 0
        self.finished_total = 0
        self.peak_running = 0
        self._clock = clock
        self._faults = faults
        self._first_token_seconds = first_token_seconds
        self._prefill_tokens_per_second = prefill_tokens_per_second

    @property
    def waiting(self) -> int:
        """Generations in line for the GPU."""
        return self._clock.waiting

    async def start(self) -> None:
        """Make the waveform."""
        waveform.table()

    async def stop(self) -> None:
        """Hold nothing."""

    async def generate(self, job: Job) -> AsyncGenerator[bytes, None]:
        """Yield the chunks that the container would, when it would."""
        if any(token in job.text for token in KILLING_TOKENS):
            kill_process()
        fault = self._faults.draw(job.text)
        self.running += 1
        self.peak_running = max(self.peak_running, self.running)
        complete = False
        stream: Stream | None = None
        try:
            if fault:
                await self._before(fault)
            stream = await self._clock.enter(self._prefill_seconds(job))
            async for chunk in self._chunks(job, fault, stream):
                self.audio_tokens_total += len(chunk) // BYTES_PER_TOKEN
                yield chunk
            complete = True
            self.finished_total += 1
        except (EngineFailureError, CutError, ContractError):
            complete = True
            raise
        finally:
            if stream is not None:
                self._clock.leave(stream)
            self.running -= 1
            self.aborted_total += not complete

    def _prefill_seconds(self, job: Job) -> float:
        seconds = sum(len(audio) / WAV_BYTES_PER_SECOND for _, audio in job.references)
        tokens = seconds * REFERENCE_TOKENS_PER_SECOND
        return self._first_token_seconds + tokens / self._prefill_tokens_per_second

    async def _before(self, fault: Fault) -> None:
        """Faults that need no audio."""
        if fault.kind is Kind.HANG:
            await asyncio.Event().wait()
        elif fault.kind is Kind.SLOW_HEADERS:
            await asyncio.sleep(fault.number / 1000)
        elif fault.kind is Kind.RAISE_BEFORE:
            raise EngineFailureError("simulated failure before the first token")
        elif fault.kind is Kind.RESET:
            raise CutError
        elif fault.kind is Kind.ERROR:
            raise ContractError(500, "Internal Server Error")

    async def _chunks(
        self, job: Job, fault: Fault | None, stream: Stream
    ) -> AsyncGenerator[bytes, None]:
        endless = fault is not None and fault.kind in {Kind.RUNAWAY, Kind.QUIET}
        start = waveform.start_of(job.text, job.preset or "")
        wanted = waveform.frames_of(job.text) + OVERHEAD_TOKENS
        tokens = job.max_tokens if endless else min(wanted, job.max_tokens)
        sent = 0
        if fault is not None and fault.kind is Kind.EMPTY:
            tokens = 0
        for chunk in plan_chunks(tokens, job.chunk_tokens, job.overlap_tokens):
            await self._clock.wait_for(stream, chunk.at_token)
            if tokens < wanted and chunk.at_token >= tokens:
                job.ending.finish_reason = "length"
            data = waveform.audio(start, chunk.first_frame, chunk.frames)
            if fault is None:
                yield data
                continue
            room = fault.number - sent
            if fault.kind is Kind.QUIET and len(data) > room:
                data = data[: max(0, room)] + bytes(len(data) - max(0, room))
            if fault.kind in _AT_BYTES and len(data) > room:
                if room > 0:
                    yield data[:room]
                await _break(fault)
                return
            sent += len(data)
            yield data


_AT_BYTES = {Kind.STALL, Kind.CUT, Kind.RAISE_AFTER, Kind.TRUNCATE, Kind.DIE}


async def _break(fault: Fault) -> None:
    """What happens when a fault's bytes have been sent."""
    if fault.kind is Kind.STALL:
        await asyncio.Event().wait()
    elif fault.kind is Kind.CUT:
        raise CutError
    elif fault.kind is Kind.RAISE_AFTER:
        # An odd length shifts the samples behind it by one byte.
        raise EngineFailureError("simulated failure after the first chunk!")
    elif fault.kind is Kind.DIE:
        kill_process()
