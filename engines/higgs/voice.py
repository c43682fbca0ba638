"""The voice behind the contract's HTTP: prompt, generation loop and codec put together."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import AsyncGenerator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

from engines.higgs.codec_worker import CodecWorker
from engines.higgs.generation import LEAD_ROWS, EndReason, Generation, GenerationRequest, Sampling
from engines.higgs.loop import GenerationLoop
from engines.higgs.prompt import PromptBuilder
from engines.higgs.references import Codes, ReferenceEncoder
from engines.voice import (
    BYTES_PER_TOKEN,
    SAMPLES_PER_TOKEN,
    TOKENS_PER_SECOND,
    EngineBusyError,
    EngineFailureError,
    Job,
    Metric,
    PromptTooLongError,
    UnspeakableError,
    Voice,
    cut_frames,
)
from gateway.audio.runaway import RunawayGuard
from gateway.text.estimate import speech_seconds
from gateway.text.prompt import DEFAULT_SYSTEM_PROMPT

logger = logging.getLogger(__name__)

LANGUAGES = ["en", "zh", "de", "ko"]  # model card of bosonai/higgs-audio-v2-generation-3B-base
QUIET_SECONDS_LIMIT = 8.0  # silence without end (boson-ai/higgs-audio issue 156), as the gateway's
COUNTED_CHARACTERS = 8192  # at once: a cut may make one token two
HEARTBEAT_SECONDS = 1.0
PROMPT_THREADS = 2
EXIT_FAILED = 70  # EX_SOFTWARE: the supervisor or the container's restart policy starts it again


class HiggsVoice(Voice):
    """A `Voice` (engines/voice.py) of Higgs Audio v2.

    Args:
        model_id: What `/v1/models` lists.
        loop: Generates codes.
        worker: Turns codes into PCM.
        builder: Writes prompts.
        encoder: Reads references.
        facts: Of the loading, for `/capabilities`.
        natural_length: End an answer after the likely time of its text: random weights never do.
    """

    def __init__(
        self,
        model_id: str,
        loop: GenerationLoop,
        worker: CodecWorker,
        builder: PromptBuilder,
        encoder: ReferenceEncoder,
        *,
        facts: dict[str, Any],
        natural_length: bool = False,
    ) -> None:
        self.model_id = model_id
        self.presets: tuple[str, ...] = ("default",)
        self.running = 0
        self.aborted_total = 0
        self.audio_tokens_total = 0
        self._loop = loop
        self._worker = worker
        self._builder = builder
        self._encoder = encoder
        self._facts = facts
        self._natural_length = natural_length
        self._pool = ThreadPoolExecutor(PROMPT_THREADS, thread_name_prefix="higgs-prompt")
        self._watch: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Generations in the loop's queue."""
        return self._loop.waiting

    @property
    def cache_usage(self) -> float | None:
        """Share of the slots that are taken."""
        return self._loop.running / self._loop.slots

    async def start(self) -> None:
        """Watch the loop; model and codec were loaded before."""
        self._watch = asyncio.get_running_loop().create_task(self._exit_when_dead())

    async def stop(self) -> None:
        """End the threads."""
        if self._watch is not None:
            self._watch.cancel()
        for part in (self._loop, self._worker, self._encoder):
            await asyncio.to_thread(part.stop)
        self._pool.shutdown()

    def failure(self) -> str | None:
        """Whether the loop is dead or stands still, or the codec failed."""
        if not self._loop.alive():
            return "the generation loop is dead or does not move"
        return self._worker.failure

    async def _exit_when_dead(self) -> None:
        while self.failure() is None:  # noqa: ASYNC110  (a thread that hangs sets no event)
            await asyncio.sleep(HEARTBEAT_SECONDS)
        logger.critical("%s: the engine exits", self.failure())
        # Threads may hang in the driver: an orderly end would wait for them.
        os._exit(EXIT_FAILED)

    def capabilities(self) -> dict[str, Any]:
        """What the model and this process can do."""
        return {
            "engine": "higgs",
            "experimental": True,
            "languages": LANGUAGES,
            "seed": True,
            "system_prompt": True,
            "dialogue": True,
            "most_audio_seconds": self._loop.context_positions / TOKENS_PER_SECOND,
            **self._facts,
        }

    def metrics(self) -> Iterable[Metric]:
        """The loop's counters, and what waits for the encoder."""
        yield from self._loop.metrics()
        yield Metric("tts:references_waiting", "gauge", self._encoder.waiting)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, counted until they are more than the context takes.

        Nothing else is served meanwhile.
        """
        total = 0
        for at in range(0, len(text), COUNTED_CHARACTERS):
            total += self._builder.count(text[at : at + COUNTED_CHARACTERS])
            if total > self._loop.context_positions:
                break
        return total

    async def generate(self, job: Job) -> AsyncGenerator[bytes, None]:
        """Yield the job's PCM as it is generated; see `Voice.generate`.

        Raises:
            UnspeakableError: A reference cannot be used, or a sampling value is no number.
            EngineFailureError: Its subclasses tell a full queue, a long prompt and a dead loop.
        """
        if not (math.isfinite(job.temperature) and math.isfinite(job.top_p)):
            raise UnspeakableError("temperature and top_p must be finite numbers.")
        if not cut_frames(job.max_tokens):
            job.ending.finish_reason = "length"
            return
        if self.running >= self._loop.capacity:  # many may wait for their recordings' codes
            raise EngineBusyError("All slots are taken and the queue is full.")
        coded = [self._encoder.codes(audio) for _, audio in job.references]
        self.running += 1
        try:
            codes = await asyncio.gather(*map(asyncio.wrap_future, coded))
            in_thread = asyncio.get_running_loop().run_in_executor
            request = await in_thread(self._pool, self._request, job, codes)
            generation = self._loop.submit(request, self._worker.notify)
            async with aclosing(self._sound(generation)) as sound:
                async for pcm in sound:
                    self.audio_tokens_total += len(pcm) // BYTES_PER_TOKEN
                    yield pcm
            job.ending.finish_reason = self._reason(generation, job.max_tokens)
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted_total += 1
            raise
        finally:
            for each in coded:
                each.cancel()  # nothing happens to one that is done
            self.running -= 1

    async def _sound(self, generation: Generation) -> AsyncGenerator[bytes, None]:
        """Yield a generation's PCM in whole audio tokens, up to silence without end.

        Its end, whatever it is, frees the slot.
        """
        event_loop = asyncio.get_running_loop()
        # Bounded by the generation: its frames are at most those of a context.
        items: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

        def deliver(item: bytes | Exception | None) -> None:
            event_loop.call_soon_threadsafe(items.put_nowait, item)

        stream = self._worker.open(generation, deliver)
        most_samples = generation.request.max_frames * SAMPLES_PER_TOKEN
        guard = RunawayGuard(most_samples, QUIET_SECONDS_LIMIT)
        try:
            while (item := await items.get()) is not None:
                if isinstance(item, Exception):
                    raise EngineFailureError("the codec failed") from item
                if pcm := guard.feed(item):
                    yield pcm
                if guard.ended:
                    generation.stop(EndReason.REPETITION)
                    return
            if generation.end is EndReason.FAILED:
                raise EngineFailureError(generation.error or "the generation failed")
            if pcm := guard.finish():
                yield pcm
        finally:
            generation.cancel()
            self._worker.close(stream)

    def _request(self, job: Job, codes: Sequence[Codes]) -> GenerationRequest:
        transcripts = [words for words, _ in job.references]
        references = list(zip(transcripts, codes, strict=True))
        try:
            prompt = self._builder.build(
                job.system_prompt or DEFAULT_SYSTEM_PROMPT, references, job.text
            )
        except ValueError as error:
            raise UnspeakableError(f"The text cannot be used: {error}.") from error
        room = self._loop.context_positions - LEAD_ROWS - len(prompt.token_ids)
        if room < 1:
            raise PromptTooLongError(
                f"Prompt length of {len(prompt.token_ids)} is longer than the maximum model length"
                f" of {self._loop.context_positions}."
            )
        sampling = Sampling(job.temperature, job.top_p, job.top_k, job.seed)
        frames = min(cut_frames(job.max_tokens), room, self._most_frames(job.text))
        return GenerationRequest(prompt, frames, sampling)

    def _most_frames(self, text: str) -> int:
        """Frames of the longest plausible reading: a model that misses its end is stopped."""
        estimate = speech_seconds(text)
        longest = estimate.likely_seconds if self._natural_length else estimate.longest_seconds
        return math.ceil(longest * TOKENS_PER_SECOND)

    def _reason(self, generation: Generation, max_tokens: int) -> str:
        ended = self._natural_length and generation.ready < cut_frames(max_tokens)
        return "stop" if ended or generation.end is EndReason.STOP else "length"
