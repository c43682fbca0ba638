"""What container the settings file asks for. Pure: nothing here talks to Docker.

The file is `deploy/vllm.env`, the same that Compose reads, so both start the same engine.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from dotenv import dotenv_values

DEFAULT_FILES = (Path("deploy/vllm.env"), Path("vllm.env"))
DEFAULT_NAME = "higgs-audio"
PROJECT = "speech-gateway"  # Compose puts it before its volumes: one download serves both
MODELS_PATH = "/root/.cache/huggingface"
SNAPSHOTS_PATH = MODELS_PATH + "/snapshots"  # where fetch_weights.py links each commit
VOICES_PATH = "/voices"
LABEL = "speech-gateway.plan"
SIZE = re.compile(r"(\d+)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)

# As the engine's makers document it; image and commits: docs/contract.md section 7.
DEFAULTS = {
    "HIGGS_IMAGE": "bosonai/higgs-audio-vllm:v0.8.3-250730",
    "HIGGS_SERVED_MODEL_NAME": "higgs-audio-v2-generation-3B-base",
    "HIGGS_MODEL": "bosonai/higgs-audio-v2-generation-3B-base",
    "HIGGS_MODEL_REVISION": "10840182ca4ad5d9d9113b60b9bb3c1ef1ba3f84",
    "HIGGS_AUDIO_TOKENIZER": "bosonai/higgs-audio-v2-tokenizer",
    "HIGGS_AUDIO_TOKENIZER_REVISION": "9d4988fbd4ad07b4cac3a5fa462741a41810dbec",
    "HIGGS_HUBERT_REVISION": "",
    "HIGGS_MODELS": "models",
    "HIGGS_LIMIT_MM_PER_PROMPT": "audio=50",
    "HIGGS_MAX_MODEL_LEN": "8192",
    "HIGGS_PORT": "8000",
    "HIGGS_GPU_MEMORY_UTILIZATION": "0.8",
    "HIGGS_SHM_SIZE": "20gb",
}
WEIGHTS_VARIABLES = (
    "HIGGS_MODEL",
    "HIGGS_MODEL_REVISION",
    "HIGGS_AUDIO_TOKENIZER",
    "HIGGS_AUDIO_TOKENIZER_REVISION",
    "HIGGS_HUBERT_REVISION",
)
HUB_VARIABLES = ("HF_TOKEN", "HF_ENDPOINT")  # from the shell, for the download alone
# The engine loads what was fetched, asks no hub and tells nobody of its use.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}


class ContainerError(Exception):
    """Something about the container is not as it must be; the message is one clear sentence."""


NO_ROUTER = {"net.ipv4.ip_default_ttl": "1"}  # of what the engine sends: see docker_engine


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """A container as it should be.

    Attributes:
        name: The container's name.
        image: Image and tag.
        command: Arguments of the engine.
        port: Where it listens, inside and on the host's loopback.
        shared_memory_bytes: Size of /dev/shm.
        models: Volume, or folder of the host, that is the engine's Hugging Face cache.
        voices_folder: Folder of the host that holds the voices, or None for the image's own.
        environment: Variables of the container.
        weights_environment: Variables of the download before it.
    """

    name: str
    image: str
    command: tuple[str, ...]
    port: int
    shared_memory_bytes: int
    models: str
    voices_folder: str | None
    environment: Mapping[str, str]
    weights_environment: Mapping[str, str]

    @property
    def address(self) -> str:
        """The engine's base address on this host."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def fingerprint(self) -> str:
        """Tells a container that was made from other settings."""
        # The commits of the weights stand in the command.
        fields = {**asdict(self), "weights_environment": None, "network": NO_ROUTER}
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def size_bytes(text: str) -> int:
    """A size as Docker writes it: `20gb`, `512m`.

    Raises:
        ContainerError: It is none.
    """
    found = SIZE.fullmatch(text.strip())
    if found is None:
        raise ContainerError(f"HIGGS_SHM_SIZE: {text!r} is not a size like 20gb.")
    return int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[found[2].lower()]


def read_file(path: Path | None) -> dict[str, str]:
    """The variables of a settings file; the shell's go before them.

    Args:
        path: The file, or None for the first of `DEFAULT_FILES` that there is.

    Raises:
        ContainerError: A file that was named cannot be read.
    """
    if path is None:
        path = next((file for file in DEFAULT_FILES if file.is_file()), None)
    elif not path.is_file():
        raise ContainerError(f"There is no settings file {path}.")
    values = dotenv_values(path) if path else {}
    given = {name: value for name, value in values.items() if value}
    known = given.keys() | DEFAULTS.keys() | {"GATEWAY_VOICES_DIR"}
    return {**given, **{name: os.environ[name] for name in known if os.environ.get(name)}}


def make_plan(values: Mapping[str, str], name: str | None = None) -> ContainerPlan:
    """The container that variables ask for.

    Args:
        values: As `read_file` returns them; the documented defaults stand in for missing ones.
        name: The container's name; default: `higgs-audio`.

    Raises:
        ContainerError: A value makes no sense.
    """
    value = {**DEFAULTS, **{key: text for key, text in values.items() if text}}
    if not value["HIGGS_PORT"].isdecimal() or not 0 < int(value["HIGGS_PORT"]) < 1 << 16:
        raise ContainerError(f"HIGGS_PORT: {value['HIGGS_PORT']!r} is not a port.")
    command = [
        *("--served-model-name", value["HIGGS_SERVED_MODEL_NAME"]),
        *("--model", f"{SNAPSHOTS_PATH}/{value['HIGGS_MODEL_REVISION']}"),
        *(
            "--audio-tokenizer-type",
            f"{SNAPSHOTS_PATH}/{value['HIGGS_AUDIO_TOKENIZER_REVISION']}",
        ),
        *("--limit-mm-per-prompt", value["HIGGS_LIMIT_MM_PER_PROMPT"]),
        *("--max-model-len", value["HIGGS_MAX_MODEL_LEN"]),
        *("--port", value["HIGGS_PORT"]),
        *("--gpu-memory-utilization", value["HIGGS_GPU_MEMORY_UTILIZATION"]),
        "--disable-mm-preprocessor-cache",
        "--disable-log-requests",  # it would write every text into its log
    ]
    folder = value.get("GATEWAY_VOICES_DIR")
    if folder:
        command += ["--voice-presets-dir", VOICES_PATH]
    models = value["HIGGS_MODELS"]
    hub = {key: os.environ[key] for key in HUB_VARIABLES if os.environ.get(key)}
    health = {key: value[key] for key in ("HIGGS_PORT", "HIGGS_SERVED_MODEL_NAME")}
    return ContainerPlan(
        name=name or DEFAULT_NAME,
        image=value["HIGGS_IMAGE"],
        command=tuple(command),
        port=int(value["HIGGS_PORT"]),
        shared_memory_bytes=size_bytes(value["HIGGS_SHM_SIZE"]),
        models=str(Path(models).resolve()) if "/" in models else f"{PROJECT}_{models}",
        voices_folder=str(Path(folder).resolve()) if folder else None,
        environment={**OFFLINE, **health},
        weights_environment={**{key: value[key] for key in WEIGHTS_VARIABLES}, **hub},
    )
