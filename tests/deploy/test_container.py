"""`speech-gateway container` against a real Docker engine: what it does, and what it says.

A stand-in takes the place of the engine's image; it brings an nvidia-smi that lists the GPU that a
test wants, and simulates the engine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from loadtest.processes import free_port
from tests.deploy.conftest import Workshop
from tests.deploy.docker_host import COMMAND_SECONDS, call
from tests.deploy.stacks import ADDED_ARGUMENTS, DOCUMENTED_ARGUMENTS

pytestmark = [pytest.mark.docker, pytest.mark.root]

VOLUME = "speech-gateway_models-of-the-tests"
NAME = "speech-gateway-test-container"
A100 = "NVIDIA A100-SXM4-40GB, 40960, 1024, 8.0"
OUTSIDE, BESIDE = "198.51.100.1", "198.51.100.2"  # RFC 5737
CARDS = {
    "fit": A100,
    "small": "NVIDIA GeForce RTX 3060, 12288, 1, 8.6",
    "blackwell": "NVIDIA B200, 183359, 0, 10.0",
}


class Command:
    """The command, with a settings file of its own.

    Args:
        environment: DOCKER_HOST and the like.
        folder: Where the settings file lies.
        image: The engine's image.
    """

    def __init__(self, environment: dict[str, str], folder: Path, image: str) -> None:
        self.port = free_port()
        self.environment = {**os.environ, **environment}
        self.file = folder / "vllm.env"
        self.write(image)

    def write(self, image: str, **values: str) -> None:
        """Write the settings file."""
        lines = {
            "HIGGS_IMAGE": image,
            "HIGGS_PORT": str(self.port),
            "HIGGS_MODELS": "models-of-the-tests",
            **values,
        }
        self.file.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """Run it; the exit status and all that it printed."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "gateway", "container"),
                *("--env-file", str(self.file), "--name", NAME, *arguments),
            ],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def images(workshop: Workshop) -> dict[str, str]:
    """The stand-in with each kind of GPU."""
    if not workshop.gpu:
        pytest.skip("this Docker engine starts no container that asks for a GPU")
    names = {}
    for kind, card in CARDS.items():
        names[kind] = f"{NAME}/{kind}"
        dockerfile = f"""
            FROM {workshop.images["HIGGS_IMAGE"]}
            USER 0
            RUN printf '#!/bin/sh\\necho "{card}"\\n' > /usr/bin/nvidia-smi
            RUN chmod +x /usr/bin/nvidia-smi
        """
        workshop.docker.build(names[kind], "-", text=textwrap.dedent(dockerfile))
    names["broken"] = f"{NAME}/broken"
    dockerfile = f"""
        FROM {names["fit"]}
        ENTRYPOINT ["python3", "-c", "raise SystemExit('CUDA out of memory')"]
    """
    workshop.docker.build(names["broken"], "-", text=textwrap.dedent(dockerfile))
    return names


@pytest.fixture(scope="module")
def server(workshop: Workshop) -> Iterator[str]:
    """A hub that other containers reach; its address. Afterwards nothing is left."""
    docker, name = workshop.docker, f"{NAME}-hub"
    image = workshop.images["HIGGS_IMAGE"]
    docker.run("run", "-d", "--name", name, "--entrypoint", "python3", image, "/hub.py", "80")
    try:
        template = "{{.NetworkSettings.Networks.bridge.IPAddress}}"
        yield f"http://{docker.run('inspect', '--format', template, name)}"
    finally:
        docker.run("rm", "--force", name)
        docker.run("volume", "rm", "--force", VOLUME)


@pytest.fixture
def command(
    workshop: Workshop, images: dict[str, str], server: str, tmp_path: Path
) -> Iterator[Command]:
    """The command; whatever it started is removed."""
    environment = {**workshop.docker.environment, "HF_ENDPOINT": server}
    command = Command(environment, tmp_path, images["fit"])
    try:
        yield command
    finally:
        command("down")


def refused(answer: tuple[int, str], said: str) -> None:
    """One clear sentence, and status 1."""
    status, printed = answer
    assert status == 1, printed
    assert said in printed
    assert [line for line in printed.splitlines() if line.startswith("speech-gateway: ")]
    assert "Traceback" not in printed


def test_up_starts_the_documented_engine_and_waits_until_it_speaks(
    command: Command, workshop: Workshop
) -> None:
    """One command from nothing to an engine that speaks; twice is no harm; down leaves nothing."""
    status, printed = command("up")
    assert status == 0, printed
    assert "NVIDIA A100-SXM4-40GB, 40 GiB" in printed
    assert "Boson Higgs Audio 2 Community License" in printed
    assert printed.count("is complete") == 3
    assert "@sha256:" in printed or "sha256:" in printed, "the image can be pinned"
    assert "it speaks at" in printed
    voices = httpx.get(f"http://127.0.0.1:{command.port}/v1/audio/voices", timeout=120).json()
    assert "belinda" in voices
    facts = json.loads(workshop.docker.run("inspect", NAME))[0]
    documented = DOCUMENTED_ARGUMENTS.replace("--port 8000", f"--port {command.port}")
    disable_log = ADDED_ARGUMENTS.split()[0]
    assert facts["Config"]["Cmd"] == f"{documented} {disable_log}".split()
    assert facts["HostConfig"]["Init"] is True
    assert "HF_ENDPOINT" not in str(facts["Config"]["Env"])
    assert "HF_HUB_OFFLINE=1" in facts["Config"]["Env"]
    assert facts["HostConfig"]["IpcMode"] == "host"
    assert facts["HostConfig"]["ShmSize"] == 20 << 30
    assert facts["HostConfig"]["DeviceRequests"][0]["Capabilities"] == [["gpu"]]
    assert facts["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    status, printed = command("status")
    assert status == 0, printed
    assert "yes, it speaks" in printed
    assert command("up")[0] == 0
    assert json.loads(workshop.docker.run("inspect", NAME))[0]["Id"] == facts["Id"]
    status, printed = command("logs", "--tail", "500")
    assert status == 0
    assert "argv" in printed
    status, printed = command("gpu")
    assert status == 0, printed
    assert "loaded 1.0 of 40.0 GiB" in printed
    assert "in use by running streams" in printed
    assert command("down")[0] == 0
    status, printed = command("status")
    assert status == 1
    assert "There is no container" in printed
    assert command("down")[0] == 0, "down twice is no error"


@pytest.fixture
def outside(workshop: Workshop) -> Iterator[str]:
    """Address of another machine, which knows the way back to every container."""
    if workshop.namespace is None:
        pytest.skip("this Docker engine shares the machine's network")
    name, inside = f"{NAME}-out", workshop.namespace
    server = textwrap.dedent(f"""
        import socket
        tcp = socket.create_server(("{OUTSIDE}", 80))
        udp = socket.socket(type=socket.SOCK_DGRAM)
        udp.bind(("{OUTSIDE}", 80))
        udp.setblocking(False)
        print("on", flush=True)
        while True:
            peer, came = tcp.accept()[0], b""
            try:
                while True:
                    came += udp.recv(100)
            except BlockingIOError:
                peer.sendall(came)
            peer.close()
    """)
    call("ip", "netns", "add", name)
    try:
        call(
            "ip", "-n", name, "link", "add", "out0", "type", "veth", "peer", "in0", "netns", inside
        )
        for namespace, link, address in ((name, "out0", OUTSIDE), (inside, "in0", BESIDE)):
            call("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", link)
            call("ip", "-n", namespace, "link", "set", link, "up")
        call("ip", "-n", name, "route", "add", "default", "via", BESIDE)
        command = ["ip", "netns", "exec", name, sys.executable, "-c", server]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                assert process.stdout.readline() == b"on\n"
                yield OUTSIDE
            finally:
                process.kill()
    finally:
        call("ip", "netns", "delete", name)


def test_the_engine_reaches_no_other_machine_and_no_other_container(
    command: Command, workshop: Workshop, server: str, outside: str
) -> None:
    """Neither by a connection nor by a datagram; a container beside it reaches both."""
    assert command("up")[0] == 0
    hub = server.removeprefix("http://")
    program = textwrap.dedent(f"""
        import socket, sys
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            sender.sendto(sys.argv[1].encode(), ("{outside}", 80))
        for host in ("{outside}", "{hub}"):
            try:
                with socket.create_connection((host, 80), 5) as peer:
                    print("reached", peer.recv(100).decode() if host == "{outside}" else "it")
            except OSError:
                print("not reached")
    """)
    asked = {
        name: workshop.docker.run("exec", name, "python3", "-c", program, name).splitlines()
        for name in (NAME, f"{NAME}-hub")
    }
    assert asked == {
        NAME: ["not reached", "not reached"],
        f"{NAME}-hub": [f"reached {NAME}-hub", "reached it"],  # and no datagram of the engine
    }


def test_restart_and_changed_settings_give_an_engine_that_speaks(
    command: Command, images: dict[str, str], workshop: Workshop
) -> None:
    """A restart keeps the container; other settings make it anew."""
    assert command("up")[0] == 0
    before = json.loads(workshop.docker.run("inspect", NAME))[0]
    assert command("restart")[0] == 0
    after = json.loads(workshop.docker.run("inspect", NAME))[0]
    assert after["Id"] == before["Id"]
    assert after["State"]["StartedAt"] > before["State"]["StartedAt"]
    command.write(images["fit"], HIGGS_MAX_MODEL_LEN="4096")
    assert "changed" in command("status")[1]
    status, printed = command("up")
    assert status == 0, printed
    assert "making it anew" in printed
    assert "4096" in json.loads(workshop.docker.run("inspect", NAME))[0]["Config"]["Cmd"]


def test_a_voices_folder_is_seeded_with_the_images_own_presets(
    command: Command, images: dict[str, str], tmp_path: Path, workshop: Workshop
) -> None:
    """With another folder the image's eight voices would be gone."""
    folder = tmp_path / "voices"
    command.write(images["fit"], GATEWAY_VOICES_DIR=str(folder))
    status, printed = command("up")
    assert status == 0, printed
    listing = json.loads((folder / "config.json").read_text())
    assert len(listing) == 8
    assert all((folder / voice["audio_file"]).is_file() for voice in listing.values())
    arguments = json.loads(workshop.docker.run("inspect", NAME))[0]["Config"]["Cmd"]
    assert arguments[-2:] == ["--voice-presets-dir", "/voices"]


def test_each_failure_is_told_in_one_sentence(command: Command, images: dict[str, str]) -> None:
    """No engine, no image, a GPU that will not do, a port that is taken, an engine that dies."""
    environment = command.environment
    command.environment = {**environment, "DOCKER_HOST": "unix:///nowhere/docker.sock"}
    refused(command("up"), "No Docker engine answers at unix:///nowhere/docker.sock")
    command.environment = environment
    command.write("localhost:1/nobody/nothing:1")
    refused(command("up"), "localhost:1/nobody/nothing:1")
    command.write(images["small"])
    refused(command("up"), "the model needs a card of 24 GB")
    command.write(images["blackwell"])
    refused(command("up"), "Blackwell")
    command.write(images["broken"])
    refused(command("up"), "CUDA out of memory")
    command("down")
    command.write(images["fit"])
    with httpx.Client(), _listening(command.port):
        refused(command("up"), f"Port {command.port} of this machine is taken")


def test_an_engine_that_never_speaks_ends_the_wait(
    command: Command, images: dict[str, str], workshop: Workshop
) -> None:
    """The container runs and says nothing: after the bound, its last line is told."""
    dockerfile = f"""
        FROM {images["fit"]}
        STOPSIGNAL KILL
        ENTRYPOINT ["python3", "-u", "-c", \
            "import time; print('Loading weights'); time.sleep(600)"]
    """
    workshop.docker.build(f"{NAME}/silent", "-", text=textwrap.dedent(dockerfile))
    command.write(f"{NAME}/silent")
    refused(command("up", "--wait-seconds", "3"), "Loading weights")


class _listening:  # noqa: N801  (reads as a phrase)
    """A process that has a port, where the Docker engine's ports are."""

    def __init__(self, port: int) -> None:
        program = (
            f"import socket,sys; s=socket.create_server(('127.0.0.1', {port})); "
            "print('on', flush=True); sys.stdin.read()"
        )
        self._program = [sys.executable, "-c", program]

    def __enter__(self) -> None:
        """Listen."""
        self._process = subprocess.Popen(
            self._program, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"on\n"

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._process.communicate()
