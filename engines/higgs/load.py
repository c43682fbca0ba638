"""Brings the engine up: finds the checkpoint, checks the card, sizes the slots, loads, starts.

Everything that a card or a checkpoint cannot do is refused here, with what is needed and what is
there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import HiggsAudioV2Config

from engines.higgs.config import random_config, read_config
from engines.higgs.loop import GenerationLoop, LoopOptions
from engines.higgs.model import Decoder
from engines.higgs.progress import show
from engines.higgs.prompt import PromptBuilder, tokenizer_of
from engines.higgs.weights import checkpoint_source, load_weights, random_source, weight_bytes

RANDOM_MODELS = ("random", "random-tiny")
# What is in a checkpoint's repository and is needed: weights, configurations, the tokenizer.
_HUB_PATTERNS = ["*.json", "*.safetensors", "*.jinja"]
MOST_SLOTS = 64  # chosen at most where the operator names no number
# Beside weights, slots and codec, measured on an H100: what kernels, graphs and a chunk of prefill
# take of PyTorch's memory, and what CUDA takes beside that.
_WORKING_BYTES = 512 << 20
_CONTEXT_BYTES = 800 << 20
_SWITCH_SECONDS = 0.0005
# Less of a larger chunk's time goes to reading the weights: 15 ms on an H100. Cards without room
# for so many slots are slower, and their streams would starve meanwhile.
_CHUNK, _LARGE_CHUNK, _MANY_SLOTS = 512, 1024, 32
_LEAST_CAPABILITY = (8, 0)  # bf16 in Triton's tl.dot


class UnsuitableCardError(ValueError):
    """The device cannot run the engine as asked."""


class NotEnoughMemoryError(ValueError):
    """Weights and one slot do not fit the device's free memory."""


def load_engine(
    model: str,
    *,
    revision: str | None = None,
    precision: str = "bf16",
    slots: int | None = None,
    context: int,
    device: torch.device,
    deterministic: bool = False,
    queue_size: int = 64,
    codec_bytes: int = 0,
    memory_bytes: int | None = None,
) -> tuple[GenerationLoop, PromptBuilder, dict[str, Any]]:
    """Load a model and start its loop; blocks for seconds to minutes and tells how far it is.

    Args:
        model: A folder, a hub repository, `random` or `random-tiny`.
        revision: Of the hub repository.
        precision: bf16, int8 or int4.
        slots: Generations at once; None takes what fits, 64 at most.
        context: Positions of a slot.
        device: From `choose_device`.
        deterministic: See `LoopOptions`.
        queue_size: Requests that may wait.
        codec_bytes: Device memory to leave to the codec.
        memory_bytes: Of the device for the whole process; None: what is free.

    Returns:
        The running loop, what writes prompts with the checkpoint's tokenizer, and facts for
        `/capabilities`.

    Raises:
        NotEnoughMemoryError: The memory does not hold it.
        UnsupportedCheckpointError: The checkpoint is another model's, or damaged.
    """
    began = time.monotonic()
    # The loop's thread asks for the interpreter after each wait for the device; by default another
    # thread may keep it for 5 ms more, which is longer than a step.
    sys.setswitchinterval(_SWITCH_SECONDS)
    random = model in RANDOM_MODELS
    show("files of the model: finding them, or fetching them from the hub")
    folder = None if random else fetched(model, revision, _HUB_PATTERNS)
    config = random_config(tiny=model == "random-tiny") if folder is None else read_config(folder)
    builder = PromptBuilder(tokenizer_of(folder), config)
    need = weight_bytes(config, precision, device)
    free = free_bytes(device, memory_bytes)
    count = slots_that_fit(
        config, free, slots=slots, context=context, used_bytes=need + codec_bytes
    )
    source = random_source(device) if folder is None else checkpoint_source(folder)
    weights = load_weights(config, source, precision=precision, device=device)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what loading took for a moment
    options = LoopOptions(
        slots=count,
        context=context,
        queue_size=queue_size,
        prefix_positions=_prefix_positions(count, context),
        chunk_positions=_LARGE_CHUNK if count >= _MANY_SLOTS else _CHUNK,
        deterministic=deterministic,
        never_stop=random,
        repetition_guard=not random,
    )
    loop = GenerationLoop(Decoder(config, weights, context), options)
    loop.start()
    facts = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": precision,
        "slots": count,
        "context": context,
        "weight_bytes": need,
        "load_seconds": round(time.monotonic() - began, 1),
    }
    return loop, builder, facts


def choose_device(device: str) -> torch.device:
    """Return the device, having checked that it can run the kernels.

    Raises:
        UnsuitableCardError: It cannot.
    """
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UnsuitableCardError("no CUDA device is visible to PyTorch; --device cpu runs without")
    target = torch.device("cuda", torch.cuda.current_device())
    capability = torch.cuda.get_device_capability(target)
    if capability < _LEAST_CAPABILITY:
        name, have = torch.cuda.get_device_name(target), ".".join(map(str, capability))
        raise UnsuitableCardError(
            f"{name} has compute capability {have}; the kernels need 8.0 (Ampere) or later"
        )
    return target


def fetched(name: str, revision: str | None, patterns: list[str]) -> Path:
    """Return a local folder, or that of a repository's files, fetched from the hub.

    Raises:
        OSError: It is nowhere.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - only where there is a hub

    return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))


def free_bytes(device: torch.device, bound: int | None) -> int | None:
    """Return what PyTorch may take of the device, and see to it that it takes no more.

    Args:
        device: Where the engine runs.
        bound: Of the whole process; None: what is free.

    Returns:
        None on a CPU, where nothing is counted.
    """
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    if bound is not None and bound < free + _CONTEXT_BYTES:
        free = max(bound - _CONTEXT_BYTES, 0)
        torch.cuda.set_per_process_memory_fraction(free / total, device)
    return int(free)


def slots_that_fit(
    config: HiggsAudioV2Config,
    free: int | None,
    *,
    slots: int | None,
    context: int,
    used_bytes: int,
) -> int:
    """Return the number of slots, from the device's free memory.

    Args:
        config: Shape.
        free: Bytes, as `free_bytes` gives them.
        slots: What the operator asks for.
        context: Positions of a slot.
        used_bytes: What weights and codec will take.

    Raises:
        NotEnoughMemoryError: The slots asked for, or one slot, do not fit.
    """
    if free is None:
        return slots or 4
    left = free - used_bytes - _WORKING_BYTES
    heads = 2 * config.num_key_value_heads  # keys and values
    position = 2 * config.num_hidden_layers * heads * config.head_dim  # bytes of bf16

    def bytes_of(count: int) -> int:
        return position * ((count + 1) * context + _prefix_positions(count, context))

    fitting = next((n for n in range(slots or MOST_SLOTS, 0, -1) if bytes_of(n) <= left), 0)
    if fitting < (slots or 1):
        need = used_bytes + _WORKING_BYTES + bytes_of(slots or 1)
        raise NotEnoughMemoryError(
            f"{slots or 1} slots of {context} positions need {need / 2**30:.1f} GiB with the "
            f"weights, and {free / 2**30:.1f} GiB are free; fewer --slots, a smaller --context or "
            "--precision int8 or int4 need less"
        )
    return fitting


def _prefix_positions(slots: int, context: int) -> int:
    """Return how many positions of shared prefixes are kept beside this many slots."""
    return context * max(1, slots // 8)
