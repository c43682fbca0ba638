"""The real servers: where each comes from, and how it is started with its model replaced.

What is fetched lies in `.cache/peers`, which is never committed. A checkout that lies there already
is used as it is, so that a machine without git's hosts can be given one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from loadtest.processes import answers, free_port, wait_until

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "peers"
FETCH_SECONDS = 1800
START_SECONDS = 300.0
WITHOUT_DEPENDENCIES = ("vllm==0.30.0", "vllm-omni==0.30.0", "sglang-omni==0.1.9", "numba==0.65.0")


@dataclass(frozen=True, slots=True)
class Peer:
    """One server.

    Attributes:
        engine: What the gateway calls it.
        arguments: Script below this folder and its arguments; `{port}` and `{rear}` are filled in.
        repository: GitHub's name of its repository, or None where PyPI has it.
        commit: Of that repository.
        rear: A peer that must run behind it.
        takes: Of `recording`, `recording without words` and `instructions`.
        voices: Names that it must list.
        tells_aborts: Its engine is told when a client leaves.
        settings: Of the gateway.
    """

    engine: str
    arguments: tuple[str, ...]
    repository: str | None = None
    commit: str = ""
    rear: str | None = None
    takes: frozenset[str] = frozenset()
    voices: frozenset[str] = frozenset()
    tells_aborts: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)


RECORDING, WORDLESS, INSTRUCTIONS = "recording", "recording without words", "instructions"
PEERS: Mapping[str, Peer] = {
    "travisvn": Peer(
        "chatterbox-tts-api",
        ("fastapi_server.py", "travisvn", "{port}"),
        repository="travisvn/chatterbox-tts-api",
        commit="a5f4661",
    ),
    "devnen": Peer(
        "chatterbox-tts-server",
        ("fastapi_server.py", "devnen", "{port}"),
        repository="devnen/Chatterbox-TTS-Server",
        commit="68213e7",
    ),
    "kokoro": Peer(
        "kokoro-fastapi",
        ("fastapi_server.py", "kokoro", "{port}"),
        repository="remsky/Kokoro-FastAPI",
        commit="26eec06",
        voices=frozenset({"af_heart"}),
    ),
    "litellm": Peer(
        "litellm",
        ("litellm_server.py", "{port}", "{rear}"),
        rear="kokoro",
        takes=frozenset({INSTRUCTIONS}),
        settings={"upstream_api_key": "sk-local-test", "voice_aliases": "alloy=alloy"},
    ),
    "vllm-omni higgs v2": Peer(
        "vllm-omni",
        ("vllm_omni_server.py", "{port}", "higgs_audio_v2"),
        takes=frozenset({RECORDING}),
        tells_aborts=True,
    ),
    "vllm-omni higgs v3": Peer(
        "vllm-omni",
        ("vllm_omni_server.py", "{port}", "higgs_audio_v3"),
        takes=frozenset({RECORDING, WORDLESS}),
        tells_aborts=True,
    ),
    "vllm-omni qwen3": Peer(
        "vllm-omni",
        ("vllm_omni_server.py", "{port}", "qwen3_tts"),
        takes=frozenset({RECORDING, INSTRUCTIONS}),
        voices=frozenset({"vivian", "ryan"}),
        tells_aborts=True,
    ),
    "sglang-omni": Peer(
        "sglang-omni",
        ("sglang_omni_server.py", "{port}"),
        takes=frozenset({RECORDING, WORDLESS}),
        tells_aborts=True,
    ),
}


def _run(*command: str) -> None:
    """Run a step of the fetching; skip the test with its last words where it fails."""
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=FETCH_SECONDS)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{' '.join(command[:4])} … did not end within {FETCH_SECONDS} s")
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode(errors="replace").strip().splitlines()
        pytest.skip(f"{' '.join(command[-2:])} cannot be fetched: {words[-1] if words else '?'}")


def environment(name: str, *steps: tuple[str, ...]) -> Path:
    """The interpreter of an environment with packages; one that is there is used as it is."""
    folder = CACHE / name
    done = folder / "complete"
    python = folder / "bin" / "python"
    if not done.exists():
        _run(sys.executable, "-m", "venv", str(folder))
        for step in steps:
            _run(str(python), "-m", "pip", "install", "--quiet", *step)
        done.touch()
    return python


def checkout(peer: Peer) -> Path:
    """The folder of a repository at its commit."""
    assert peer.repository
    folder = CACHE / peer.repository.split("/")[1]
    if not folder.exists():
        address = f"https://github.com/{peer.repository}"
        partial = folder.with_suffix(".partial")
        _run("git", "clone", "--quiet", "--no-checkout", address, str(partial))
        _run("git", "-C", str(partial), "checkout", "--quiet", peer.commit)
        partial.rename(folder)
    return folder


@dataclass(frozen=True, slots=True)
class RunningPeer:
    """A server that runs.

    Attributes:
        peer: Its row.
        url: Its base address.
        log: What it wrote.
    """

    peer: Peer
    url: str
    log: Path


@contextmanager
def running_peer(name: str, folder: Path) -> Iterator[RunningPeer]:
    """Start a server, and what must run behind it; skip where it cannot be fetched."""
    peer = PEERS[name]
    if peer.rear is not None:
        with running_peer(peer.rear, folder) as rear:
            python = environment("litellm", ("litellm[proxy]==1.108.7",))
            with _started(peer, name, python, folder, rear.url) as running:
                yield running
        return
    python = environment(
        "servers", ("-r", str(HERE / "requirements.txt")), ("--no-deps", *WITHOUT_DEPENDENCIES)
    )
    with _started(peer, name, python, checkout(peer) if peer.repository else folder) as running:
        yield running


@contextmanager
def _started(
    peer: Peer, name: str, python: Path, folder: Path, rear: str = ""
) -> Iterator[RunningPeer]:
    port = free_port()
    script, *arguments = peer.arguments
    command = [str(python), str(HERE / script)]
    command += [argument.format(port=port, rear=rear) for argument in arguments]
    log = CACHE / f"{name.replace(' ', '-')}.log"
    url = f"http://127.0.0.1:{port}"
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(HERE.parents[1])}
    with (
        log.open("wb") as sink,
        subprocess.Popen(command, cwd=folder, env=variables, stdout=sink, stderr=sink) as process,
    ):
        try:
            wait_until(
                lambda: process.poll() is not None or answers(url + "/openapi.json"),
                f"{name} serves; {log}",
                START_SECONDS,
            )
            assert process.poll() is None, log.read_text(errors="replace")[-2000:]
            yield RunningPeer(peer, url, log)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
