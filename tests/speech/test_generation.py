"""A generation under watch by itself: what its end is taken for, and when it leaves the GPU."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

import pytest

from engines.simulator.waveform import expected_pcm
from gateway.settings import load_settings
from gateway.speech.generation import WatchedGeneration
from gateway.speech.prepare import prepare
from gateway.speech.request import SpeechRequest
from gateway.telemetry.metrics import Metrics
from gateway.text.spoken_text import read_text
from gateway.upstream.client import PcmStream
from gateway.upstream.pool import Lease, Upstream
from gateway.upstream.retry import Running

TEXT = "Hello there, old friend."
REQUEST = SpeechRequest("openai", read_text(TEXT, 100), "pcm", "mabel", "mabel")
PCM = expected_pcm(TEXT, "mabel", 50)
SAMPLES = len(PCM) // 2


class Stream:
    """An upstream's PCM in pieces."""

    def close(self) -> None:
        """Nothing runs."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    async def read(self) -> bytes:
        """The next piece; empty at the end."""
        return self._pieces.pop(0) if self._pieces else b""


def watched(
    pieces: list[bytes], longest_samples: int, *, bounded: bool = False
) -> tuple[WatchedGeneration, Upstream, Metrics]:
    """A generation of these pieces, the upstream that it runs on, and its counters."""
    upstream = Upstream("http://127.0.0.1:1")
    running = Running(cast("PcmStream", Stream(pieces)), b"", Lease(upstream), lambda _: None)
    plan = replace(
        prepare(REQUEST, load_settings()).plan(TEXT),
        longest_samples=longest_samples,
        shortest_samples=0,
        bounded_by_client=bounded,
    )
    metrics = Metrics()
    return WatchedGeneration(running, plan, metrics), upstream, metrics


def runaways(metrics: Metrics) -> float:
    """Those that were ended as too long."""
    value = metrics.registry.get_sample_value("gateway_runaway_total", {"reason": "too_long"})
    return value or 0.0


def test_a_runaway_leaves_the_gpu_before_its_last_audio_is_passed_on() -> None:
    """A client may take minutes over what it has; the engine must not work on meanwhile."""
    generation, upstream, metrics = watched([PCM, PCM, PCM], SAMPLES + 1000)

    async def read() -> None:
        assert await generation.read() == PCM
        assert upstream.in_flight == 1
        last = await generation.read()
        assert len(last) == 2000
        assert upstream.in_flight == 0
        assert await generation.read() == b""

    asyncio.run(read())
    assert runaways(metrics) == 1


@pytest.mark.parametrize(
    ("longest_samples", "bounded", "count"),
    [(SAMPLES, False, 1), (SAMPLES + 960, False, 1), (SAMPLES + 961, False, 0), (SAMPLES, True, 0)],
)
def test_audio_that_ends_at_its_bound_has_run_away(
    longest_samples: int, count: int, *, bounded: bool
) -> None:
    """The engine itself stops at max_tokens, and says nothing; a client's own bound is none."""
    generation, upstream, metrics = watched([PCM], longest_samples, bounded=bounded)

    async def read() -> bytes:
        heard = b""
        while pcm := await generation.read():
            heard += pcm
        return heard

    assert len(asyncio.run(read())) == len(PCM)
    assert upstream.in_flight == 0
    assert runaways(metrics) == count
