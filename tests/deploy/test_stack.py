"""The real compose file on a real Docker engine: from nothing to speech, and through faults.

Without a GPU, the NVIDIA hook does nothing and an image that tells its arguments stands in for the
engine's; Grafana, which no package brings, is stood in for by something that holds its port.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from engines.voice import PRESETS
from tests.deploy.conftest import Workshop
from tests.deploy.docker_host import ROOT, CommandFailed, call
from tests.deploy.images import image_bytes
from tests.deploy.stacks import (
    ADDED_ARGUMENTS,
    CLIENTS,
    DOCUMENTED_ARGUMENTS,
    CpuStack,
    GpuStack,
    Load,
)
from tests.listen import decode, transcribe, word_error_rate
from tests.running import answers, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.root]

SENTENCE = "The weather is fine today, and the birds are singing in the garden."
SHM_BYTES = 20 * 1024**3


@pytest.fixture(scope="module")
def stack(workshop: Workshop) -> Iterator[CpuStack]:
    """The stack, healthy."""
    stack = CpuStack(workshop.docker, workshop.images)
    started = time.monotonic()
    try:
        stack.compose("up", "--detach", "--wait", "--wait-timeout", "240")
        print(f"\ncpu stack from nothing to healthy: {time.monotonic() - started:.1f} s")
        for name in ("SPEECH_GATEWAY_IMAGE", "SPEECH_GATEWAY_CPU_IMAGE"):
            size = image_bytes(stack.docker, workshop.images[name]) / 1e6
            print(f"{name}: {size:.0f} MB on disk")
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "1", "--remove-orphans")


def assert_speaks(stack: CpuStack) -> None:
    """A request is answered with speech."""
    answer = stack.say(SENTENCE)
    assert answer.status_code == 200, answer.text
    samples, rate_hz = decode(answer.content)
    assert len(samples) > 2 * rate_hz


def test_one_command_brings_the_stack_up_healthy(stack: CpuStack) -> None:
    """Every service of the profile runs, and those that can tell are healthy."""
    rows = [json.loads(line) for line in stack.compose("ps", "--format", "json").splitlines()]
    state = {row["Service"]: (row["State"], row["Health"]) for row in rows}
    assert state == {
        "engine-cpu": ("running", "healthy"),
        "gateway": ("running", "healthy"),
        "prometheus": ("running", ""),
        "alertmanager": ("running", ""),
        "grafana": ("running", ""),
    }
    read = "print(*[line for line in open('/proc/1/status') if 'VmRSS' in line])"
    for service in ("gateway", "engine-cpu"):
        print(service, stack.compose("exec", "-T", service, "python3", "-c", read))


def test_the_stack_speaks(stack: CpuStack) -> None:
    """What comes out of the published port is the text, spoken."""
    answer = stack.say(SENTENCE)
    assert answer.status_code == 200, answer.text
    samples, rate_hz = decode(answer.content)
    assert word_error_rate(SENTENCE, transcribe(samples, rate_hz)) <= 0.1


def test_prometheus_scrapes_the_gateway(stack: CpuStack) -> None:
    """The request that was just made is among the figures."""
    wait_until(lambda: stack.query("sum by (job) (gateway_requests_total) > 0"), "a count")


@pytest.mark.parametrize("service", ["gateway", "engine-cpu"])
def test_a_container_has_no_rights_that_it_does_not_need(stack: CpuStack, service: str) -> None:
    """No root, no capabilities, no new ones, and a root file system that cannot be written."""
    read = (
        "import os; print(os.getuid()); "
        "print(*[l.split()[1] for l in open('/proc/self/status') if l[:6] in ('CapEff', 'NoNewP')])"
    )
    uid, rights = stack.compose("exec", "-T", service, "python3", "-c", read).splitlines()
    assert uid == "10001"
    assert rights == "0000000000000000 1"
    writes = "try: open('/opt/x', 'w')\nexcept OSError as error: print(error.errno)"
    assert stack.compose("exec", "-T", service, "python3", "-c", writes) == "30"  # EROFS
    assert stack.inspect(service, "{{.HostConfig.ReadonlyRootfs}}") == "true"


def test_an_engine_that_crashes_is_started_again(stack: CpuStack) -> None:
    """Nobody has to do anything: a little later the same address speaks."""
    before = int(stack.inspect("engine-cpu", "{{.RestartCount}}"))
    # Docker takes `docker kill` for somebody's wish: only a death of its own is a crash.
    process = stack.inspect("engine-cpu", "{{.State.Pid}}")
    image = stack.environment["SPEECH_GATEWAY_IMAGE"]
    kill = f"import os; os.kill({process}, 9)"
    host = ("--pid", "host", "--user", "0", "--entrypoint", "python3", "--network", "none")
    stack.docker.run("run", "--rm", *host, image, "-c", kill)
    wait_until(lambda: int(stack.inspect("engine-cpu", "{{.RestartCount}}")) > before, "a restart")
    wait_until(lambda: stack.say(SENTENCE).status_code == 200, "speech again")
    wait_until(stack.ready, "the gateway is ready")


def test_a_request_survives_a_pause_of_the_engine(stack: CpuStack) -> None:
    """An engine that stands still for a moment delays an answer, and loses none."""

    def paused() -> bool:
        try:
            stack.compose("pause", "engine-cpu")
        except CommandFailed:  # the kernel gives up freezing processes of a busy machine
            return False
        return True

    wait_until(paused, "it stands still")
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(stack.say, SENTENCE)
        wait_until(lambda: "gateway_in_flight_requests 1" in stack.metrics(), "it is upstream")
        stack.compose("unpause", "engine-cpu")
        assert answer.result().status_code == 200
    wait_until(stack.ready, "the gateway is ready")


def test_the_gateway_tells_of_a_network_cut_and_recovers_from_it(stack: CpuStack) -> None:
    """It stays alive and says that it is not ready; nobody has to restart anything."""
    network, container = f"{stack.project}_engine", stack.container("engine-cpu")
    stack.docker.run("network", "disconnect", network, container)
    try:
        wait_until(lambda: not stack.ready(), "the gateway is not ready")
        assert answers(stack.url + "/health")
    finally:
        stack.docker.run("network", "connect", "--alias", "engine", network, container)
    wait_until(stack.ready, "the gateway is ready")
    assert_speaks(stack)


@pytest.fixture(scope="module")
def front(stack: CpuStack) -> CpuStack:
    """The same stack with HAProxy on the gateway's port."""
    stack.files = [*stack.files, ROOT / "deploy" / "front.yml"]
    stack.compose("up", "--detach", "--wait", "--wait-timeout", "240", "gateway", "front")
    wait_until(stack.ready, "the gateway is ready behind the front")
    return stack


def test_a_rolling_restart_of_the_gateway_fails_no_request(front: CpuStack) -> None:
    """`deploy/roll` replaces the gateway under load; every request gets its audio."""
    before = front.container("gateway")
    with Load(front.url) as load:
        wait_until(lambda: load.answered >= CLIENTS, "requests are answered")
        call(ROOT / "deploy" / "roll", environment=front.environment)
        during = load.answered
        wait_until(lambda: load.answered >= during + CLIENTS, "the new gateway answers")
    assert load.failures == []
    assert front.container("gateway") != before
    print(f"{load.answered} requests answered across the change")


def test_several_gateways_share_the_engine_behind_the_front(front: CpuStack) -> None:
    """GATEWAY_REPLICAS=2: both answer, each with half of the slots; then one again."""
    before = front.environment["GATEWAY_REPLICAS"]
    front.environment["GATEWAY_REPLICAS"] = "2"
    front.compose("up", "--detach", "--wait", "--wait-timeout", "240", "gateway", "front")
    ids = front.compose("ps", "--quiet", "gateway").split()
    assert len(ids) == 2
    read = (
        "import urllib.request; "
        "print(urllib.request.urlopen('http://127.0.0.1:8888/metrics').read().decode())"
    )

    def figures(container: str) -> str:
        return front.docker.run("exec", container, "python3", "-c", read)

    with Load(front.url) as load:
        wait_until(
            lambda: all('outcome="ok"' in figures(container) for container in ids),
            "each has answered",
        )
    assert load.failures == []
    assert all("gateway_slots 8" in figures(container) for container in ids)
    front.environment["GATEWAY_REPLICAS"] = before
    front.compose("up", "--detach", "--wait", "--wait-timeout", "240", "gateway", "front")
    wait_until(front.ready, "one gateway is ready behind the front")


def test_a_client_that_leaves_is_noticed_behind_the_front(front: CpuStack) -> None:
    """HAProxy passes the end on, so that nobody's audio keeps an engine busy."""
    body = {"model": "tts-1", "voice": "alloy", "input": SENTENCE * 200, "response_format": "pcm"}
    with httpx.stream("POST", front.url + "/v1/audio/speech", json=body, timeout=120) as answer:
        assert answer.status_code == 200
        assert next(answer.iter_raw())
    wait_until(lambda: 'outcome="cancelled"' in front.metrics(), "the gateway notices")
    wait_until(lambda: "gateway_in_flight_requests 0" in front.metrics(), "its slot is free")


@pytest.fixture(scope="module")
def gpu(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GpuStack]:
    """The whole profile gpu, from an empty data root."""
    if not workshop.gpu:
        pytest.skip("this Docker engine starts no container that asks for a GPU")
    folder = tmp_path_factory.mktemp("gpu")
    stack = GpuStack(workshop.docker, workshop.images, folder, "speech-gateway-test-gpu")
    started = time.monotonic()
    try:
        stack.compose("up", "--detach")
        wait_until(stack.ready, "the gateway is ready")
        print(f"\ngpu stack from nothing to ready: {time.monotonic() - started:.1f} s")
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "1")


def test_the_engine_gets_the_documented_arguments_and_two_more(gpu: GpuStack) -> None:
    """Word for word, in this order, and nothing else."""
    wait_until(lambda: gpu.compose("logs", "--no-log-prefix", "engine"), "the engine's first line")
    [argv, *_] = gpu.compose("logs", "--no-log-prefix", "engine").splitlines()
    assert (
        json.loads(argv.removeprefix("argv "))
        == f"{DOCUMENTED_ARGUMENTS} {ADDED_ARGUMENTS}".split()
    )


def test_the_engine_gets_all_gpus_the_hosts_ipc_and_shared_memory(gpu: GpuStack) -> None:
    """As `docker run --gpus all --ipc=host --shm-size=20gb` asks for."""
    host = json.loads(gpu.inspect("engine", "{{json .HostConfig}}"))
    [request] = host["DeviceRequests"]
    assert (request["Count"], request["Capabilities"]) == (-1, [["gpu"]])
    assert host["IpcMode"] == "host"
    assert host["ShmSize"] == SHM_BYTES
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    mounts = json.loads(gpu.inspect("engine", "{{json .Mounts}}"))
    # The stand-in is made of the gateway's image, which has a volume of its own.
    own = [mount for mount in mounts if mount["Destination"] != "/data"]
    assert {mount["Destination"]: mount["RW"] for mount in own} == {
        "/root/.cache/huggingface": True,
        "/voices": False,
        "/engine_health.py": False,
    }


def test_the_weights_are_there_before_the_engine_and_their_log_tells_of_them(
    gpu: GpuStack,
) -> None:
    """Licence, progress and commits; the engine refuses what is not whole."""
    log = gpu.compose("logs", "--no-log-prefix", "weights")
    assert "Boson Higgs Audio 2 Community License" in log
    assert log.count("is complete") == 3
    # Compose itself shows no digest: the log has the command that does.
    [line] = [line for line in log.splitlines() if "digest that was pulled" in line]
    command = shlex.split(line.partition("by: ")[2])
    assert command[-1] == gpu.environment["HIGGS_IMAGE"]
    assert gpu.docker.run(*command[1:]).startswith("[")
    assert gpu.inspect("weights", "{{.State.ExitCode}}") == "0"
    # Compose makes what has already been made no second time.
    assert "everything is here" in gpu.compose("logs", "--no-log-prefix", "engine")


def test_the_engine_has_no_way_out(gpu: GpuStack) -> None:
    """It reaches its own network alone, by name or address; the gateway reaches the hub."""
    template = f'{{{{(index .NetworkSettings.Networks "{gpu.project}_default").IPAddress}}}}'
    hub = gpu.inspect("hub", template)
    connect = (
        "import socket\n"
        f"for host in ('hub', {hub!r}):\n"
        "    try: socket.create_connection((host, 8080), 3).close(); print('reached')\n"
        "    except OSError: print('not reached')\n"
    )
    reached = {
        name: gpu.compose("exec", "-T", name, "python3", "-c", connect).split("\n")
        for name in ("engine", "gateway")
    }
    assert reached == {"engine": ["not reached"] * 2, "gateway": ["reached"] * 2}


def test_the_presets_of_the_image_are_seeded_once_and_given_to_the_gateway(gpu: GpuStack) -> None:
    """The gateway can add a voice to them, and a second start leaves that alone."""
    listing = "import os; print(*sorted(os.listdir('/voices')), os.stat('/voices').st_uid)"
    read = ("exec", "-T", "gateway", "python3", "-c")
    seeded = sorted(["config.json", *(f"{name}.wav" for name in PRESETS)])
    assert gpu.compose(*read, listing).split() == [*seeded, "10001"]
    before = gpu.compose(*read, "print(open('/voices/config.json').read())")
    change = "open('/voices/config.json', 'w').write('{}')"
    gpu.compose(*read, change)
    gpu.compose("run", "--rm", "-T", "voices-seed")
    assert gpu.compose(*read, "print(open('/voices/config.json').read())") == "{}"
    gpu.compose(*read, f"open('/voices/config.json', 'w').write({before!r})")


def test_the_gateway_speaks_through_the_gpu_service(gpu: GpuStack) -> None:
    """It finds the engine by the name that both profiles give it."""
    wait_until(gpu.ready, "the gateway is ready")

    def lists_presets() -> bool:
        listed = httpx.get(f"{gpu.url}/v1/audio/voices", timeout=120).json()["voices"]
        return set(PRESETS) <= {voice["name"] for voice in listed}

    wait_until(lists_presets, "the presets are listed again")
    body = {"model": "tts-1", "voice": "alloy", "input": "Hello.", "response_format": "pcm"}
    answer = httpx.post(f"{gpu.url}/v1/audio/speech", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    assert len(answer.content) > 10_000
