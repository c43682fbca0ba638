"""A pool of unlike engines: each kind of request lands where it can be served."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.running import Gateway, running_engine, running_gateway, wait_until
from tests.upstream.speech_servers import SpeechServer, running_server
from tests.voices.recordings import tone, wav

RECORDING = base64.b64encode(wav(tone(4.0, 24_000))).decode()
PLAIN: dict[str, Any] = {"model": "tts-1", "input": "Hello there, how are you?", "voice": "alloy"}
KINDS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "dialogue": {
        "model": "tts-1",
        "input": "[SPEAKER0] Good morning.\n[SPEAKER1] And to you.",
        "voice": "alloy",
    },
    "scene": {**PLAIN, "instructions": "Whispered."},
    "clone": {
        "model": "tts-1",
        "input": "This is me.",
        "reference_audio_base64": RECORDING,
        "voice": "alloy",
    },
    "cyrillic": {
        "model": "tts-1",
        "input": "Доброе утро, как ваши дела сегодня вечером?",
        "voice": "alloy",
    },
    "preset": {**PLAIN, "voice": "belinda"},
    "its own voice": {**PLAIN, "voice": "two"},
}


@dataclass(frozen=True, slots=True)
class Mixed:
    """The gateway and its engines: a simulated Higgs, a Kokoro-like server and the CPU voice."""

    gateway: Gateway
    higgs: str
    kokoro: str
    server: SpeechServer
    cpu: str
    ends: dict[str, ExitStack]

    def ask(self, kind: str, **fields: Any) -> httpx.Response:
        """One request of a kind, as raw samples."""
        body = {"model": "tts-1", "response_format": "pcm", **KINDS[kind], **fields}
        return httpx.post(self.gateway.url + "/v1/audio/speech", json=body, timeout=120)

    def kill(self, address: str) -> None:
        """End an engine, and wait until the gateway knows."""
        self.ends[address].close()
        upstream = self.gateway.runtime.pool.find(address)
        assert upstream is not None
        wait_until(lambda: not upstream.healthy, "the gateway knows")


@pytest.fixture
def mixed() -> Iterator[Mixed]:
    """All three, ready."""
    with ExitStack() as whole:
        ends = [whole.enter_context(ExitStack()) for _ in range(3)]
        arguments = ("--voice", "simulated", "--tokens-per-second", "5000")
        higgs = ends[0].enter_context(running_engine(*arguments)).address
        kokoro, server = ends[1].enter_context(running_server("kokoro"))
        cpu = ends[2].enter_context(running_engine("--voice", "cpu")).address
        gateway = whole.enter_context(running_gateway(upstreams=f"{higgs},{kokoro},{cpu}"))
        pool = gateway.runtime.pool
        wait_until(lambda: all(u.healthy for u in pool.upstreams), "all are ready")
        names = dict(zip((higgs, kokoro, cpu), ends, strict=True))
        yield Mixed(gateway, higgs, kokoro, server, cpu, names)


def landed(mixed: Mixed, kind: str) -> set[str]:
    """Where three requests of a kind were served."""
    counts = {
        u.address: mixed.gateway.metric(
            "gateway_upstream_requests_total", upstream=u.address, outcome="ok"
        )
        for u in mixed.gateway.runtime.pool.upstreams
    }
    for _ in range(3):
        answer = mixed.ask(kind)
        assert answer.status_code == 200, (kind, answer.text)
        assert len(answer.content) > 4_800
    return {
        address
        for address, count in counts.items()
        if mixed.gateway.metric("gateway_upstream_requests_total", upstream=address, outcome="ok")
        > count
    }


# Which of the three can serve a kind. A dialogue is said turn by turn where nothing else is left.
ABLE = {
    "plain": ("higgs", "kokoro", "cpu"),
    "dialogue": ("higgs", "cpu"),
    "scene": ("higgs", "cpu"),
    "clone": ("higgs", "cpu"),
    "cyrillic": ("higgs",),
    "preset": ("higgs", "cpu"),
    "its own voice": ("kokoro",),
}
ENGINES = ("higgs", "kokoro", "cpu")


# One after the other is killed: together the orders leave every set of the three.
@pytest.mark.parametrize("order", [("higgs", "kokoro", "cpu"), ("kokoro", "cpu"), ("cpu", "higgs")])
def test_each_kind_lands_where_it_can_be_served_or_waits(
    mixed: Mixed, order: tuple[str, ...]
) -> None:
    """Whoever is killed: what the others can do goes on, and the rest is 503 with the reason.

    All three are known, and each may come back: what none that is left can do is no 400.
    """
    addresses = {name: getattr(mixed, name) for name in ENGINES}
    if order[0] == "higgs":
        check_kinds(mixed, addresses, set())
    for number, name in enumerate(order, 1):
        mixed.kill(addresses[name])
        check_kinds(mixed, addresses, set(order[:number]))


def check_kinds(mixed: Mixed, addresses: dict[str, str], dead: set[str]) -> None:
    """Ask for each kind once more, when some engines are dead."""
    mixed.server.asked.clear()
    turn_by_turn = dead == {"higgs", "cpu"}
    for kind, able in ABLE.items():
        left = set(able) - dead or ({"kokoro"} if turn_by_turn and kind == "dialogue" else set())
        if left:
            assert landed(mixed, kind) <= {addresses[name] for name in left}, (dead, kind)
            continue
        answer = mixed.ask(kind)
        assert answer.status_code == 503, (dead, kind, answer.text)
        assert "upstream" in answer.json()["error"]["message"], answer.text
        assert int(answer.headers["Retry-After"]) > 0
    said = {body["input"] for body in mixed.server.asked}
    assert all("SPEAKER" not in text for text in said)
    assert ("Good morning." in said and "And to you." in said) is turn_by_turn
