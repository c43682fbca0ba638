"""The network between gateway and engine goes silent: no packet, no reset, no end.

All of it runs in a network namespace of its own, where a firewall rule can drop what goes to and
comes from the engine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import pytest

from engines.simulator.waveform import expected_pcm
from loadtest.prose import prose
from tests.deploy.docker_host import inside_network
from tests.running import Gateway, running_engine, running_gateway, wait_until

NAMESPACE = f"speech-gateway-cut-{os.getpid()}"
TEXT = prose(40)
LONG = prose(700)
REASON = "needs root, ip and nft to cut a network of its own"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("nft") or not shutil.which("ip"), reason=REASON
    ),
]


def inside(*command: str) -> None:
    """Run a command in the namespace."""
    subprocess.run(["ip", "netns", "exec", NAMESPACE, *command], check=True)


@contextmanager
def cut(port: int) -> Iterator[None]:
    """Drop every packet of a port, then let them pass again."""
    inside("nft", "add", "table", "inet", "cut")
    rules = "{ type filter hook input priority 0; }"
    inside("nft", f"add chain inet cut wire {rules}")
    inside("nft", f"add rule inet cut wire tcp dport {port} drop")
    inside("nft", f"add rule inet cut wire tcp sport {port} drop")
    try:
        yield
    finally:
        inside("nft", "delete", "table", "inet", "cut")


@dataclass(frozen=True)
class Line:
    """A gateway and its engine, with a line between them that can be cut.

    Attributes:
        gateway: The gateway.
        port: The engine's port.
        engine: The engine's address.
    """

    gateway: Gateway
    port: int
    engine: str

    def cut(self) -> ExitStack:
        """Cut it; closing the result mends it."""
        scope = ExitStack()
        scope.enter_context(cut(self.port))
        return scope

    def idle(self) -> bool:
        """Whether the gateway holds nothing."""
        return self.gateway.runtime.service.in_flight == 0


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    """Engine and gateway in the namespace, with short timeouts."""
    made = subprocess.run(["ip", "netns", "add", NAMESPACE], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no network namespace can be made here: {made.stderr.decode().strip()}")
    try:
        inside("ip", "link", "set", "lo", "up")
        with (
            inside_network(NAMESPACE),
            running_engine("--voice", "simulated", "--tokens-per-second", "100") as engine,
            running_gateway(
                upstreams=engine.address,
                connect_timeout_seconds=0.5,
                first_audio_timeout_seconds=1.5,
                idle_timeout_seconds=1.5,
                slowest_tokens_per_second=1000,
                queue_timeout_seconds=5,
            ) as gateway,
        ):
            yield Line(gateway, urlsplit(engine.address).port or 0, engine.address)
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


def speak(line: Line, text: str) -> httpx.Response:
    """A buffered request."""
    return httpx.post(line.gateway.url + "/generate", json={"text": text}, timeout=120)


def test_a_stream_is_aborted_when_the_line_is_cut(line: Line) -> None:
    """The client hears that the answer is not whole, within the idle timeout."""
    body = {"model": "tts-1", "input": TEXT, "voice": "belinda", "response_format": "pcm"}
    url = line.gateway.url + "/v1/audio/speech"
    with httpx.stream("POST", url, json=body, timeout=120) as answer:
        parts = answer.iter_raw()
        heard = next(parts)
        with line.cut(), pytest.raises(httpx.RemoteProtocolError):
            heard += b"".join(parts)
    assert expected_pcm(TEXT, "belinda").startswith(heard)
    wait_until(line.idle, "nothing is held")
    wait_until(lambda: speak(line, "Hello again.").is_success, "it speaks again")


@pytest.mark.parametrize("text", [TEXT, LONG], ids=["short", "long"])
def test_a_whole_answer_gets_an_honest_status(line: Line, text: str) -> None:
    """No half file: a 5xx within the timeouts, and all is well when the line is mended."""
    wait_until(lambda: speak(line, "Hello.").is_success, "the line is whole")
    with line.cut():
        answer = speak(line, text)
        assert answer.status_code in {502, 503, 504}, answer.text
        assert "detail" in answer.json()
        wait_until(line.idle, "nothing is held")
    wait_until(lambda: speak(line, "Hello again.").is_success, "it speaks again")


def test_a_short_silence_is_only_a_delay(line: Line) -> None:
    """TCP mends what is shorter than the timeouts, and not a sample is lost."""
    wait_until(lambda: speak(line, "Hello.").is_success, "the line is whole")
    body = {"model": "tts-1", "input": TEXT, "voice": "belinda", "response_format": "pcm"}
    url = line.gateway.url + "/v1/audio/speech"
    with httpx.stream("POST", url, json=body, timeout=120) as answer:
        parts = answer.iter_raw()
        heard = next(parts)
        line.cut().close()
        heard += b"".join(parts)
    assert heard == expected_pcm(TEXT, "belinda")
