"""One generation as the straight line sees it: planned from its text, watched while it runs.

The engine ends a runaway, a cut and a whole answer alike (docs/contract.md section 2), so the
length that a text allows is the only judge.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, replace
from typing import Protocol

from gateway.audio.pcm import BYTES_PER_SAMPLE
from gateway.audio.runaway import RunawayGuard
from gateway.errors import InvalidRequest, UpstreamError, UpstreamTimeout
from gateway.settings import Settings
from gateway.speech.request import ENGINE_SAMPLE_RATE_HZ, Reference, SpeechRequest
from gateway.telemetry.metrics import Metrics
from gateway.text.estimate import speech_seconds
from gateway.text.tokens import (
    CONTEXT_TOKENS,
    DEFAULT_PROMPT_TOKENS,
    OVERHEAD_TOKENS,
    TOKENS_PER_SECOND,
    fits_context,
    free_tokens,
    max_tokens,
    text_tokens,
)
from gateway.upstream.client import Timeouts
from gateway.upstream.dialect import (
    BUFFERED,
    PROFILES,
    SAMPLES_PER_TOKEN,
    Chunking,
    Generation,
)
from gateway.upstream.retry import Running, TooShort

logger = logging.getLogger("gateway.speech")

REFERENCE_OVERHEAD_TOKENS = 16
# A request's own prompt takes at most this share of the engine's context: what remains holds a
# segment's text, the audio of earlier segments that goes along, and the audio to be made.
MOST_PROMPT_SHARE = 0.5

COLD_LENGTH_FACTOR = 1.5
COLD_BASE_SECONDS = 2.0  # breath and pauses around a short text


class Source(Protocol):
    """Where an answer's PCM comes from."""

    @property
    def received_bytes(self) -> int:
        """PCM received from upstreams so far."""

    async def read(self) -> bytes:
        """The next PCM, whole samples; empty only at the end."""

    def close(self) -> None:
        """Stop and give back what it holds; idempotent, synchronous."""


class Recording:
    """A source whose PCM is there already.

    Args:
        pcm: What it yields.
        received_bytes: How much of it an upstream made.
    """

    def __init__(self, pcm: bytes, received_bytes: int = 0) -> None:
        self.received_bytes = received_bytes
        self._pcm = pcm

    async def read(self) -> bytes:
        """All of it, then the end."""
        pcm, self._pcm = self._pcm, b""
        return pcm

    def close(self) -> None:
        """Hold nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a text allows its audio to be.

    Attributes:
        generation: The upstream call.
        timeouts: Bounds of an attempt.
        shortest_samples: Audio below this is no honest reading.
        longest_samples: Audio above this is a runaway.
        bounded_by_client: The client's own max_tokens is the tighter bound.
        quiet_limit_seconds: Near-silence of this length is a runaway.
        warmer: What is done instead when it runs away: the plan at the engine's own temperature,
            where a lower one was asked for and nothing is sent before all of it is there.
    """

    generation: Generation
    timeouts: Timeouts
    shortest_samples: int
    longest_samples: int
    bounded_by_client: bool
    quiet_limit_seconds: float
    warmer: Plan | None = None


def plan_timeouts(settings: Settings) -> Timeouts:
    """Bounds of one attempt."""
    return Timeouts(
        connect_seconds=settings.connect_timeout_seconds,
        first_audio_seconds=settings.first_audio_timeout_seconds,
        idle_seconds=settings.idle_timeout_seconds,
    )


def plan_chunking(settings: Settings, *, buffered: bool) -> Chunking:
    """How the upstream shall cut its answer.

    A whole answer is cut as rarely as the timeouts allow, because each cut leaves a join: a chunk
    takes half of the shorter timeout at the slowest rate that is accepted, so an engine that hangs
    is told apart from one that is slow within the timeouts that the settings name.
    """
    standard = PROFILES[settings.stream_profile]
    if not buffered:
        return standard
    patience_seconds = min(settings.first_audio_timeout_seconds, settings.idle_timeout_seconds) / 2
    size_tokens = int(patience_seconds * settings.slowest_tokens_per_second)
    least = PROFILES["standard"].size_tokens
    return replace(BUFFERED, size_tokens=max(least, min(size_tokens, BUFFERED.size_tokens)))


def prompt_tokens(request: SpeechRequest) -> int:
    """The most tokens that everything in the prompt but the text can take.

    A reference takes 25 tokens a second and 9 around it (docs/contract.md section 4).
    """
    written = [request.system_prompt or "", *(r.transcript for r in request.references)]
    tokens = DEFAULT_PROMPT_TOKENS + sum(map(text_tokens, written))
    for reference in request.references:
        tokens += math.ceil(reference.seconds * TOKENS_PER_SECOND) + REFERENCE_OVERHEAD_TOKENS
    return tokens


def check_prompt(request: SpeechRequest, context_tokens: int = CONTEXT_TOKENS) -> None:
    """Refuse a prompt that leaves the engine no room: it would only answer an error.

    Args:
        request: With its scene and references.
        context_tokens: max_model_len of the engine.

    Raises:
        InvalidRequest: Scene, samples and their texts are too long together.
    """
    tokens = prompt_tokens(request)
    most_tokens = int(context_tokens * MOST_PROMPT_SHARE)
    if tokens > most_tokens:
        raise InvalidRequest(
            f"The scene and the voice samples take up to {tokens} tokens of the engine's context; "
            f"at most {most_tokens} are allowed. Shorten the prompt, the samples or their texts."
        )


def with_context(
    request: SpeechRequest,
    text: str,
    context: tuple[Reference, ...],
    context_tokens: int = CONTEXT_TOKENS,
) -> SpeechRequest:
    """The request with as many earlier segments as references as leave room for the text.

    Args:
        request: Whose text it is.
        text: The segment.
        context: Earlier segments, the most important first.
        context_tokens: max_model_len of the engine.
    """
    for count in range(len(context), 0, -1):
        longer = replace(request, references=(*request.references, *context[:count]))
        tokens = prompt_tokens(longer)
        if fits_context(text, context_tokens=context_tokens, prompt_tokens=tokens):
            return longer
    return request


def plan_take(
    settings: Settings, request: SpeechRequest, text: str, context_tokens: int = CONTEXT_TOKENS
) -> Plan:
    """Decide what the upstream is asked for and what it may answer.

    Args:
        settings: Bounds.
        request: Whose text it is.
        text: The text, or one segment of it, sanitised.
        context_tokens: max_model_len of the engine.

    Raises:
        InvalidRequest: Prompt and text leave no room for audio.
    """
    chunking = plan_chunking(settings, buffered=request.buffered)
    beside_tokens = prompt_tokens(request)
    taken_tokens = context_tokens - free_tokens(
        text, context_tokens=context_tokens, prompt_tokens=beside_tokens
    )
    tokens = max_tokens(
        text,
        seconds_per_character_factor=settings.plausible_length_factor,
        context_tokens=context_tokens,
        prompt_tokens=beside_tokens,
    )
    if tokens <= OVERHEAD_TOKENS:
        raise InvalidRequest(
            f"The engine's context of {context_tokens} tokens is too short for this text.",
            param="input",
        )
    asked = request.sampling.max_tokens
    cold = request.sampling.temperature is not None and request.sampling.temperature < 1
    warmer = None
    if cold:
        if request.buffered:
            sampling = replace(request.sampling, temperature=None)
            warmer = plan_take(settings, replace(request, sampling=sampling), text, context_tokens)
        tokens = min(tokens, cold_tokens(text))
    bounded_by_client = asked is not None and asked < tokens
    if asked is not None:
        tokens = min(tokens, asked)
    longest_samples = max(1, tokens - OVERHEAD_TOKENS) * SAMPLES_PER_TOKEN
    shortest_samples = int(speech_seconds(text).shortest_seconds * ENGINE_SAMPLE_RATE_HZ)
    return Plan(
        generation=Generation(
            text=text,
            voice=request.voice,
            system_prompt=request.system_prompt,
            references=request.references,
            sampling=request.sampling,
            max_tokens=tokens,
            chunking=chunking,
            prompt_tokens=taken_tokens,
            model=request.model,
        ),
        timeouts=plan_timeouts(settings),
        # A client that bounds the tokens itself has asked for a cut.
        shortest_samples=0 if bounded_by_client else shortest_samples,
        longest_samples=longest_samples,
        bounded_by_client=bounded_by_client,
        quiet_limit_seconds=settings.quiet_limit_seconds,
        warmer=None if bounded_by_client else warmer,
    )


def cold_tokens(text: str) -> int:
    """The bound of a generation below temperature 1, where the container may miss the end.

    Public reports: boson-ai/higgs-audio #126 and #151 (docs/contract.md section 7).
    """
    seconds = COLD_LENGTH_FACTOR * speech_seconds(text).likely_seconds + COLD_BASE_SECONDS
    return OVERHEAD_TOKENS + math.ceil(TOKENS_PER_SECOND * seconds)


def plan_again(plan: Plan, error: UpstreamError) -> Plan:
    """The plan of the next try: at the engine's own temperature where a lower one ran away."""
    if isinstance(error, RanAwayCold) and plan.warmer is not None:
        logger.info("a generation below temperature 1 ran away and is made once more at 1.0")
        return plan.warmer
    return plan


class RanAwayCold(UpstreamError):
    """A generation below the engine's own temperature did not find its end."""

    code = "upstream_ran_away"


class Take:
    """A running generation under watch: too long, silent for long, or cut short.

    Args:
        running: It has produced its first audio.
        plan: What its audio may be.
        metrics: Where runaways are counted.
    """

    def __init__(self, running: Running, plan: Plan, metrics: Metrics) -> None:
        self.received_bytes = 0
        self._running = running
        self._plan = plan
        self._metrics = metrics
        self._guard = RunawayGuard(plan.longest_samples, plan.quiet_limit_seconds)
        self._ended = False

    async def read(self) -> bytes:
        """The next PCM, whole samples; empty only at the end.

        Raises:
            TooShort: It ended long before its text can have been said.
            RanAwayCold: It ran away, and its plan knows what to do instead.
            GatewayError: It broke off.
        """
        while not self._ended:
            pcm = await self._running.read()
            self.received_bytes += len(pcm)
            kept = self._guard.feed(pcm) if pcm else b""
            if not pcm or self._guard.ended:
                kept += self._finish(complete=not pcm)
            if kept:
                return kept
        return b""

    def _finish(self, *, complete: bool) -> bytes:
        self._ended = True
        self._running.close()  # a runaway must leave the GPU now
        samples = self.received_bytes // BYTES_PER_SAMPLE
        if complete and samples < self._plan.shortest_samples:
            raise TooShort("The upstream's audio is far too short for its text.")
        reason = self._guard.ended
        if reason is None and samples >= self._plan.longest_samples:
            reason = "too_long"  # the engine itself stopped at max_tokens
        if reason and self._plan.warmer is not None:
            self._metrics.runaway.labels(reason).inc()
            raise RanAwayCold("The upstream did not find the end of the text.")
        if reason and not (reason == "too_long" and self._plan.bounded_by_client):
            self._metrics.runaway.labels(reason).inc()
        return self._guard.finish()

    def close(self) -> None:
        """Stop it on the upstream; idempotent."""
        self._running.close()


async def collect(take: Take) -> Recording:
    """All PCM of a take, which its guard bounds; closes it."""
    pcm = bytearray()
    try:
        while data := await take.read():
            pcm += data
    finally:
        take.close()
    return Recording(bytes(pcm), take.received_bytes)


class Deadline:
    """A source that must end in time.

    Args:
        source: The source.
        deadline: In loop time.
    """

    def __init__(self, source: Source, deadline: float) -> None:
        self._source = source
        self._deadline = deadline

    @property
    def received_bytes(self) -> int:
        """PCM received from the upstream so far."""
        return self._source.received_bytes

    async def read(self) -> bytes:
        """The next PCM; empty only at the end.

        Raises:
            UpstreamTimeout: The deadline has passed.
        """
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._source.read()
        except TimeoutError:
            raise UpstreamTimeout("The whole request took too long.") from None

    def close(self) -> None:
        """Close the source."""
        self._source.close()
