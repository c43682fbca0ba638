"""A Docker engine for tests: the one that DOCKER_HOST reaches, else a throw-away one as root.

Where no registry can be reached, stand-ins made of this machine's Debian packages take the place
of the images that the stack is made of; the images of this repository are built either way.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.running import namespaces_can_be_made

ROOT = Path(__file__).resolve().parents[2]
CLONE_NEWNET = 0x40000000  # setns(2)
COMMAND_SECONDS = 900  # a build, on a machine that does four other things
THROWAWAY_NEEDS = ("dockerd", "docker", "tini", "ip", "iptables", "unshare", "nsenter")
BASE_IMAGE = "python:3.11-slim-bookworm"


class CommandFailed(AssertionError):
    """A command ended with an error; the message holds what it printed."""


def call(
    *command: str | Path,
    environment: Mapping[str, str] | None = None,
    text: str | None = None,
) -> str:
    """Run a command and return what it printed, standard error included.

    Raises:
        CommandFailed: It did not end with 0.
    """
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        input=text,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    if done.returncode:
        raise CommandFailed(f"{command} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout.strip()


def compose_plugin() -> Path | None:
    """Compose v2 as a Python package brings it, beside this interpreter."""
    found = Path(sys.executable).parent / "docker-compose"
    return found if found.exists() else None


def compose_command() -> tuple[str, ...] | None:
    """How Compose v2 is called here, if at all; its `config` needs no engine."""
    plugin = compose_plugin()
    if plugin is not None:
        return (str(plugin),)
    try:
        call("docker", "compose", "version")
    except (CommandFailed, FileNotFoundError):
        return None
    return ("docker", "compose")


class Docker:
    """A Docker engine and the variables that every command against it needs.

    Args:
        environment: DOCKER_HOST and DOCKER_CONFIG.
        network: Build networking; "host" where the engine has no bridge.
    """

    def __init__(self, environment: dict[str, str], network: str | None = None) -> None:
        self.environment = environment
        self.network = network

    def run(self, *arguments: str | Path, text: str | None = None) -> str:
        """One `docker` command."""
        return call("docker", *arguments, environment=self.environment, text=text)

    def build(self, name: str, *arguments: str | Path, text: str | None = None) -> None:
        """Build an image; `arguments` end with the context, `-` reads a Dockerfile from `text`."""
        network = ("--network", self.network) if self.network else ()
        self.run("build", "--quiet", *network, "--tag", name, *arguments, text=text)

    def answers(self) -> bool:
        """Whether an engine is there."""
        try:
            self.run("version")
        except (CommandFailed, FileNotFoundError):
            return False
        return True

    def is_local(self) -> bool:
        """Whether it shares this machine's files and ports."""
        host = self.run("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
        return host.startswith("unix://")

    def pulls(self, image: str) -> bool:
        """Whether an image is here, or can be fetched."""
        try:
            self.run("pull", "--quiet", image)
        except CommandFailed:
            return False
        return True


@contextlib.contextmanager
def inside_network(name: str | None) -> Iterator[None]:
    """Let this thread, and those it starts, open its sockets in a network namespace."""
    if name is None:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(descriptor: int) -> None:
        if libc.setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")

    with Path("/proc/thread-self/ns/net").open("rb") as before:
        with Path(f"/run/netns/{name}").open("rb") as inside:
            enter(inside.fileno())
        try:
            yield
        finally:
            enter(before.fileno())


def configuration(folder: Path) -> dict[str, str]:
    """A Docker configuration of our own, with Compose where Python brings it."""
    plugin = compose_plugin()
    if plugin is None:
        return {}
    plugins = folder / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-compose").symlink_to(plugin)
    return {"DOCKER_CONFIG": str(folder)}


def missing_for_throwaway() -> str | None:
    """Why no engine can be started here, if so."""
    if os.geteuid():
        return "no Docker engine is reachable, and only root can start one"
    if not namespaces_can_be_made():
        return "no Docker engine is reachable, and none can be started in this sandbox"
    missing = [name for name in THROWAWAY_NEEDS if shutil.which(name) is None]
    return (
        f"no Docker engine is reachable, and {', '.join(missing)} is missing" if missing else None
    )


class Throwaway:
    """Docker engines that scripts/docker-engine starts, one after the other, over one data root.

    Args:
        folder: Where everything lies; its name is that of the network namespace too.
        environment: What every command gets besides DOCKER_HOST.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    @contextlib.contextmanager
    def started(self, mode: str, hooks: Path | None = None) -> Iterator[Docker]:
        """An engine, `build` with the machine's network or `net` with one of its own."""
        path = os.environ["PATH"]
        environment = {
            "DOCKER_ENGINE_FOLDER": str(self.folder),
            "DOCKER_ENGINE_OWNER": str(os.getpid()),
            "PATH": f"{hooks}:{path}" if hooks else path,
        }
        script = ROOT / "scripts" / "docker-engine"
        host = call(script, "start", mode, environment=environment)
        try:
            yield Docker(
                {**self.environment, "DOCKER_HOST": host},
                "host" if mode == "build" else None,
            )
        finally:
            call(script, "stop", environment=environment)
