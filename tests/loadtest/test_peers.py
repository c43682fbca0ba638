"""The comparison of proxies: what it counts is what was sent, and its table names every peer."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import uvloop

from loadtest.peers.__main__ import SCENARIOS, Sample, measure, table
from loadtest.peers.load import load
from loadtest.peers.proxies import PEERS, Running, start_stub
from loadtest.processes import free_port

AUDIO_BYTES = 4 * 48_000


@pytest.fixture(scope="module")
def engine() -> int:
    """The port of a stub."""
    return free_port()


@pytest.mark.parametrize("name", ["direct", "bare ASGI relay", "gateway, wav"])
def test_every_answer_is_counted_whole(engine: int, name: str) -> None:
    """All bytes of all answers, the header and the chunks' framing included."""
    peer = next(peer for peer in PEERS if peer.name == name)
    with ExitStack() as stack:
        start_stub(engine)(stack)
        running: Running = peer.start(engine, stack)
        result = uvloop.run(load(running.port, peer.body(), 4, 20))
        sample = measure(peer, running, 2, 10)
    assert (result.failed, sample.failed) == (0, 0)
    assert len(result.first_byte_seconds) == 20
    assert 20 * AUDIO_BYTES < result.body_bytes < 20 * (AUDIO_BYTES + 1024)
    assert sample.cpu_ms == 0 or name != "direct"  # counted in ticks: a few requests may take none


def test_the_table_tells_ratios_to_nginx_and_to_the_bare_relay() -> None:
    """Medians; what was not measured is a dash."""
    levels = SCENARIOS[0].requests
    samples = {
        (name, level): [Sample(cpu, (1.0, 2.0), 0)] * 3
        for name, cpu in (("direct", 0.0), ("nginx, unbuffered", 0.5), ("gateway, wav", 1.5))
        for level in levels
    }
    text = table(
        SCENARIOS[0], samples, dict.fromkeys(("direct", "nginx, unbuffered", "gateway, wav"), 9.0)
    )
    row = next(line for line in text.splitlines() if line.startswith("| gateway, wav"))
    assert row.split(" | ")[1:7] == ["1.50", "1.50", "1.50", "3.00", "-", "0.375"]
