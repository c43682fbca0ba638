"""The upstreams, what is known of each, and the choice of one for a generation.

The choice is a pure function over plain state; probes (health.py) change that state, leases count
what runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateway.errors import NoHealthyUpstream

RETRY_AFTER_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class Upstream:
    """One engine address.

    Attributes:
        address: Base address without a trailing slash.
        in_flight: Leases that run.
        spoken: A warm-up has produced audio at least once.
        healthy: Spoken, and neither a probe nor a connection has failed since.
        suspect: A generation hung; the next probe must be a warm-up again.
        models: Ids that it lists.
        voices: Presets that it lists.
        context_tokens: Its max_model_len.
    """

    address: str
    in_flight: int = 0
    spoken: bool = False
    healthy: bool = False
    suspect: bool = False
    models: tuple[str, ...] = ()
    voices: tuple[str, ...] = ()
    context_tokens: int = field(default=8192)


def choose(
    upstreams: Sequence[Upstream], voice: str | None, avoid: Collection[Upstream] = ()
) -> Upstream | None:
    """The upstream for the next attempt, or None where none has ever spoken.

    Healthy ones that were not tried come first, least in flight first, in the order of the
    settings. When none is healthy, all that have ever spoken stand in: a pool that is all ejected
    is more likely a wrong probe than a dead fleet (Envoy's panic rule). Upstreams that do not list
    the voice are passed over: they would answer with another voice and say nothing.
    """
    able = [u for u in upstreams if u.spoken and (voice is None or voice in u.voices)]
    for candidates in (
        [u for u in able if u.healthy and u not in avoid],
        [u for u in able if u.healthy],
        [u for u in able if u not in avoid],
        able,
    ):
        if candidates:
            return min(candidates, key=lambda upstream: upstream.in_flight)
    return None


class Pool:
    """All upstreams of one worker process."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.upstreams = tuple(Upstream(address) for address in addresses)

    def __repr__(self) -> str:
        """State, for tests and logs."""
        states = ", ".join(
            f"{u.address} {'healthy' if u.healthy else 'ejected' if u.spoken else 'starting'}"
            f" {u.in_flight}"
            for u in self.upstreams
        )
        return f"<Pool {states}>"

    @property
    def ready(self) -> bool:
        """Whether an upstream has produced audio and is still well."""
        return any(upstream.healthy for upstream in self.upstreams)

    def _known(self) -> list[Upstream]:
        """Upstreams whose lists count: the healthy ones, or in a panic all that have spoken."""
        spoken = [upstream for upstream in self.upstreams if upstream.spoken]
        return [upstream for upstream in spoken if upstream.healthy] or spoken

    @property
    def voices(self) -> tuple[str, ...]:
        """Presets that an upstream lists, each once."""
        return tuple(dict.fromkeys(v for upstream in self._known() for v in upstream.voices))

    @property
    def models(self) -> tuple[str, ...]:
        """Models that an upstream lists, each once."""
        return tuple(dict.fromkeys(m for upstream in self._known() for m in upstream.models))

    def require_ready(self) -> None:
        """Raise NoHealthyUpstream before any upstream has ever spoken."""
        if not any(upstream.spoken for upstream in self.upstreams):
            raise NoHealthyUpstream(
                "No upstream is ready yet; the engine may still be loading its model.",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )

    @contextmanager
    def lease(self, voice: str | None, avoid: Collection[Upstream] = ()) -> Iterator[Upstream]:
        """Choose an upstream and count the generation on it until the block ends.

        Raises:
            NoHealthyUpstream: None has ever spoken.
        """
        upstream = choose(self.upstreams, voice, avoid)
        if upstream is None:
            self.require_ready()
            raise NoHealthyUpstream(
                "No upstream has this voice at the moment.",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        upstream.in_flight += 1
        try:
            yield upstream
        finally:
            upstream.in_flight -= 1
