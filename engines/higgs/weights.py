"""Fills the decoder's weights from a checkpoint of either layout, or with random numbers.

Tensors are read one by one from the safetensors files, fused, rounded to the chosen precision and
moved to the device, so that loading needs little more memory than the result. Text embeddings stay
in the host's memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor

from engines.higgs.config import ModelConfig, UnsupportedCheckpointError
from engines.higgs.kernels.quantised import GROUP, Dense, Tinygemm, quantise
from engines.higgs.model import Layer, Linear, Weights

# Bits of attention and audio feed-forward, and of the text feed-forward. Head and embeddings of
# codes stay as they are: rounding them makes speech drift.
_BITS = {"bf16": (16, 16), "int8": (8, 4), "int4": (4, 4)}
_FULL_BITS, _TINYGEMM_BITS = 16, 4
Progress = Callable[[str, float], None]


def compute_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of activations: bf16 on a GPU (fp16 overflows), float32 on a CPU."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def weight_bytes(config: ModelConfig, precision: str, device: torch.device) -> int:
    """Return what the weights take on the device, scales included."""
    element = 2 if device.type == "cuda" else 4
    size_of = {16: float(element), 8: 1.0, 4: 0.5 + 2 * 4 / GROUP}
    audio, text = (size_of[bits] for bits in _BITS[precision])
    hidden, queries = config.hidden_size, config.heads * config.head_dim
    attention = hidden * (config.qkv_size + queries)
    mlp = 3 * hidden * config.intermediate_size
    layer = (attention + mlp) * audio + mlp * text
    codes = 2 * config.codebooks * config.codebook_size * hidden * element
    return int(config.layers * layer + codes)


class Source(Protocol):
    """Where tensors come from, by the names of transformers' layout without `model.`."""

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return the tensor; raises `UnsupportedCheckpointError` where its shape differs."""


class RandomSource:
    """Random weights of the published model's spread, made on the device; seeded."""

    def __init__(self, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(0)
        self._device = device
        self._dtype = compute_dtype(device)

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return norms of ones, and normal numbers of deviation 0.02 else."""
        if name.endswith("norm.weight"):
            return torch.ones(shape, dtype=self._dtype, device=self._device)
        noise = torch.empty(shape, dtype=self._dtype, device=self._device)
        return noise.normal_(0, 0.02, generator=self._generator)


# Boson's layout: the first spelling that the file has is taken; two parts are joined.
_OLD_NAMES = {
    "embed_audio_tokens.embed_audio_tokens.weight": [["audio_codebook_embeddings.weight"]],
    "embed_tokens.weight": [
        ["embed_tokens.weight"],
        ["embed_tokens.embedding_frozen.weight", "embed_tokens.embedding_trainable.weight"],
    ],
    "audio_lm_head.weight": [
        ["audio_decoder_proj.audio_lm_head.weight"],
        [
            "audio_decoder_proj.audio_lm_head.linear_frozen.weight",
            "audio_decoder_proj.audio_lm_head.linear_trainable.weight",
        ],
    ],
}


class CheckpointSource:
    """Safetensors files of a folder, in either layout.

    Args:
        folder: Holds `model.safetensors`, or several with an index.
        old_layout: The names are Boson's first ones.
        stack: Closes the files.
    """

    def __init__(self, folder: Path, stack: ExitStack, *, old_layout: bool) -> None:
        self._old_layout = old_layout
        self._files: dict[str, Any] = {}
        index = folder / "model.safetensors.index.json"
        if index.exists():
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        else:
            names = {"model.safetensors"}
        for name in sorted(names):
            if Path(name).name != name or not (folder / name).is_file():
                raise UnsupportedCheckpointError(f"{folder} lacks the weights file {name!r}")
            file = stack.enter_context(safe_open(folder / name, framework="pt"))
            self._files.update(dict.fromkeys(file.keys(), file))

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Read one tensor from its file."""
        if self._old_layout:
            spellings = _OLD_NAMES.get(name, [[name]])
        else:
            spellings = [[name if name == "audio_lm_head.weight" else f"model.{name}"]]
        for parts in spellings:
            if all(part in self._files for part in parts):
                tensor = torch.cat([self._files[part].get_tensor(part) for part in parts])
                if tensor.shape != shape:
                    found = tuple(tensor.shape)
                    raise UnsupportedCheckpointError(f"{name} is {found}, its config says {shape}")
                return tensor
        raise UnsupportedCheckpointError(f"the checkpoint has no tensor {spellings[0][0]!r}")


def load_weights(
    config: ModelConfig,
    source: Source,
    *,
    precision: str,
    device: torch.device,
    progress: Progress = lambda _what, _share: None,
) -> Weights:
    """Build the decoder's weights.

    Args:
        config: Shape.
        source: Of the tensors.
        precision: bf16, int8 or int4; on a CPU bf16 is computed in float32.
        device: Where the decoder runs.
        progress: Told what is loaded, and the share from 0 to 1.

    Raises:
        UnsupportedCheckpointError: A tensor is missing, or its shape differs.
    """
    build = _Builder(config, source, device, precision)
    # First, while the device's memory is empty: random ones are made there.
    text = source.tensor("embed_tokens.weight", (config.vocab_size, config.hidden_size))
    text = text.to("cpu", build.dtype)
    layers = []
    for index in range(config.layers):
        progress("weights", index / config.layers)
        layers.append(build.layer(index))
    hidden = config.hidden_size
    codes = config.codebooks * config.codebook_size
    weights = Weights(
        layers=layers,
        text_embedding=text,
        audio_embedding=build.plain("embed_audio_tokens.embed_audio_tokens.weight", codes, hidden),
        norm=build.plain("norm.weight", hidden),
        audio_head=build.plain("audio_lm_head.weight", codes, hidden),
    )
    progress("weights", 1.0)
    return weights


class _Builder:
    def __init__(
        self, config: ModelConfig, source: Source, device: torch.device, precision: str
    ) -> None:
        self._config = config
        self._source = source
        self._device = device
        self._audio_bits, self._text_bits = _BITS[precision]
        self.dtype = compute_dtype(device)

    def plain(self, name: str, *shape: int) -> Tensor:
        return self._source.tensor(name, shape).to(self._device, self.dtype)

    def layer(self, index: int) -> Layer:
        config, at = self._config, f"layers.{index}."
        hidden, wide = config.hidden_size, config.intermediate_size
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        attention = [("q", queries), ("k", keys), ("v", keys)]
        qkv = [(f"{at}self_attn.{name}_proj.weight", size) for name, size in attention]
        out = [(f"{at}self_attn.o_proj.weight", hidden)]
        audio, text = self._audio_bits, self._text_bits

        def gate_up(net: str) -> list[tuple[str, int]]:
            return [(f"{at}{net}.{name}_proj.weight", wide) for name in ("gate", "up")]

        return Layer(
            qkv=self._linear(qkv, hidden, audio),
            out=self._linear(out, queries, audio),
            audio_gate_up=self._linear(gate_up("audio_mlp"), hidden, audio),
            audio_down=self._linear([(f"{at}audio_mlp.down_proj.weight", hidden)], wide, audio),
            text_gate_up=self._linear(gate_up("mlp"), hidden, text, decoded=False),
            text_down=self._linear(
                [(f"{at}mlp.down_proj.weight", hidden)], wide, text, decoded=False
            ),
            audio_attention_norm=self.plain(f"{at}audio_input_layernorm.weight", hidden),
            audio_mlp_norm=self.plain(f"{at}audio_post_attention_layernorm.weight", hidden),
            text_attention_norm=self.plain(f"{at}input_layernorm.weight", hidden),
            text_mlp_norm=self.plain(f"{at}post_attention_layernorm.weight", hidden),
        )

    def _linear(
        self, parts: list[tuple[str, int]], columns: int, bits: int, *, decoded: bool = True
    ) -> Linear:
        """Join weights that read the same input, and round them."""
        weight = torch.cat([self.plain(name, rows, columns) for name, rows in parts])
        if bits == _FULL_BITS:
            return Dense(weight)
        rounded = quantise(weight, bits)
        if decoded and bits == _TINYGEMM_BITS and self._device.type == "cuda":
            return Tinygemm.of(rounded)
        return rounded
