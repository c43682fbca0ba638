"""One Docker engine for all tests of this folder, with every image that they need."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.docker_host import (
    Docker,
    Throwaway,
    configuration,
    inside_network,
    missing_for_throwaway,
)
from tests.deploy.images import build_all, remove_own

# An engine finds the NVIDIA runtime by this name; one that does nothing suffices to start a
# container that asks for a GPU.
HOOK = "nvidia-container-runtime-hook"


@dataclass(frozen=True)
class Workshop:
    """An engine and the images on it.

    Attributes:
        docker: The engine.
        images: The variables of vllm.env that name images, with the names of what was built.
        gpu: Whether it starts containers that ask for a GPU.
        namespace: The network namespace that it has for itself; None where it has none.
    """

    docker: Docker
    images: dict[str, str]
    gpu: bool
    namespace: str | None = None


@pytest.fixture(scope="package")
def workshop() -> Iterator[Workshop]:
    """The engine; the tests' own sockets are opened where its published ports are."""
    # Not pytest's folder: a path of a Unix socket is short, and images are not kept.
    folder = Path(tempfile.mkdtemp(prefix="speech-gateway-docker-"))
    try:
        yield from _workshop(folder)
    finally:
        shutil.rmtree(folder)


def _workshop(folder: Path) -> Iterator[Workshop]:
    environment = configuration(folder / "config")
    if not environment:
        environment = {"DOCKER_CONFIG": os.environ.get("DOCKER_CONFIG", "")}
    environment = {name: value for name, value in environment.items() if value}
    files = folder / "files"
    files.mkdir()
    found = Docker(environment)
    if found.answers():
        if not found.is_local():
            pytest.skip("DOCKER_HOST is another machine: it has neither these files nor our ports")
        gpu = "nvidia" in found.run("info", "--format", "{{json .Runtimes}}")
        images = build_all(found, files)
        try:
            yield Workshop(found, images, gpu)
        finally:
            remove_own(found)
        return
    reason = missing_for_throwaway()
    if reason is not None:
        pytest.skip(reason)
    hooks = folder / "hooks"
    hooks.mkdir()
    (hooks / HOOK).write_text("#!/bin/sh\nexit 0\n")
    (hooks / HOOK).chmod(0o755)
    engine = Throwaway(folder / folder.name, environment)
    with engine.started("build") as docker:
        images = build_all(docker, files)
    with engine.started("net", hooks) as docker, inside_network(folder.name):
        yield Workshop(docker, images, gpu=True, namespace=folder.name)
