"""The engine's health check on a real Docker engine: what it ends, and what it never ends.

The variables below stretch the time: with ENGINE_HEALTH_TEST_SCALE=1 the check runs at the pace of
docker-compose.yml.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.deploy.conftest import Workshop
from tests.deploy.stacks import GpuStack
from tests.running import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.root]

SCALE = float(os.environ.get("ENGINE_HEALTH_TEST_SCALE", "0.1"))
SATURATED_SECONDS = float(os.environ.get("ENGINE_HEALTH_TEST_SATURATED_SECONDS", "0"))
START_SECONDS = float(os.environ.get("ENGINE_HEALTH_TEST_START_SECONDS", "0"))
ANSWER_SECONDS = 20 * SCALE
RESTART_SECONDS = 120 * SCALE
# Inside the container: with the first the engine goes on with its start, with the second the load
# ends.
GO, ENOUGH = "/tmp/go", "/tmp/enough"  # noqa: S108
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
LOAD = f"""
import os, threading, time
def keep_busy():
    while True:
        ask(1500, 900)
for _ in range(16):
    threading.Thread(target=keep_busy, daemon=True).start()
while not os.path.exists({ENOUGH!r}):
    time.sleep(0.1)
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


def checks(stack: GpuStack, what: str) -> list[str]:
    """The exit statuses, or the times, of the last five checks."""
    return stack.inspect(
        "engine", f"{{{{range .State.Health.Log}}}}{{{{json .{what}}}}} {{{{end}}}}"
    ).split()


@pytest.fixture(scope="module")
def loading(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GpuStack]:
    """The engine alone, with its weights and presets; it loads until it is told to go on."""
    if not workshop.gpu:
        pytest.skip("this Docker engine starts no container that asks for a GPU")
    stack = GpuStack(
        workshop.docker,
        workshop.images,
        tmp_path_factory.mktemp("health"),
        "speech-gateway-test-health",
        ENGINE_HEALTH_ANSWER_SECONDS=f"{ANSWER_SECONDS:g}",
        ENGINE_HEALTH_INTERVAL=f"{10 * SCALE:g}s",
        FAKE_ENGINE_START_FILE=GO,
        FAKE_ENGINE_ARGUMENTS="--max-running 2 --tokens-per-second 25",
    )
    try:
        stack.compose("up", "--detach", "engine")
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "1")


@pytest.fixture
def started(loading: GpuStack) -> GpuStack:
    """That engine when it speaks; it runs two streams at once."""
    python(loading, f"open({GO!r}, 'w')")
    wait_until(lambda: health(loading) == "healthy", "it has started", 100 * SCALE + 60)
    return loading


def test_a_first_start_of_any_length_is_left_alone(
    loading: GpuStack, request: pytest.FixtureRequest
) -> None:
    """Many checks fail while it loads; only one that has spoken can be taken for hung."""
    began = time.monotonic()
    wait_until(
        lambda: checks(loading, "ExitCode") == ["1"] * 5,
        "more checks have failed than a hung engine would get",
        50 * SCALE + 60,
    )
    while time.monotonic() - began < START_SECONDS:
        time.sleep(1)
    assert health(loading) == "starting"
    request.getfixturevalue("started")
    assert restarts(loading) == 0
    log = loading.compose("logs", "--no-log-prefix", "engine")
    assert log.count("argv ") == 1


def test_a_saturated_engine_is_left_alone_and_one_without_its_core_is_restarted(
    started: GpuStack,
) -> None:
    """First so full that the check's own request gets no turn; then its core is killed."""
    python(started, REQUEST + LOAD, "--detach")
    asked = (
        REQUEST + f"try: ask(1, {ANSWER_SECONDS}); print('answered')\nexcept OSError: print('no')"
    )
    wait_until(lambda: python(started, asked) == "no", "the check's request would get no turn")
    began, before = time.monotonic(), set(checks(started, "Start"))

    def checked_enough() -> bool:
        """More often than a hung engine would be; it must be left alone all the while."""
        assert (restarts(started), health(started)) == (0, "healthy")
        enough = before.isdisjoint(checks(started, "Start"))
        return enough and time.monotonic() - began >= SATURATED_SECONDS

    patience = max(SATURATED_SECONDS, 50 * SCALE) + 60
    wait_until(checked_enough, "it was checked often", patience)
    # Each check may fail where a busy machine gives it no turn; that most did would be no luck.
    assert checks(started, "ExitCode").count("0") >= 3
    python(started, f"open({ENOUGH!r}, 'w')")
    # What runs in the simulated engine goes on without its core.
    wait_until(lambda: python(started, asked) == "answered", "the load has ended")
    log = started.compose("logs", "--no-log-prefix", "engine")
    [core] = [line.split()[1] for line in log.splitlines() if line.startswith("core ")]
    python(started, f"import os; os.kill({core}, 9)")
    killed = time.monotonic()
    wait_until(lambda: restarts(started) == 1, "it is restarted", RESTART_SECONDS + SLACK_SECONDS)
    print(f"\ncore killed, container started again after {time.monotonic() - killed:.1f} s")
    wait_until(lambda: health(started) == "healthy", "it speaks again")
    assert "killing process" in started.compose("logs", "--no-log-prefix", "engine")
