"""What one caller may ask for in a minute: requests, and seconds of audio.

A token bucket each, filled evenly and spent at once; audio is reserved by estimate and settled by
what was really made, so that speech that never came is not charged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from gateway.errors import RateLimited

if TYPE_CHECKING:  # the settings know limits, and shall not load the Prometheus client
    from gateway.telemetry.metrics import Metrics

SECONDS_PER_MINUTE = 60.0
ANONYMOUS = "anonymous"  # the one caller of all requests that show no key
Settle = Callable[[float], object]  # called once, with the seconds of audio that were made


@dataclass(frozen=True, slots=True)
class Limits:
    """What a caller may have a minute.

    Attributes:
        requests_per_minute: Speech requests; 0 is no limit, None what everybody has.
        audio_seconds_per_minute: Seconds of audio made; likewise.
    """

    requests_per_minute: float | None = None
    audio_seconds_per_minute: float | None = None

    def over(self, defaults: Limits) -> Limits:
        """These limits, with what everybody has where they say nothing."""
        requests, seconds = self.requests_per_minute, self.audio_seconds_per_minute
        return Limits(
            defaults.requests_per_minute if requests is None else requests,
            defaults.audio_seconds_per_minute if seconds is None else seconds,
        )


NO_LIMITS = Limits()  # of its own


class Bucket:
    """A level that refills evenly up to one minute's worth.

    It may be overdrawn: whatever costs more than a full bucket is let through when it is full, and
    what is owed is waited for before the next.

    Args:
        per_minute: What comes in a minute, and the most that is kept.
        now: The clock, in seconds.
    """

    def __init__(self, per_minute: float, now: Callable[[], float] = time.monotonic) -> None:
        self.capacity = per_minute
        self._now = now
        self._level = per_minute
        self._filled_at = now()

    @property
    def level(self) -> float:
        """What is left now; negative while something is owed."""
        now = self._now()
        gained = (now - self._filled_at) * self.capacity / SECONDS_PER_MINUTE
        self._level, self._filled_at = min(self.capacity, self._level + gained), now
        return self._level

    def wait_seconds(self, amount: float) -> float:
        """Seconds until so much may be taken; 0 when it may be now."""
        missing = min(amount, self.capacity) - self.level
        return max(0.0, missing * SECONDS_PER_MINUTE / self.capacity)

    def take(self, amount: float) -> None:
        """Take it, even beyond what is left; a negative amount is given back."""
        self._level = self.level - amount


class Caller:
    """One caller, with the rest of its limits for the current minute.

    Args:
        name: The key's name, or `anonymous`: from the configuration, never from a client.
        limits: Of this process.
        metrics: Where the use is counted.
        now: The clock, in seconds.

    Attributes:
        requests: The bucket of speech requests, or None without a limit.
        audio: The bucket of seconds of audio, likewise.
    """

    def __init__(
        self, name: str, limits: Limits, metrics: Metrics, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.name, self.limits, self.metrics = name, limits, metrics
        requests, seconds = limits.requests_per_minute, limits.audio_seconds_per_minute
        self.requests = Bucket(requests, now) if requests else None
        self.audio = Bucket(seconds, now) if seconds else None
        named = ("requests", self.requests), ("audio-seconds", self.audio)
        self._limited = [(what, bucket) for what, bucket in named if bucket is not None]

    def charge_request(self) -> None:
        """Let a speech request in.

        Raises:
            RateLimited: There were too many in the last minute.
        """
        if self.requests is not None:
            wait = self.requests.wait_seconds(1)
            self._refuse_for(wait, f"{self.requests.capacity:g} requests a minute")
        self.charge_more_requests(1)

    def charge_more_requests(self, count: int) -> None:
        """Count requests that came as one and are in already, even beyond the limit."""
        if self.requests is not None:
            self.requests.take(count)
        self.metrics.key_requests.inc(self.name, by=count)

    def charge_audio(self, likely_seconds: float) -> Settle:
        """Hold what a text is likely to take, until it is settled with what it took.

        Raises:
            RateLimited: Too much audio was made in the last minute.
        """
        if self.audio is not None:
            wait = self.audio.wait_seconds(likely_seconds)
            self._refuse_for(wait, f"{self.audio.capacity:g} seconds of audio a minute")
            self.audio.take(likely_seconds)
        return partial(self._settle, likely_seconds)

    def _settle(self, likely_seconds: float, made_seconds: float) -> None:
        if self.audio is not None:
            self.audio.take(made_seconds - likely_seconds)
        self.metrics.key_audio_seconds.inc(self.name, by=made_seconds)

    def _refuse_for(self, wait_seconds: float, limit: str) -> None:
        if wait_seconds > 0:
            self.metrics.rejections.inc("rate_limit")
            raise RateLimited(
                f"The limit of {limit} is reached; try again later.",
                retry_after_seconds=wait_seconds,
            )

    def headers(self) -> dict[str, str]:
        """What is left, under OpenAI's names (API reference, "Rate limits in headers")."""
        headers = {}
        for what, bucket in self._limited:
            full_in = bucket.wait_seconds(bucket.capacity)
            headers[f"x-ratelimit-limit-{what}"] = f"{bucket.capacity:g}"
            headers[f"x-ratelimit-remaining-{what}"] = str(max(0, math.floor(bucket.level)))
            headers[f"x-ratelimit-reset-{what}"] = f"{math.ceil(full_in * 1000)}ms"
        return headers


@dataclass(slots=True, eq=False, repr=False)
class Callers:
    """The callers of one process; bounded by the number of configured names.

    Args:
        defaults: What everybody has, all replicas together.
        metrics: Where their use is counted.
        replicas: Gateways that share the limits; each gives its part.
        now: The clock, in seconds.
    """

    defaults: Limits
    metrics: Metrics
    replicas: int = 1
    now: Callable[[], float] = time.monotonic
    _callers: dict[str, tuple[Limits, Caller]] = field(default_factory=dict)

    def get(self, name: str = ANONYMOUS, limits: Limits = NO_LIMITS) -> Caller:
        """The caller of a name; a new one when its limits have changed."""
        of_key, caller = self._callers.get(name, (limits, None))
        if caller is None or of_key != limits:
            whole = limits.over(self.defaults)
            share = Limits(
                (whole.requests_per_minute or 0.0) / self.replicas,
                (whole.audio_seconds_per_minute or 0.0) / self.replicas,
            )
            caller = Caller(name, share, self.metrics, self.now)
            self._callers[name] = limits, caller
        return caller

    def keep(self, names: frozenset[str]) -> None:
        """Forget callers with other names, whose keys are gone; the anonymous one stays."""
        for name in self._callers.keys() - names - {ANONYMOUS}:
            del self._callers[name]


# The caller of the request that the current task serves: it reaches the straight line past the
# surfaces, which need not know of keys, and every task that a request starts inherits it.
CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)


def charge_more_requests(count: int) -> None:
    """`Caller.charge_more_requests` of the current caller."""
    caller = CALLER.get()
    if caller is not None:
        caller.charge_more_requests(count)


def charge_audio(likely_seconds: float) -> Settle:
    """`Caller.charge_audio` of the current caller; no one is charged where there is none.

    Raises:
        RateLimited: Too much audio was made for the caller in the last minute.
    """
    caller = CALLER.get()
    return float if caller is None else caller.charge_audio(likely_seconds)
