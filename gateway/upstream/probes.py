"""Probes: an upstream is healthy once a warm-up has produced audio and while it answers.

A live `/health` is not enough: the container answers it while its engine hangs, and its first
generation blocks it for seconds (docs/contract.md sections 1, 6).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

from gateway.errors import (
    GatewayError,
    QueueFull,
    ShuttingDown,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from gateway.upstream.client import Timeouts, UpstreamClient
from gateway.upstream.dialect import PROFILES, Generation, Sampling
from gateway.upstream.discovery import PROBE_SECONDS, Discovery
from gateway.upstream.pool import Upstream

logger = logging.getLogger("gateway.health")

WARM_UP_TEXT = "Hello there."
WARM_UP_TOKENS = 80
# The first generation blocks the container for 2 to 5 s, 56 s without a numba cache (section 6).
WARM_UP_SECONDS = 120.0
RECHECK_SECONDS = 15.0  # a warm-up on an engine that has spoken before
FIRST_PAUSE_SECONDS = 0.1
LISTS_EVERY_PROBES = 6  # voices and models change rarely
# An engine that `serve` starts itself listens within two seconds: so many failures, the pauses
# between which double from 0.1 s, are no news.
FAILURES_OF_A_START = 6
LOADING = "The upstream answers, but has made no audio yet: its model may still be loading."
STEADY_PROBES = 3  # so many good ones in a row, and earlier failures are forgotten


def pause_before_probe(failures: int, interval_seconds: float, chance: float) -> float:
    """Seconds before an upstream that failed so often in a row is tried again.

    They double from 0.1 s up to the interval; the chance (0 to 1) moves them by a fifth either
    way, so that the probes of many gateways do not coincide.
    """
    pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 16), interval_seconds)
    return pause * (0.8 + 0.4 * chance)


class Slots(Protocol):
    """What bounds generations."""

    async def acquire(self, *, first: bool) -> float:
        """Take a slot; `first` goes to the head of the line."""

    def release(self) -> None:
        """Give it back."""


@dataclass(slots=True, eq=False, repr=False)
class Prober:
    """Keeps the state of one upstream true.

    Attributes:
        upstream: The state that it changes.
        client: The process' HTTP client.
        model: The configured model name, or None for what the upstream lists first.
        admission: Warm-ups use a slot like any generation.
        interval_seconds: Pause between probes of a healthy upstream, and the longest one else.
        aliases: From the settings: names that clients use, alias to voice.
        changed: Called with the health whenever it changes.
    """

    upstream: Upstream
    client: UpstreamClient
    model: str | None
    admission: Slots
    interval_seconds: float
    aliases: Mapping[str, str]
    changed: Callable[[bool], None]
    _discovery: Discovery = field(init=False)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _probes: int = 0
    _steady: int = 0
    _told: str | None = None  # the fault that the log has told last

    def __post_init__(self) -> None:
        """Ask the same upstream what it is."""
        self._discovery = Discovery(self.upstream, self.client, self.aliases)

    def __repr__(self) -> str:
        """State, for tests and logs."""
        upstream = self.upstream
        return f"<Prober {upstream.address} {upstream.state}, {upstream.failures} failures>"

    def eject(self, reason: str) -> None:
        """Take the upstream out until a warm-up has spoken again.

        All that ran on it fails at once: only the first failure counts, or the pause before the
        first probe would be the longest one.
        """
        if self.upstream.healthy:
            self.upstream.healthy = False
            self.upstream.fault = reason
            self.upstream.failures += 1
            self._steady = 0
            self.changed(False)
            self._told = reason
            logger.warning("upstream %s ejected: %s", self.upstream.address, reason)
            self._wake.set()

    def _fail(self, reason: str) -> None:
        """Note a failed probe; log its reason once, unless the engine is still starting."""
        upstream = self.upstream
        if upstream.healthy:
            self.eject(reason)
            return
        upstream.failures += 1
        upstream.fault = reason
        starting = not upstream.spoken and upstream.failures < FAILURES_OF_A_START
        if reason != self._told and not starting:
            self._told = reason
            logger.warning("upstream %s is not ready: %s", upstream.address, reason)

    def suspect(self) -> None:
        """A generation hung: look closer at once."""
        self.upstream.suspect = True
        self._wake.set()

    async def run(self) -> None:
        """Probe until cancelled."""
        upstream = self.upstream
        while True:
            try:
                await self.probe()
            except Exception:
                logger.exception("probe of %s failed in an unforeseen way", upstream.address)
                self._fail("its probe failed in an unforeseen way")
            # A failure that a generation meets ends the pause between two good probes.
            if upstream.healthy and not await self._woken(self.interval_seconds):
                continue
            if not upstream.healthy:
                # Nothing shortens this pause: it is what keeps a sick engine from being knocked on.
                await asyncio.sleep(self._plan_next(self._pause()))

    def _pause(self) -> float:
        chance = random.random()  # noqa: S311  (spreads probes, no secret)
        return pause_before_probe(self.upstream.failures, self.interval_seconds, chance)

    def _plan_next(self, seconds: float) -> float:
        self.upstream.next_probe = time.monotonic() + seconds
        return seconds

    async def _woken(self, seconds: float) -> bool:
        """Wait so long, or until a failure is reported; whether one was."""
        self._plan_next(seconds)
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        finally:
            self._wake.clear()
        return True

    async def probe(self) -> None:
        """Ask once and note what was learnt; never raises a GatewayError."""
        upstream = self.upstream
        try:
            if upstream.healthy and not upstream.suspect:
                self._probes += 1
                if self._discovery.server is not None or self._probes % LISTS_EVERY_PROBES == 0:
                    await self._discovery.refresh_lists()
                else:
                    await self.client.get(upstream.address, "/health", PROBE_SECONDS)
                self._steady += 1
                if self._steady >= STEADY_PROBES:
                    upstream.failures = 0
            else:
                await self._try_again()
        except (QueueFull, ShuttingDown):
            return  # the gateway is busy, or ends: that says nothing about the upstream
        except GatewayError as error:
            works = upstream.healthy and upstream.in_flight and not upstream.suspect
            if isinstance(error, UpstreamTimeout) and self._discovery.server is not None and works:
                return  # many of these servers answer nothing else while they make audio
            logger.debug("probe of %s failed: %s", upstream.address, error.message)
            self._fail(error.message)

    async def _try_again(self) -> None:
        """Half open: one warm-up decides whether others may come."""
        upstream = self.upstream
        upstream.probing = True
        try:
            await self._discovery.identify()
            await self._discovery.refresh_lists()
            if not upstream.spoken:
                upstream.fault = LOADING
            if not upstream.may_charge:
                await self._warm_up()
        finally:
            upstream.probing = False
        upstream.suspect = False
        upstream.spoken = True
        upstream.fault = self._told = None
        if not upstream.healthy:
            upstream.healthy = True
            self.changed(True)
            languages = ", ".join(upstream.capabilities.languages or ("as its model has them",))
            logger.info(
                "upstream %s is ready: %s, languages: %s",
                *(upstream.address, upstream.capabilities.engine, languages),
            )

    async def _warm_up(self) -> None:
        upstream = self.upstream
        generation = Generation(
            text=WARM_UP_TEXT,
            voice=upstream.voices[0],
            system_prompt=None,
            references=(),
            sampling=Sampling(),
            max_tokens=WARM_UP_TOKENS,
            chunking=PROFILES["standard"],
        )
        call = upstream.dialect.call(generation, self.model or upstream.models[0])
        patience = RECHECK_SECONDS if upstream.spoken else WARM_UP_SECONDS
        timeouts = Timeouts(PROBE_SECONDS, patience, patience)
        # At the front: in an overload the queue would refuse the one request that brings relief.
        await self.admission.acquire(first=True)
        try:
            with closing(await self.client.open(upstream.address, call, timeouts)) as stream:
                if not await stream.read():
                    raise UpstreamProtocolError("The upstream made no audio.")
                while await stream.read():
                    pass
        except UpstreamTimeout as error:
            if upstream.spoken:
                raise
            raise UpstreamTimeout(LOADING) from error
        finally:
            self.admission.release()
