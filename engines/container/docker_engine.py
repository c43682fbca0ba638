"""What the Docker engine does for us, with each of its failures as one clear sentence.

Docker's own errors are told apart by their status and class where it gives any; where it only has
a text (GPU, ports), the text is matched here and nowhere else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import DeviceRequest
from tqdm import tqdm

from engines.container.plan import (
    LABEL,
    MODELS_PATH,
    NO_ROUTER,
    VOICES_PATH,
    ContainerError,
    ContainerPlan,
)

CALL_TIMEOUT_SECONDS = 60
# The host reaches the published port, which `internal` would not allow, and the engine reaches
# nobody beyond the host (its `audio_url` would fetch any address, and it runs code that came with
# the weights): what it sends passes no router unless it asks for it, and no answer would find the
# way back to it.
NETWORK = "speech-gateway-engine"
NETWORK_OPTIONS = {"com.docker.network.bridge.enable_ip_masquerade": "false"}
HEALTH_NANOSECONDS = {
    "interval": 10 * 10**9,
    "timeout": 30 * 10**9,
    "start_period": 3600 * 10**9,
}
NO_TAG = ("manifest unknown", "manifest for", "not found")
STOP_SECONDS = 20  # the engine stalls open streams at SIGTERM (docs/contract.md section 3)
NO_DRIVER = "could not select device driver"
NO_GPU = ("nvidia-container-cli", "nvml", "no nvidia", "cdi")
PORT_TAKEN = ("port is already allocated", "address already in use")
TOOLKIT = (
    "Docker cannot give a container the GPU: install the NVIDIA Container Toolkit, then run "
    "`nvidia-ctk runtime configure --runtime=docker` and restart Docker."
)
DRIVER = (
    "The NVIDIA Container Toolkit finds no working driver on this machine: `nvidia-smi` must work "
    "on the host first."
)


def connect() -> Any:
    """A client of the engine that DOCKER_HOST names, or of the local one.

    Raises:
        ContainerError: None answers.
    """
    where = os.environ.get("DOCKER_HOST", "the local socket")
    try:
        client = docker.from_env(timeout=CALL_TIMEOUT_SECONDS)
    except DockerException as error:
        raise _no_engine(where, error) from error
    try:
        client.ping()
    except (DockerException, OSError) as error:
        client.close()
        raise _no_engine(where, error) from error
    return client


def _no_engine(where: str, error: Exception) -> ContainerError:
    if "Permission denied" in str(error):
        return ContainerError(
            f"The Docker engine at {where} refuses this user: run as root, or join the group that "
            "owns its socket."
        )
    return ContainerError(
        f"No Docker engine answers at {where}: is Docker installed and running? "
        "DOCKER_HOST may name another one."
    )


@contextlib.contextmanager
def translated(plan: ContainerPlan) -> Iterator[None]:
    """Turn what Docker says into a `ContainerError`."""
    try:
        yield
    except ImageNotFound as error:
        raise ContainerError(
            f"There is no image {plan.image}: check HIGGS_IMAGE, and that its registry can be "
            "reached."
        ) from error
    except APIError as error:
        said = str(error.explanation or error)
        raise ContainerError(_sentence(plan, said)) from error
    except (DockerException, OSError) as error:
        raise ContainerError(f"The Docker engine failed: {error}") from error


def _sentence(plan: ContainerPlan, said: str) -> str:
    lower = said.lower()
    if NO_DRIVER in lower:
        return TOOLKIT
    if any(mark in lower for mark in PORT_TAKEN):
        return port_taken(plan.port)
    if any(mark in lower for mark in NO_GPU):
        return DRIVER
    return f"Docker: {' '.join(said.split())[:300]}"


def port_taken(port: int) -> str:
    """The error message for a port that is in use."""
    return (
        f"Port {port} of this machine is taken by another process: stop that, or set HIGGS_PORT "
        "to a free one."
    )


def check_port(plan: ContainerPlan) -> None:
    """See that nobody has the port; Docker would say so only after the image was pulled.

    Raises:
        ContainerError: It is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", plan.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ContainerError(port_taken(plan.port)) from None
            raise


def find(client: Any, plan: ContainerPlan) -> Any | None:
    """The container of that name, or None."""
    with translated(plan):
        try:
            return client.containers.get(plan.name)
        except NotFound:
            return None


def has_image(client: Any, plan: ContainerPlan) -> bool:
    """Whether the image is on this machine."""
    with translated(plan):
        try:
            client.images.get(plan.image)
        except ImageNotFound:
            return False
        return True


def pull(client: Any, plan: ContainerPlan) -> None:
    """Fetch the image, with a bar.

    Raises:
        ContainerError: It cannot be had.
    """
    layers: dict[str, tuple[int, int]] = {}
    with (
        translated(plan),
        tqdm(desc=f"Pulling {plan.image}", unit="B", unit_scale=True, unit_divisor=1024) as bar,
    ):
        for event in client.api.pull(plan.image, stream=True, decode=True):
            if "error" in event:
                raise ContainerError(not_pulled(plan, str(event["error"])))
            detail = event.get("progressDetail") or {}
            if event.get("status") == "Downloading" and detail.get("total"):
                layers[event["id"]] = (detail["current"], detail["total"])
                bar.total = sum(total for _, total in layers.values())
                bar.n = sum(current for current, _ in layers.values())
                bar.refresh()
            elif event.get("status") == "Download complete" and event["id"] in layers:
                total = layers[event["id"]][1]
                layers[event["id"]] = (total, total)


def not_pulled(plan: ContainerPlan, said: str) -> str:
    """What to say about an image that cannot be pulled."""
    if any(mark in said.lower() for mark in NO_TAG):
        return (
            f"The registry has no image {plan.image}: set "
            f"HIGGS_IMAGE={plan.image.rpartition(':')[0]}:latest"
        )
    return f"The image {plan.image} cannot be pulled: {said}"[:300]


def digest(client: Any, plan: ContainerPlan) -> str:
    """The digest by which the image can be pinned; its id where no registry has named one."""
    with translated(plan):
        image = client.images.get(plan.image)
        return str((image.attrs.get("RepoDigests") or [image.id])[0])


def fetch_weights(client: Any, plan: ContainerPlan, script: str) -> None:
    """Run the download of the weights in the image and print what it says, as it says it.

    Raises:
        ContainerError: It failed; its last line is the reason.
    """
    last = b""
    with translated(plan):
        container = client.containers.create(
            plan.image,
            entrypoint=["python3", "-c", script],
            command=[],
            environment=dict(plan.weights_environment),
            volumes={plan.models: {"bind": MODELS_PATH, "mode": "rw"}},
        )
        try:
            container.start()
            for data in container.logs(stream=True, follow=True):
                last = data.strip() or last
                print(data.decode(errors="replace"), end="", flush=True)
            status = container.wait()["StatusCode"]
        finally:
            container.remove(force=True)
    if status:
        raise ContainerError(last.decode(errors="replace") or f"it ended with {status}")


def run_once(
    client: Any, plan: ContainerPlan, entrypoint: list[str], *, gpu: bool, voices: bool
) -> str:
    """Run one command in the image, without a network; return what it printed.

    Raises:
        ContainerError: It could not be started, or failed.
    """
    with translated(plan):
        try:
            printed: bytes = client.containers.run(
                plan.image,
                entrypoint=entrypoint,
                command=[],
                network_mode="none",
                remove=True,
                device_requests=_gpus() if gpu else None,
                volumes=_voices(plan) if voices else None,
            )
        except docker.errors.ContainerError as error:
            said = (error.stderr or b"").decode(errors="replace").strip()
            last = said.splitlines()[-1] if said else f"status {error.exit_status}"
            raise ContainerError(f"{entrypoint[0]} failed in {plan.image}: {last[:200]}") from error
    return printed.decode(errors="replace")


def _gpus() -> list[Any]:
    return [DeviceRequest(count=-1, capabilities=[["gpu"]])]


def _voices(plan: ContainerPlan) -> dict[str, dict[str, str]]:
    if plan.voices_folder is None:
        return {}
    return {plan.voices_folder: {"bind": VOICES_PATH, "mode": "rw"}}


def _network(client: Any) -> str:
    """The engine's network, made where it is not there."""
    if not client.networks.list(names=[f"^{NETWORK}$"]):
        client.networks.create(NETWORK, driver="bridge", options=NETWORK_OPTIONS)
    return NETWORK


def remove_network(client: Any) -> None:
    """Remove the engine's network, unless another engine is on it."""
    for network in client.networks.list(names=[f"^{NETWORK}$"]):
        with contextlib.suppress(APIError):
            network.remove()


def create(client: Any, plan: ContainerPlan, health_script: str) -> Any:
    """Make the container as its makers document it, and start it.

    Raises:
        ContainerError: Docker does not.
    """
    with translated(plan):
        container = client.containers.create(
            plan.image,
            list(plan.command),
            name=plan.name,
            labels={LABEL: plan.fingerprint},
            environment=dict(plan.environment),
            init=True,
            healthcheck={"test": ["CMD", "python3", "-c", health_script], **HEALTH_NANOSECONDS},
            network=_network(client),
            sysctls=NO_ROUTER,
            ipc_mode="host",
            shm_size=plan.shared_memory_bytes,
            device_requests=_gpus(),
            # The server kills itself when its engine dies, and engine_health.py kills a server
            # whose engine hangs (docs/contract.md sections 1 and 3).
            restart_policy={"Name": "unless-stopped"},
            ports={f"{plan.port}/tcp": ("127.0.0.1", plan.port)},
            volumes={plan.models: {"bind": MODELS_PATH, "mode": "rw"}, **_voices(plan)},
            log_config={"type": "json-file", "config": {"max-size": "10m", "max-file": "5"}},
        )
    try:
        with translated(plan):
            container.start()
    except ContainerError:
        container.remove(force=True)  # a container that never ran is in the way of the next try
        raise
    return container
