"""The engine that the contract suite asks: any address, or simulated and CPU engines of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtest.processes import running_engine
from tests.contract.simulators import Simulator, simulator

ENGINES = {
    "simulated": ("--tokens-per-second", "2000"),
    "cpu": (),
    "higgs": ("--model", "random-tiny", "--device", "cpu", "--context", "8192"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """An engine under test.

    Attributes:
        client: Asks it.
        model: Its model.
        voices: What it lists.
        kind: `simulated`, `cpu`, `higgs` or `container`.
    """

    client: httpx.Client
    model: str
    voices: list[str]
    kind: str

    def speech(self, **fields: Any) -> httpx.Response:
        """A speech request with sensible defaults; `...` leaves a field out."""
        body = {
            "model": self.model,
            "voice": self.voices[0],
            "input": "It was a bright cold day in April.",
            "max_tokens": 400,
            **fields,
        }
        body = {name: value for name, value in body.items() if value is not ...}
        return self.client.post("/v1/audio/speech", json=body)

    def chat(self, **fields: Any) -> httpx.Response:
        """A chat request that asks for speech."""
        body = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": "Generate audio following instruction."},
                {"role": "user", "content": "It was a bright cold day in April."},
            ],
            "modalities": ["text", "audio"],
            "audio": {"format": "wav", "voice": "alloy"},
            "max_completion_tokens": 400,
            "stop": ["<|eot_id|>", "<|end_of_text|>", "<|audio_eos|>"],
            **fields,
        }
        return self.client.post("/v1/chat/completions", json=body)


@contextmanager
def _target(address: str, key: str | None) -> Iterator[Target]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=address, headers=headers, timeout=120) as client:
        model = client.get("/v1/models").json()["data"][0]["id"]
        kind = "container"
        if model == "hibari-cpu":
            kind = "cpu"
        elif client.get("/simulator/state").status_code == 200:
            kind = "simulated"
        elif client.get("/capabilities").status_code == 200:
            kind = "higgs"
        yield Target(client, model, client.get("/v1/audio/voices").json(), kind)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Ask the named engine, or all of this repository's."""
    if "target" in metafunc.fixturenames:
        url = metafunc.config.getoption("--engine-url")
        metafunc.parametrize("target", [url] if url else list(ENGINES), indirect=True)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the simulator's own figures where another engine is asked."""
    own = collection_path.name.startswith("test_simulated_")
    return True if own and config.getoption("--engine-url") else None


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """The engine of a test."""
    if request.param.startswith("http"):
        with _target(request.param, request.config.getoption("--engine-api-key")) as target:
            yield target
        return
    if request.param == "higgs":
        for package in ("torch", "transformers"):
            pytest.importorskip(package, reason=f"needs {package}: scripts/install higgs-test")
    with (
        running_engine("--voice", request.param, *ENGINES[request.param]) as engine,
        _target(engine.address, None) as target,
    ):
        yield target


@pytest.fixture(scope="module")
def engine() -> Iterator[Simulator]:
    """A fast simulated engine, as the tests of its own figures ask it."""
    with simulator("--tokens-per-second", "2000") as running:
        yield running
