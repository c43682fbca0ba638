"""Starts a generation on an upstream that can make it, and retries before the first audio.

Whatever fails before the first audio may be repeated elsewhere; after that the failure belongs to
the caller, because bytes of this audio may have reached a client.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from gateway.audio.pcm import BYTES_PER_SAMPLE
from gateway.errors import (
    GatewayError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.request_record import current_record
from gateway.text.tokens import TOKENS_PER_SECOND, text_tokens
from gateway.upstream.capabilities import Needs
from gateway.upstream.client import PcmStream, Timeouts, UpstreamClient
from gateway.upstream.dialect import Generation
from gateway.upstream.pool import Lease, Pool, Upstream
from gateway.upstream.probes import Prober
from gateway.upstream.refusals import context_figures, scrub
from gateway.upstream.retry_budget import RetryBudget

logger = logging.getLogger("gateway.upstream")

MOST_ATTEMPTS = 3
MOST_TIMEOUTS = 2  # each costs the client the whole first-audio timeout
FIRST_PAUSE_SECONDS = 0.1
# The container sends the end right behind its last chunk: this long is waited for it when the
# first audio is too short to be a whole first chunk, to tell a cut answer before it is passed on.
END_GRACE_SECONDS = 0.004
# Less room for audio than this is no room: the engine shall say so itself.
LEAST_ROOM_TOKENS = 36
# No token of Llama 3's is longer on average, in any text.
MOST_BYTES_A_TOKEN = 16


@dataclass(slots=True)
class History:
    """What has been tried for one generation."""

    attempts: int = 0
    timeouts: int = 0
    too_short: int = 0
    shortened: bool = False


class TooShort(UpstreamProtocolError):
    """The answer ended long before its text can have been said."""

    code = "upstream_audio_too_short"


def pause_before_retry(error: GatewayError, history: History, upstreams: int) -> float | None:
    """Seconds to wait before another attempt, or None where there must be none.

    Args:
        error: What ended the last attempt.
        history: All attempts so far, the last included.
        upstreams: How many there are: each may be tried once at no pause.
    """
    if not isinstance(error, UpstreamError) or not error.retryable:
        return None
    if history.attempts >= max(MOST_ATTEMPTS, upstreams):
        return None
    if history.timeouts >= MOST_TIMEOUTS or history.too_short > 1:
        return None
    if history.attempts < upstreams or isinstance(error, TooShort):
        return 0.0
    return FIRST_PAUSE_SECONDS * float(2 ** (history.attempts - upstreams))


def fitted(generation: Generation, upstream: Upstream) -> Generation:
    """The generation with a bound that this upstream's context holds beside the prompt."""
    prompt_tokens = generation.prompt_tokens
    learnt = upstream.prompt_tokens.get(generation.voice or "")
    if learnt is not None:
        prompt_tokens = max(prompt_tokens, learnt + text_tokens(generation.text))
    room = upstream.context_tokens - prompt_tokens
    if generation.max_tokens <= room:
        return generation
    return replace(generation, max_tokens=min(generation.max_tokens, max(LEAST_ROOM_TOKENS, room)))


def voice_at(generation: Generation, upstream: Upstream) -> str | None:
    """The upstream's own name for a generation's voice; None where its prompt decides."""
    voice = generation.voice
    if voice is None:
        fixed = bool(generation.references) or upstream.capabilities.scene
        return None if fixed else next(iter(upstream.aliases.values()), None)
    return voice if voice in upstream.voices else upstream.aliases[voice]


def texts_of(generation: Generation) -> Iterator[str]:
    """All that a generation says to the engine."""
    yield generation.text
    yield generation.system_prompt or ""
    yield from (reference.transcript for reference in generation.references)


@dataclass(slots=True)
class Running:
    """A generation that has produced its first audio; `close` stops it on the upstream."""

    stream: PcmStream
    first: bytes
    lease: Lease
    on_end: Callable[[GatewayError | None], None]

    async def read(self) -> bytes:
        """The next PCM, whole samples; empty only at the end.

        Raises:
            GatewayError: It broke off; no other attempt is made here.
        """
        if self.first:
            first, self.first = self.first, b""
            return first
        try:
            pcm = await self.stream.read()
        except GatewayError as error:
            self.on_end(error)
            raise
        if not pcm:
            self.on_end(None)
        return pcm

    def close(self) -> None:
        """Stop it and give the lease back; idempotent and synchronous."""
        self.stream.close()
        self.lease.close()


@dataclass(frozen=True, slots=True)
class Attempts:
    """Starts generations on the pool.

    Attributes:
        pool: The upstreams.
        client: The process' HTTP client.
        probers: Who hears of failed connections, by upstream.
        model: The configured model name, or None for what the upstream lists first.
        metrics: Where attempts are counted.
        budget: How many may be made again.
        timeouts: Bounds of each attempt; the caller bounds the whole.
    """

    pool: Pool
    client: UpstreamClient
    probers: dict[Upstream, Prober]
    model: str | None
    metrics: Metrics
    budget: RetryBudget
    timeouts: Timeouts

    def __post_init__(self) -> None:
        """Let each scrape ask how much runs where."""
        for upstream in self.pool.upstreams:
            running = partial(getattr, upstream, "in_flight")
            self.metrics.upstream_in_flight.labels(upstream.address).set_function(running)

    async def start(self, generation: Generation, shortest_samples: int) -> Running:
        """Start a generation and wait for its first audio, on another upstream if need be.

        Args:
            generation: What to make.
            shortest_samples: Audio below this is no honest reading of the text.

        Raises:
            GatewayError: The last attempt's failure.
        """
        self.budget.earn()
        scene = generation.system_prompt is not None
        needs = Needs(generation.text, generation.references, scene, whole=True)
        history = History()
        tried: list[Upstream] = []
        while True:
            lease = self.pool.lease(
                generation.voice, tried, generation.model, needs=needs, goes_on=generation.goes_on
            )
            upstream = lease.upstream
            current_record().upstream = upstream.address
            try:
                return await self._attempt(lease, generation, shortest_samples)
            except GatewayError as error:
                failure = error
            try:
                if isinstance(failure, UpstreamRejected):
                    shorter = self._learn(upstream, generation, failure)
                    if shorter is not None and not history.shortened:
                        generation, history.shortened = shorter, True
                        self._note_end(upstream, failure)
                        continue
                tried.append(upstream)
                await self._pause(failure, history, upstream)
            finally:
                del failure  # its traceback leads here: a circle that would keep the recordings

    async def _attempt(
        self, lease: Lease, generation: Generation, shortest_samples: int
    ) -> Running:
        """Bring a generation to its first audio; whatever prevents that closes the lease."""
        stream = None
        try:
            stream = await self._open(lease.upstream, generation)
            first = await stream.read()
            if not first:
                raise UpstreamProtocolError("The upstream answered without audio.")
            first_chunk = generation.chunking.first_chunk_samples
            if len(first) < BYTES_PER_SAMPLE * min(shortest_samples, first_chunk):
                first += await stream.read_end(END_GRACE_SECONDS)
                if stream.ended and len(first) < BYTES_PER_SAMPLE * shortest_samples:
                    raise TooShort("The upstream's audio is far too short for its text.")
        except BaseException:
            if stream is not None:
                stream.close()
            lease.close()
            raise
        on_end = partial(self._note_stream_end, lease.upstream, stream)
        return Running(stream, first, lease, on_end)

    def _learn(
        self, upstream: Upstream, generation: Generation, refusal: UpstreamRejected
    ) -> Generation | None:
        """Log a refusal; where it is for length, note the figures and return what fits.

        A preset's transcript counts in the engine's context, and only the engine knows how long it
        is (docs/contract.md section 2): its first refusal tells.
        """
        figures = context_figures(refusal.sentence)
        if figures is None or generation.voice is None:
            logger.warning(
                "upstream %s refused a request that the gateway composed: %s",
                upstream.address,
                scrub(refusal.sentence, texts_of(generation)) or refusal.message,
            )
            return None
        context_tokens, prompt_tokens = figures
        text_bytes = len(generation.text.encode("utf-8", "surrogatepass"))
        beside = prompt_tokens - text_bytes // MOST_BYTES_A_TOKEN
        upstream.context_tokens = context_tokens
        upstream.prompt_tokens[generation.voice] = max(0, beside)
        room = context_tokens - prompt_tokens
        logger.info(
            "upstream %s takes up to %d of its %d tokens for the prompt of voice %s",
            upstream.address,
            beside,
            context_tokens,
            generation.voice,
        )
        return replace(generation, max_tokens=room) if room >= LEAST_ROOM_TOKENS else None

    def _note_stream_end(
        self, upstream: Upstream, stream: PcmStream, error: GatewayError | None
    ) -> None:
        """Count how a stream ended, and the samples that its engine let wrap around."""
        repair = stream.parser.wraparound
        if repair is not None:
            self.metrics.wrapped_samples.inc("clipped", by=repair.repaired)
            self.metrics.wrapped_samples.inc("left", by=repair.uncertain)
        self._note_end(upstream, error)

    def _note_end(self, upstream: Upstream, error: GatewayError | None) -> None:
        """Count an attempt's end, and tell the prober what it means for the upstream itself."""
        outcome = error.code if error else "ok"
        self.metrics.upstream_requests.inc(upstream.address, outcome)
        if isinstance(error, UpstreamUnreachable):
            self.probers[upstream].eject(error.message)
        elif isinstance(error, UpstreamTimeout):
            self.probers[upstream].suspect()

    def _open(self, upstream: Upstream, generation: Generation) -> Awaitable[PcmStream]:
        generation, timeouts = fitted(generation, upstream), self.timeouts
        model = generation.model or self.model or upstream.models[0]
        voice = voice_at(generation, upstream)
        if voice != generation.voice:
            generation = replace(generation, voice=voice)
        if not upstream.capabilities.streaming:
            # Nothing comes before all of it is made, in real time at the slowest.
            seconds = timeouts.first_audio_seconds + generation.max_tokens / TOKENS_PER_SECOND
            timeouts = replace(timeouts, first_audio_seconds=seconds)
        call = upstream.dialect.call(generation, model)
        return self.client.open(upstream.address, call, timeouts)

    async def _pause(self, error: GatewayError, history: History, upstream: Upstream) -> None:
        """Count a failed attempt; wait before the next one, or raise."""
        history.attempts += 1
        history.timeouts += isinstance(error, UpstreamTimeout)
        history.too_short += isinstance(error, TooShort)
        self._note_end(upstream, error)
        pause = pause_before_retry(error, history, len(self.pool.upstreams))
        try:
            if pause is None or not self.may_repeat(error):
                if isinstance(error, UpstreamUnreachable):
                    raise self.pool.unready("No upstream can be reached.") from error
                raise error
        finally:
            del error  # as in `start`
        await asyncio.sleep(pause)

    def may_repeat(self, error: GatewayError) -> bool:
        """Take a repetition out of the budget and count it; False where there is none left."""
        if not self.budget.spend():
            self.metrics.retry_budget_exhausted.inc()
            return False
        self.metrics.upstream_retries.inc(error.code)
        return True
