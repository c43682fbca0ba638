"""The upstreams, what is known of each, and the choice of one for a generation.

The choice is a pure function over plain state; probes (probes.py) change that state, leases count
what runs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Literal

from gateway.errors import NoHealthyUpstream, UnsupportedByEngine
from gateway.text.tokens import CONTEXT_TOKENS
from gateway.upstream.capabilities import HIGGS, NO_NEEDS, Capabilities, Needs, lacking
from gateway.upstream.detection import may_charge
from gateway.upstream.dialect import Dialect
from gateway.upstream.dialects import split_address
from gateway.upstream.higgs import HiggsDialect

logger = logging.getLogger("gateway.pool")

RETRY_AFTER_SECONDS = 5.0
MOST_FAULTS_TOLD = 3

ProbeSpeech = Literal["private", "always", "never"]


@dataclass(slots=True, eq=False)
class Upstream:
    """One engine address.

    Attributes:
        address: Base address without a trailing slash.
        named: The dialect that the settings name, or None to find out.
        capabilities: What it can do.
        dialect: How it is spoken to.
        may_charge: Its owner may charge for speech: nothing is said there to probe it.
        aliases: What the names that clients use mean there, alias to voice.
        in_flight: Leases that run.
        spoken: A warm-up has produced audio at least once.
        healthy: Spoken, and neither a probe nor a connection has failed since.
        suspect: A generation hung; the next probe must be a warm-up again.
        probing: A warm-up runs: the one request that tries an ejected upstream.
        failures: Since it was last well for a while; they stretch the pause before a probe.
        next_probe: `time.monotonic()` of the next one.
        fault: Why it is not ready, in a sentence for operators and clients; None while it is.
        models: Ids that it lists.
        voices: Presets that it lists.
        context_tokens: Its max_model_len, read whenever it comes or comes back.
        prompt_tokens: Tokens that a voice's prompt took beside the text when the engine last
            refused a request for its length, by voice.
        draining: An operator keeps new generations away; what runs goes on.
    """

    address: str
    named: str | None = None
    capabilities: Capabilities = HIGGS
    dialect: Dialect = field(default_factory=HiggsDialect, repr=False)
    may_charge: bool = False
    aliases: dict[str, str] = field(default_factory=dict)
    in_flight: int = 0
    spoken: bool = False
    healthy: bool = False
    suspect: bool = False
    probing: bool = False
    failures: int = 0
    next_probe: float = 0.0
    fault: str | None = "The upstream has not answered yet."
    models: tuple[str, ...] = ()
    voices: tuple[str, ...] = ()
    context_tokens: int = CONTEXT_TOKENS
    prompt_tokens: dict[str, int] = field(default_factory=dict)
    draining: bool = False

    @property
    def state(self) -> str:
        """In one word: starting, ready, ejected, half_open or draining."""
        if self.draining:
            return "draining"
        if self.healthy:
            return "ready"
        if not self.spoken:
            return "starting"
        return "half_open" if self.probing else "ejected"


def has(upstream: Upstream, voice: str | None, model: str | None) -> bool:
    """Whether an upstream has a voice and a model: it would answer others with its own."""
    return (voice is None or voice in upstream.voices or voice in upstream.aliases) and (
        model is None or model in upstream.models
    )


def can_serve(upstream: Upstream, voice: str | None, model: str | None, needs: Needs) -> bool:
    """Whether an upstream has a voice and a model, and lacks nothing that is needed.

    It would leave out what it does not know.
    """
    return has(upstream, voice, model) and lacking(upstream.capabilities, needs) is None


def choose(
    upstreams: Sequence[Upstream],
    voice: str | None,
    avoid: Collection[Upstream] = (),
    model: str | None = None,
    *,
    needs: Needs = NO_NEEDS,
    goes_on: bool = False,
) -> Upstream | None:
    """The upstream for the next attempt, or None where none has ever spoken.

    Healthy ones that were not tried come first, least in flight first, in the order of the
    settings; those in doubt come after those that are not. When none is healthy, all that have ever
    spoken stand in: a pool that is all ejected is more likely a wrong probe than a dead fleet
    (Envoy's panic rule). Upstreams that do not list the voice are passed over: they would answer
    with another voice and say nothing; so are those that do not list the model. One that an
    operator drains gets nothing new; only what goes on with an answer that has begun may go there,
    when no other healthy one can do it.
    """
    able = [
        u
        for u in upstreams
        if u.spoken and (goes_on or not u.draining) and can_serve(u, voice, model, needs)
    ]
    if len(able) == 1:
        return able[0]
    return min(
        able,
        key=lambda u: (
            not u.healthy,
            u.draining,
            u in avoid,
            u.suspect,
            u.in_flight >= (u.capabilities.concurrency or math.inf),
            u.in_flight,
        ),
        default=None,
    )


@lru_cache(maxsize=16)  # what upstreams list changes with their probes, not with requests
def _each_once(lists: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(lists)))


class Lease:
    """One generation, counted on its upstream until it is closed.

    Args:
        upstream: Where it runs.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self._held = True
        upstream.in_flight += 1

    def close(self) -> None:
        """Count it no more; idempotent and synchronous."""
        if self._held:
            self._held = False
            self.upstream.in_flight -= 1


class Pool:
    """All upstreams.

    Args:
        addresses: Base addresses, each with its dialect's name before it or without.
        probe_speech: Where probes may speak: at `private` addresses, `always` or `never`.
    """

    def __init__(self, addresses: Sequence[str], probe_speech: ProbeSpeech = "private") -> None:
        self.upstreams = tuple(
            Upstream(
                address,
                named=named,
                may_charge=probe_speech == "never"
                or (probe_speech == "private" and may_charge(address)),
            )
            for named, address in map(split_address, addresses)
        )
        self._spoken: Sequence[Upstream] = ()

    @property
    def ready(self) -> bool:
        """Whether an upstream has produced audio and is still well."""
        return any(u.healthy and not u.draining for u in self.upstreams)

    @property
    def spoken(self) -> Sequence[Upstream]:
        """Those that have spoken, which is for good: not looked for once they are all."""
        if len(self._spoken) < len(self.upstreams):
            self._spoken = [upstream for upstream in self.upstreams if upstream.spoken]
        return self._spoken

    @property
    def voices(self) -> tuple[str, ...]:
        """Presets that an upstream lists, each once, however that upstream does at the moment.

        A voice that only an ejected one has is answered 503, which clients try again, not 404.
        """
        return _each_once(tuple([upstream.voices for upstream in self.spoken]))

    @property
    def models(self) -> tuple[str, ...]:
        """Models that an upstream lists, each once, however that upstream does at the moment."""
        return _each_once(tuple([upstream.models for upstream in self.spoken]))

    @property
    def faults(self) -> tuple[str, ...]:
        """Why upstreams are not ready, each sentence once."""
        return tuple(dict.fromkeys(u.fault for u in self.upstreams if u.fault))

    def context_tokens(self, voice: str | None, model: str | None) -> int:
        """The smallest context of the upstreams that can serve this voice and model."""
        contexts = [u.context_tokens for u in self.spoken if has(u, voice, model)]
        return min(contexts, default=CONTEXT_TOKENS)

    def require_able(self, needs: Needs) -> None:
        """Raise UnsupportedByEngine where no upstream that has spoken can do what is needed."""
        lacks = [lacking(u.capabilities, needs) for u in self.spoken]
        if lacks and all(lacks):
            raise UnsupportedByEngine(f"No engine at hand {lacks[0]}.")

    @property
    def scripts(self) -> frozenset[str] | None:
        """The scripts that the engines at hand can say; None where one of them tells none."""
        told = [u.capabilities.scripts for u in self.spoken]
        if not told or None in told:
            return None
        return frozenset().union(*(scripts for scripts in told if scripts is not None))

    def able(self, voice: str | None, model: str | None, needs: Needs) -> bool:
        """Whether an upstream can do this: one that is well, unless none is well at all."""
        well = [u for u in self.spoken if u.healthy and not u.draining] or self.spoken
        return any(can_serve(u, voice, model, needs) for u in well)

    def keeps_preset_in_scene(self, voice: str | None, model: str | None, needs: Needs) -> bool:
        """Whether a preset keeps its voice beside a scene on all upstreams that can do this."""
        able = [u for u in self.spoken if can_serve(u, voice, model, needs)]
        return bool(able) and all(u.capabilities.preset_in_scene for u in able)

    def knows_everywhere(self, voice: str) -> bool:
        """Whether every upstream that has ever spoken lists this voice."""
        return all(voice in upstream.voices for upstream in self.spoken)

    def unready(self, what: str) -> NoHealthyUpstream:
        """The refusal of a request that no upstream can take, with what is known of the cause."""
        sentences = " ".join((what, *self.faults[:MOST_FAULTS_TOLD]))
        return NoHealthyUpstream(sentences, retry_after_seconds=RETRY_AFTER_SECONDS)

    def require_ready(self) -> None:
        """Raise NoHealthyUpstream before any upstream has ever spoken, or while all are drained."""
        for upstream in self.spoken:
            if not upstream.draining:
                return
        if not self.spoken:
            raise self.unready("No upstream is ready yet.")
        raise NoHealthyUpstream(
            "All upstreams are being drained.", retry_after_seconds=RETRY_AFTER_SECONDS
        )

    def find(self, address: str) -> Upstream | None:
        """The upstream of an address, written as in the settings or with a slash more."""
        wanted = address.rstrip("/")
        return next((u for u in self.upstreams if u.address == wanted), None)

    def drain(self, upstream: Upstream, *, drain: bool) -> None:
        """Keep new generations away from an upstream, or let them come again."""
        if upstream.draining != drain:
            upstream.draining = drain
            logger.info("upstream %s %s", upstream.address, "drains" if drain else "takes part")

    def lease(
        self,
        voice: str | None,
        avoid: Collection[Upstream] = (),
        model: str | None = None,
        *,
        needs: Needs = NO_NEEDS,
        goes_on: bool = False,
    ) -> Lease:
        """Choose an upstream, and count a generation on it until the lease is closed.

        Raises:
            NoHealthyUpstream: None has ever spoken, or none that may be asked has the voice.
        """
        upstream = choose(self.upstreams, voice, avoid, model, needs=needs, goes_on=goes_on)
        if upstream is None:
            self.require_ready()
            self.require_able(needs)
            raise self.unready("No upstream has this voice and model at the moment.")
        return Lease(upstream)
