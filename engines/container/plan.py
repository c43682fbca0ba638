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
MODELS_VOLUME = "speech-gateway_models"  # the volume that Compose makes: one download for both
MODELS_PATH = "/root/.cache/huggingface"
VOICES_PATH = "/voices"
LABEL = "speech-gateway.plan"
SIZE = re.compile(r"(\d+)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)

# docs/contract.md: as the engine's makers document it.
DEFAULTS = {
    "HIGGS_IMAGE": "bosonai/higgs-audio-vllm:latest",
    "HIGGS_SERVED_MODEL_NAME": "higgs-audio-v2-generation-3B-base",
    "HIGGS_MODEL": "bosonai/higgs-audio-v2-generation-3B-base",
    "HIGGS_AUDIO_TOKENIZER": "bosonai/higgs-audio-v2-tokenizer",
    "HIGGS_LIMIT_MM_PER_PROMPT": "audio=50",
    "HIGGS_MAX_MODEL_LEN": "8192",
    "HIGGS_PORT": "8000",
    "HIGGS_GPU_MEMORY_UTILIZATION": "0.8",
    "HIGGS_SHM_SIZE": "20gb",
}


class ContainerError(Exception):
    """Something about the container is not as it must be; the message is one clear sentence."""


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """A container as it should be.

    Attributes:
        name: The container's name.
        image: Image and tag.
        command: Arguments of the engine.
        port: Where it listens, inside and on the host's loopback.
        shared_memory_bytes: Size of /dev/shm.
        voices_folder: Folder of the host that holds the voices, or None for the image's own.
        environment: Variables of the container.
    """

    name: str
    image: str
    command: tuple[str, ...]
    port: int
    shared_memory_bytes: int
    voices_folder: str | None
    environment: Mapping[str, str]

    @property
    def address(self) -> str:
        """The engine's base address on this host."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def fingerprint(self) -> str:
        """Tells a container that was made from other settings."""
        text = json.dumps(asdict(self), sort_keys=True)
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
    known = given.keys() | DEFAULTS.keys() | {"GATEWAY_VOICES_DIR", "GATEWAY_CONTAINER"}
    return {**given, **{name: os.environ[name] for name in known if os.environ.get(name)}}


def make_plan(values: Mapping[str, str], name: str | None = None) -> ContainerPlan:
    """The container that variables ask for.

    Args:
        values: As `read_file` returns them; the documented defaults stand in for missing ones.
        name: The container's name; else GATEWAY_CONTAINER, else `higgs-audio`.

    Raises:
        ContainerError: A value makes no sense.
    """
    value = {**DEFAULTS, **{key: text for key, text in values.items() if text}}
    if not value["HIGGS_PORT"].isdecimal() or not 0 < int(value["HIGGS_PORT"]) < 1 << 16:
        raise ContainerError(f"HIGGS_PORT: {value['HIGGS_PORT']!r} is not a port.")
    command = [
        *("--served-model-name", value["HIGGS_SERVED_MODEL_NAME"]),
        *("--model", value["HIGGS_MODEL"]),
        *("--audio-tokenizer-type", value["HIGGS_AUDIO_TOKENIZER"]),
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
    token = os.environ.get("HF_TOKEN")
    return ContainerPlan(
        name=name or value.get("GATEWAY_CONTAINER") or DEFAULT_NAME,
        image=value["HIGGS_IMAGE"],
        command=tuple(command),
        port=int(value["HIGGS_PORT"]),
        shared_memory_bytes=size_bytes(value["HIGGS_SHM_SIZE"]),
        voices_folder=str(Path(folder).resolve()) if folder else None,
        environment={"HF_TOKEN": token} if token else {},
    )
