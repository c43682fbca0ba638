"""A pool of unlike engines: each kind of request lands where it can be served."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from loadtest.processes import engine_state
from tests.running import Gateway, running_engine, running_gateway, wait_until
from tests.upstream.speech_servers import SpeechServer, running_server
from tests.voices.recordings import tone, wav

RECORDING = base64.b64encode(wav(tone(4.0, 24_000))).decode()
PLAIN: dict[str, Any] = {"input": "Hello there, how are you?", "voice": "alloy"}
KINDS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "dialogue": {"input": "[SPEAKER0] Good morning.\n[SPEAKER1] And to you.", "voice": "alloy"},
    "scene": {**PLAIN, "instructions": "Whispered."},
    "clone": {"input": "This is me.", "reference_audio_base64": RECORDING, "voice": "alloy"},
    "cyrillic": {"input": "Доброе утро, как ваши дела сегодня вечером?", "voice": "alloy"},
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
        return httpx.post(self.gateway.url + "/v1/audio/speech", json=body, timeout=60)

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


def test_each_kind_lands_where_it_can_be_served(mixed: Mixed) -> None:
    """Higgs takes all; the others what they can."""
    for kind in KINDS:
        places = landed(mixed, kind)
        allowed = {
            "plain": {mixed.higgs, mixed.kokoro, mixed.cpu},
            "cyrillic": {mixed.higgs},
            "preset": {mixed.higgs, mixed.cpu},
            "its own voice": {mixed.kokoro},
        }.get(kind, {mixed.higgs, mixed.cpu})
        assert places, kind
        assert places <= allowed, kind
    assert all("SPEAKER" not in body["input"] for body in mixed.server.asked)
    assert engine_state(mixed.higgs)["requests_total"] > 0


def test_without_higgs_the_others_do_what_they_can(mixed: Mixed) -> None:
    """The CPU voice takes scenes and dialogues; what nobody speaks is no audio."""
    mixed.kill(mixed.higgs)
    for kind in ("plain", "dialogue", "scene", "clone", "preset", "its own voice"):
        assert mixed.higgs not in landed(mixed, kind)
    assert mixed.ask("cyrillic").status_code == 503


def test_without_the_openai_server_its_voices_wait(mixed: Mixed) -> None:
    """A voice that it alone has is 503, which clients try again; all else goes on."""
    mixed.kill(mixed.kokoro)
    for kind in ("plain", "dialogue", "scene", "clone", "preset", "cyrillic"):
        assert mixed.kokoro not in landed(mixed, kind)
    assert mixed.ask("its own voice").status_code == 503


def test_with_the_openai_server_alone_a_dialogue_is_said_turn_by_turn(mixed: Mixed) -> None:
    """Scenes and recordings are 503: engines that take them are known, and may come back."""
    mixed.kill(mixed.higgs)
    mixed.kill(mixed.cpu)
    assert landed(mixed, "plain") == {mixed.kokoro}
    assert landed(mixed, "dialogue") == {mixed.kokoro}
    assert {body["input"] for body in mixed.server.asked} >= {"Good morning.", "And to you."}
    for kind in ("scene", "clone", "cyrillic", "preset"):
        assert mixed.ask(kind).status_code == 503, kind
