"""The engine's own figures: what the container would say, and nothing that nobody knows."""

from __future__ import annotations

import shutil
import subprocess

import httpx
import pytest

from engines.server.metrics import Counters
from engines.simulator.voice import MODEL_ID
from loadtest.processes import running_engine, wait_until

CACHE = "vllm:gpu_cache_usage_perc"


def sample(exposition: str, name: str) -> float | None:
    """A sample without labels of its own."""
    for line in exposition.splitlines():
        if line.startswith(name + "{"):
            return float(line.rsplit(" ", 1)[1])
    return None


def exposition(cache_usage: float | None) -> str:
    """What an engine tells that has nothing to do."""
    counters = Counters()
    counters.observe_first_token(0.03)
    return counters.exposition("m", running=0, waiting=0, tokens=0, cache_usage=cache_usage)


def test_a_voice_without_a_cache_tells_no_usage_of_it() -> None:
    """A zero would look like an idle card."""
    assert CACHE not in exposition(None)
    assert sample(exposition(0.0), CACHE) == 0


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")
def test_prometheus_can_read_it() -> None:
    """The format, and histograms that add up; the names are the container's, not ours."""
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=exposition(0.5),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 3}, done.stderr  # 3: remarks on names


def test_the_simulators_cache_fills_with_its_streams() -> None:
    """One stream of four that may run is a quarter; when its client has left, nothing is taken."""
    with running_engine(
        *("--voice", "simulated", "--max-running", "4", "--tokens-per-second", "5")
    ) as engine:

        def usage() -> float | None:
            return sample(httpx.get(engine.address + "/metrics", timeout=5).text, CACHE)

        assert usage() == 0
        body = {"model": MODEL_ID, "voice": "vex", "input": "A sentence that takes its time."}
        speech = engine.address + "/v1/audio/speech"
        with httpx.stream("POST", speech, json=body, timeout=120) as answer:
            assert answer.status_code == 200
            wait_until(lambda: usage() == 0.25, "a quarter is taken")
        wait_until(lambda: usage() == 0, "nothing is taken")
