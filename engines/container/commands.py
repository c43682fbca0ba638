"""`speech-gateway container up|status|logs|restart|down|gpu`: parse, call, print."""

from __future__ import annotations

import argparse
import importlib.resources
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from engines.container import docker_engine
from engines.container.plan import (
    LABEL,
    VOICES_PATH,
    ContainerError,
    ContainerPlan,
    make_plan,
    read_file,
)
from engines.container.preflight import QUERY, check_cards, read_cards
from engines.container.readiness import speaks, wait_ready

STATUS_FAILED = 1
STATUS_NOT_READY = 3
CACHE_METRIC = "vllm:gpu_cache_usage_perc"


def run_container(arguments: argparse.Namespace) -> int:
    """Do what was asked; the exit status."""
    actions: dict[str, Callable[[Any, ContainerPlan, argparse.Namespace], int]] = {
        "up": up,
        "status": status,
        "logs": logs,
        "restart": restart,
        "down": down,
        "gpu": gpu,
    }
    try:
        plan = make_plan(read_file(arguments.env_file), arguments.name)
        client = docker_engine.connect()
        try:
            with docker_engine.translated(plan):
                return actions[arguments.action](client, plan, arguments)
        finally:
            client.close()
    except ContainerError as error:
        print(f"speech-gateway: {error}", file=sys.stderr)
        return STATUS_FAILED
    except KeyboardInterrupt:
        print("\nspeech-gateway: stopped waiting; the container is as it is", file=sys.stderr)
        return 128 + 2


def up(client: Any, plan: ContainerPlan, arguments: argparse.Namespace) -> int:
    """Start the container, made anew where its settings have changed."""
    container = docker_engine.find(client, plan)
    if arguments.pull or not docker_engine.has_image(client, plan):
        docker_engine.pull(client, plan)
    if container is not None and container.labels.get(LABEL) != plan.fingerprint:
        print(f"{plan.name} was made from other settings; making it anew")
        _remove(container)
        container = None
    if container is None or container.status != "running":
        docker_engine.check_port(plan)
        _check_gpu(client, plan, skip=arguments.skip_gpu_check)
    if container is None:
        docker_engine.fetch_weights(client, plan, _script("fetch_weights.py"))
        _seed_voices(client, plan)
        container = docker_engine.create(client, plan, _script("engine_health.py"))
    elif container.status != "running":
        container.start()
    print(f"{plan.name} runs {plan.image} ({docker_engine.digest(client, plan)})")
    return _wait(container, plan, arguments.wait_seconds)


def _check_gpu(client: Any, plan: ContainerPlan, *, skip: bool) -> None:
    """Look at the GPU from inside the image, as the engine will."""
    cards = read_cards(docker_engine.run_once(client, plan, QUERY, gpu=True, voices=False))
    for number, card in enumerate(cards):
        print(f"GPU {number}: {card}")
    share = plan.command[plan.command.index("--gpu-memory-utilization") + 1]
    if not skip:
        check_cards(cards, float(share))


def _seed_voices(client: Any, plan: ContainerPlan) -> None:
    """Put the image's own presets into a new voices folder, which replaces them."""
    if plan.voices_folder is None:
        return
    Path(plan.voices_folder).mkdir(parents=True, exist_ok=True)
    command = ["python3", "-c", _script("seed_voices.py"), VOICES_PATH, str(os.getuid())]
    print(docker_engine.run_once(client, plan, command, gpu=False, voices=True).strip())


def _script(name: str) -> str:
    """A script of this package, which runs inside the image."""
    return importlib.resources.files(__package__ or "").joinpath(name).read_text("utf-8")


def _wait(container: Any, plan: ContainerPlan, seconds: float) -> int:
    if seconds <= 0:
        return 0
    with tqdm(total=None, bar_format="{elapsed} {desc}", file=sys.stderr) as bar:

        def tell(elapsed: float, line: str) -> None:
            del elapsed
            bar.set_description_str(line or "waiting for the engine")

        taken = wait_ready(container, plan, seconds, tell)
    print(f"ready after {taken:.0f} s: it speaks at {plan.address}")
    return 0


def _existing(client: Any, plan: ContainerPlan) -> Any:
    container = docker_engine.find(client, plan)
    if container is None:
        raise ContainerError(
            f"There is no container {plan.name}; `speech-gateway container up` makes it."
        )
    return container


def status(client: Any, plan: ContainerPlan, arguments: argparse.Namespace) -> int:
    """Print the state; 0 only where the engine speaks."""
    del arguments
    container = _existing(client, plan)
    state = container.attrs["State"]
    ready = container.status == "running" and speaks(plan.address)
    for name, value in {
        "name": plan.name,
        "state": container.status,
        "started": state["StartedAt"],
        "restarts": container.attrs["RestartCount"],
        "image": container.attrs["Config"]["Image"],
        "address": plan.address,
        "settings": "as in the file" if container.labels.get(LABEL) == plan.fingerprint
        else "changed since it was made: `up` makes it anew",
        "ready": "yes, it speaks" if ready else "no",
    }.items():  # fmt: skip
        print(f"{name:<10}{value}")
    return 0 if ready else STATUS_NOT_READY


def logs(client: Any, plan: ContainerPlan, arguments: argparse.Namespace) -> int:
    """Print the log, and go on where that is asked for."""
    container = _existing(client, plan)
    stream = container.logs(stream=True, follow=arguments.follow, tail=arguments.tail)
    for data in stream:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    return 0


def restart(client: Any, plan: ContainerPlan, arguments: argparse.Namespace) -> int:
    """Restart and wait."""
    container = _existing(client, plan)
    container.restart(timeout=docker_engine.STOP_SECONDS)
    return _wait(container, plan, arguments.wait_seconds)


def down(client: Any, plan: ContainerPlan, arguments: argparse.Namespace) -> int:
    """Stop and remove."""
    del arguments
    container = docker_engine.find(client, plan)
    if container is None:
        print(f"there is no container {plan.name}")
        return 0
    _remove(container)
    docker_engine.remove_network(client)
    print(f"{plan.name} is gone; models and voices are kept")
    return 0


def _remove(container: Any) -> None:
    container.stop(timeout=docker_engine.STOP_SECONDS)
    container.remove(force=True)


def gpu(client: Any, plan: ContainerPlan, arguments: argparse.Namespace) -> int:
    """Print what the engine has loaded, and what of it the running streams use."""
    del arguments
    container = _existing(client, plan)
    if container.status != "running":
        raise ContainerError(f"{plan.name} does not run ({container.status}).")
    done = container.exec_run(QUERY)
    cards = read_cards(done.output.decode(errors="replace"))
    if done.exit_code or not cards:
        raise ContainerError(f"nvidia-smi lists no GPU inside {plan.name}.")
    for number, card in enumerate(cards):
        print(
            f"GPU {number}: {card}; loaded {card.used_mebibytes / 1024:.1f} of "
            f"{card.total_mebibytes / 1024:.1f} GiB"
        )
    share = _cache_share(plan)
    if share is not None:
        print(f"in use by running streams: {share:.1%} of the engine's cache")
    return 0


def _cache_share(plan: ContainerPlan) -> float | None:
    """The share of the engine's cache that running streams hold, where it tells."""
    try:
        exposition = httpx.get(plan.address + "/metrics", timeout=10).text
    except httpx.HTTPError:
        return None
    for line in exposition.splitlines():
        if line.startswith(CACHE_METRIC):
            return float(line.rsplit(" ", 1)[1])
    return None
