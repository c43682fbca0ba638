"""The engine's health check on a real Docker engine: what it ends, and what it never ends.

The variables below stretch the time: with ENGINE_HEALTH_TEST_SCALE=1 the check runs at the pace of
docker-compose.yml.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import Workshop
from tests.deploy.stacks import GpuStack
from tests.running import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.root]

SCALE = float(os.environ.get("ENGINE_HEALTH_TEST_SCALE", "0.1"))
SATURATED_SECONDS = float(os.environ.get("ENGINE_HEALTH_TEST_SATURATED_SECONDS", 300 * SCALE))
START_SECONDS = float(os.environ.get("ENGINE_HEALTH_TEST_START_SECONDS", "0"))
ANSWER_SECONDS = 20 * SCALE
RESTART_SECONDS = 120 * SCALE
GO = "/tmp/go"  # noqa: S108  (inside the container)
SLACK_SECONDS = 20  # a busy machine: the container's own end and start

REQUEST = """
import http.client, json, sys
def ask(tokens, seconds):
    server = http.client.HTTPConnection("127.0.0.1", 8000, timeout=seconds)
    body = {"model": "higgs-audio-v2-generation-3B-base", "voice": "belinda",
            "input": "word " * 200, "response_format": "pcm", "max_tokens": tokens}
    server.request("POST", "/v1/audio/speech", json.dumps(body),
                   {"Content-Type": "application/json"})
    return server.getresponse().read()
"""
LOAD = """
import threading, time
def keep_busy():
    while True:
        ask(1500, 900)
for _ in range(16):
    threading.Thread(target=keep_busy, daemon=True).start()
time.sleep({seconds})
"""


def python(stack: GpuStack, program: str, *options: str) -> str:
    """Run a program inside the engine's container."""
    return stack.compose("exec", "-T", *options, "engine", "python3", "-c", program)


def restarts(stack: GpuStack) -> int:
    """How often Docker has started the engine again."""
    return int(stack.inspect("engine", "{{.RestartCount}}"))


def health(stack: GpuStack) -> str:
    """What Docker thinks of the engine."""
    return stack.inspect("engine", "{{.State.Health.Status}}")


def engine_stack(workshop: Workshop, folder: Path, **variables: str) -> Iterator[GpuStack]:
    """The engine alone, with its weights and presets."""
    if not workshop.gpu:
        pytest.skip("this Docker engine starts no container that asks for a GPU")
    stack = GpuStack(
        workshop.docker,
        workshop.images,
        folder,
        "speech-gateway-test-health",
        ENGINE_HEALTH_ANSWER_SECONDS=f"{ANSWER_SECONDS:g}",
        ENGINE_HEALTH_INTERVAL=f"{10 * SCALE:g}s",
        **variables,
    )
    try:
        stack.compose("up", "--detach", "engine")
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "1")


@pytest.fixture
def busy(workshop: Workshop, tmp_path: Path) -> Iterator[GpuStack]:
    """An engine that runs two streams at once."""
    arguments = "--max-running 2 --tokens-per-second 25"
    yield from engine_stack(workshop, tmp_path, FAKE_ENGINE_ARGUMENTS=arguments)


@pytest.fixture
def slow(workshop: Workshop, tmp_path: Path) -> Iterator[GpuStack]:
    """An engine that loads until it is told to go on."""
    yield from engine_stack(workshop, tmp_path, FAKE_ENGINE_START_FILE=GO)


def test_a_saturated_engine_is_left_alone_and_one_without_its_core_is_restarted(
    busy: GpuStack,
) -> None:
    """First so full that the check's own request gets no turn; then its core is killed."""
    wait_until(lambda: health(busy) == "healthy", "the engine is healthy")
    load = LOAD.format(seconds=SATURATED_SECONDS + SLACK_SECONDS)
    python(busy, REQUEST + load, "--detach")
    deadline = time.monotonic() + SATURATED_SECONDS
    asked = (
        REQUEST + f"try: ask(1, {ANSWER_SECONDS}); print('answered')\nexcept OSError: print('no')"
    )
    wait_until(lambda: python(busy, asked) == "no", "the check's request would get no turn")
    while time.monotonic() < deadline:
        assert restarts(busy) == 0
        assert health(busy) == "healthy"
        time.sleep(1)
    # What runs in the simulated engine goes on without its core.
    wait_until(lambda: python(busy, asked) == "answered", "the load has ended", 120)
    log = busy.compose("logs", "--no-log-prefix", "engine")
    [core] = [line.split()[1] for line in log.splitlines() if line.startswith("core ")]
    python(busy, f"import os; os.kill({core}, 9)")
    killed = time.monotonic()
    wait_until(lambda: restarts(busy) == 1, "it is restarted", RESTART_SECONDS + SLACK_SECONDS)
    print(f"\ncore killed, container started again after {time.monotonic() - killed:.1f} s")
    wait_until(lambda: health(busy) == "healthy", "it speaks again", 60)
    assert "killing process" in busy.compose("logs", "--no-log-prefix", "engine")


def test_a_first_start_of_any_length_is_left_alone(slow: GpuStack) -> None:
    """Many checks fail while it loads; only one that has spoken can be taken for hung."""
    began = time.monotonic()
    template = "{{range .State.Health.Log}}{{.ExitCode}} {{end}}"  # of the last five checks
    wait_until(
        lambda: slow.inspect("engine", template).split() == ["1"] * 5,
        "more checks have failed than a hung engine would get",
        50 * SCALE + 60,
    )
    while time.monotonic() - began < START_SECONDS:
        time.sleep(1)
    assert health(slow) == "starting"
    python(slow, f"open('{GO}', 'w')")
    wait_until(lambda: health(slow) == "healthy", "it has started", 100 * SCALE + 60)
    assert restarts(slow) == 0
    log = slow.compose("logs", "--no-log-prefix", "engine")
    assert log.count("argv ") == 1
