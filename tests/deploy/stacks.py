"""The real compose file as a project on a Docker engine, and clients that keep it busy."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Self

import httpx

from loadtest.processes import free_port
from tests.deploy.docker_host import ROOT, Docker, call
from tests.running import answers

COMPOSE_FILE = ROOT / "deploy" / "docker-compose.yml"
CLIENTS = 4
# What the makers document, and the two options that the compose file adds to it.
DOCUMENTED_ARGUMENTS = (
    "--served-model-name higgs-audio-v2-generation-3B-base "
    "--model "
    "/root/.cache/huggingface/snapshots/10840182ca4ad5d9d9113b60b9bb3c1ef1ba3f84 "
    "--audio-tokenizer-type "
    "/root/.cache/huggingface/snapshots/9d4988fbd4ad07b4cac3a5fa462741a41810dbec "
    "--limit-mm-per-prompt audio=50 --max-model-len 8192 --port 8000 "
    "--gpu-memory-utilization 0.8 --disable-mm-preprocessor-cache"
)
ADDED_ARGUMENTS = "--disable-log-requests --voice-presets-dir /voices"


class Stack:
    """One Compose project made of the real compose file.

    Args:
        docker: The engine.
        project: The project's name.
        **variables: What the shell would set: profiles, images, ports.
    """

    def __init__(self, docker: Docker, project: str, **variables: str) -> None:
        self.docker = docker
        self.environment = {
            **docker.environment,
            **variables,
            "COMPOSE_PROJECT_NAME": project,
        }
        self.project = project
        self.files = [COMPOSE_FILE]
        self.url = f"http://127.0.0.1:{variables['SPEECH_GATEWAY_PORT']}"

    def compose(self, *arguments: str) -> str:
        """One `docker compose` command."""
        files = [part for file in self.files for part in ("-f", str(file))]
        return call("docker", "compose", *files, *arguments, environment=self.environment)

    def container(self, service: str) -> str:
        """The id of a service's one container, running or not."""
        ids = self.compose("ps", "--all", "--quiet", service).split()
        assert len(ids) == 1, f"{service} has the containers {ids}"
        return ids[0]

    def inspect(self, service: str, template: str) -> str:
        """A part of what the engine knows about a service's container."""
        return self.docker.run("inspect", "--format", template, self.container(service))


class CpuStack(Stack):
    """The profiles cpu and monitoring, on free ports."""

    def __init__(self, docker: Docker, images: dict[str, str]) -> None:
        self.port, self.prometheus_port = free_port(), free_port()
        super().__init__(
            docker,
            "speech-gateway-test",
            **images,
            COMPOSE_PROFILES="cpu,monitoring",
            GATEWAY_REPLICAS="1",
            SPEECH_GATEWAY_ADDRESS="127.0.0.1",
            SPEECH_GATEWAY_PORT=str(self.port),
            PROMETHEUS_PORT=str(self.prometheus_port),
            ALERTMANAGER_PORT=str(free_port()),
            GRAFANA_PORT=str(free_port()),
        )

    def say(self, text: str, seconds: float = 120) -> httpx.Response:
        """One buffered request."""
        body = {"model": "tts-1", "voice": "alloy", "input": text, "response_format": "wav"}
        return httpx.post(self.url + "/v1/audio/speech", json=body, timeout=seconds)

    def ready(self) -> bool:
        """Whether the gateway is."""
        return answers(self.url + "/ready")

    def metrics(self) -> str:
        """The gateway's figures."""
        return httpx.get(self.url + "/metrics", timeout=60).text

    def query(self, expression: str) -> dict[str, float]:
        """What Prometheus answers, by job."""
        answer = httpx.get(
            f"http://127.0.0.1:{self.prometheus_port}/api/v1/query",
            params={"query": expression},
        )
        result = answer.raise_for_status().json()["data"]["result"]
        return {row["metric"].get("job", ""): float(row["value"][1]) for row in result}


class Load:
    """Clients with connections that they keep, each asking again when it has its answer."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self.answered = 0
        self.failures: list[Any] = []

    def _client(self) -> None:
        body = {"model": "tts-1", "voice": "alloy", "input": "Hello there, my friend."}
        with httpx.Client(timeout=120) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(self._url + "/v1/audio/speech", json=body)
                    if answer.status_code == 200 and len(answer.content) > 5000:
                        self.answered += 1
                    else:
                        self.failures.append((answer.status_code, answer.text[:200]))
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))

    def __enter__(self) -> Self:
        """Begin."""
        self._threads = [threading.Thread(target=self._client) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End with the answers that are on their way."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


HUB = """
services:
  hub:
    image: ${HIGGS_IMAGE}
    profiles: [gpu]
    entrypoint: [python3, /hub.py, "8080"]
    stop_signal: SIGKILL
  weights:
    depends_on: [hub]
    environment:
      HF_ENDPOINT: http://hub:8080
      WEIGHTS_PAUSE_SECONDS: "1"
  engine:
    environment: [FAKE_ENGINE_ARGUMENTS, FAKE_ENGINE_START_FILE, ENGINE_HEALTH_ANSWER_SECONDS]
    healthcheck: {interval: "${ENGINE_HEALTH_INTERVAL:-10s}"}
    stop_grace_period: 1s
"""


class GpuStack(Stack):
    """The profile gpu on a free port, from an empty data root, with a hub to fetch from.

    Args:
        docker: The engine.
        images: The variables that name images.
        folder: Where the file of the hub goes.
        project: The project's name.
        **variables: What the shell would set besides.
    """

    def __init__(
        self, docker: Docker, images: dict[str, str], folder: Path, project: str, **variables: str
    ) -> None:
        super().__init__(
            docker,
            project,
            **images,
            COMPOSE_PROFILES="gpu",
            SPEECH_GATEWAY_ADDRESS="127.0.0.1",
            SPEECH_GATEWAY_PORT=str(free_port()),
            **variables,
        )
        hub = folder / "hub.yml"
        hub.write_text(HUB)
        self.files = [*self.files, hub]

    def ready(self) -> bool:
        """Whether the gateway is."""
        return answers(self.url + "/ready")
