"""Fills the decoder's weights from a checkpoint of either layout, or with random numbers.

Tensors are read one by one from the safetensors files, fused, rounded to the chosen precision and
moved to the device, so that loading needs little more memory than the result. Text embeddings stay
in the host's memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import HiggsAudioV2Config

from engines.higgs.config import UnsupportedCheckpointError
from engines.higgs.kernels.quantised import GROUP, Dense, Tinygemm, quantise
from engines.higgs.model import Branch, Layer, Linear, Weights
from engines.higgs.progress import shown

# Bits of attention and audio feed-forward, and of the text feed-forward. Head and embeddings of
# codes stay as they are: rounding them makes speech drift.
_BITS = {"bf16": (16, 16), "int8": (8, 4), "int4": (4, 4)}
_FULL_BITS, _TINYGEMM_BITS = 16, 4
# Gives a tensor of a shape by its name in transformers' layout, without `model.`; raises
# `UnsupportedCheckpointError` where its shape differs.
Source = Callable[[str, tuple[int, ...]], Tensor]


def compute_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of activations: bf16 on a GPU (fp16 overflows), float32 on a CPU."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def weight_bytes(config: HiggsAudioV2Config, precision: str, device: torch.device) -> int:
    """Return what the weights take on the device, scales included."""
    element = 2 if device.type == "cuda" else 4
    size_of = {16: float(element), 8: 1.0, 4: 0.5 + 2 * 4 / GROUP}
    audio, text = (size_of[bits] for bits in _BITS[precision])
    hidden, heads = config.hidden_size, config.num_attention_heads + config.num_key_value_heads
    attention = 2 * hidden * heads * config.head_dim
    mlp = 3 * hidden * config.intermediate_size
    layer = (attention + mlp) * audio + mlp * text
    codes = 2 * config.num_codebooks * config.codebook_size * hidden * element
    return int(config.num_hidden_layers * layer + codes)


def random_source(device: torch.device) -> Source:
    """Return a source of random weights, made on the device and seeded.

    Norms are ones; the rest are normal numbers of the published model's deviation, 0.02.
    """
    generator = torch.Generator(device).manual_seed(0)
    dtype = compute_dtype(device)

    def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
        if name.endswith("norm.weight"):
            return torch.ones(shape, dtype=dtype, device=device)
        noise = torch.empty(shape, dtype=dtype, device=device)
        return noise.normal_(0, 0.02, generator=generator)

    return tensor


# Boson's names that differ from transformers' by more than `model.`; two parts are joined.
_OLD_NAMES = {
    "embed_audio_tokens.embed_audio_tokens.weight": [["audio_codebook_embeddings.weight"]],
    "embed_tokens.weight": [
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


def checkpoint_source(folder: Path) -> Source:
    """Return a source that reads a folder's safetensors files, in either layout.

    Args:
        folder: Holds `model.safetensors`, or several with an index.

    Raises:
        UnsupportedCheckpointError: A file is missing.
    """
    index = folder / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if index.exists():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    files: dict[str, Any] = {}
    for name in sorted(names):
        if Path(name).name != name or not (folder / name).is_file():
            raise UnsupportedCheckpointError(f"{folder} lacks the weights file {name!r}")
        file: Any = safe_open(folder / name, framework="pt")
        files.update(dict.fromkeys(file.keys(), file))

    def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
        for parts in [[f"model.{name}"], [name], *_OLD_NAMES.get(name, [])]:
            if all(part in files for part in parts):
                found = torch.cat([files[part].get_tensor(part) for part in parts])
                if found.shape != shape:
                    raise UnsupportedCheckpointError(
                        f"{name} is {tuple(found.shape)}, its config says {shape}"
                    )
                return found
        raise UnsupportedCheckpointError(f"the checkpoint has no tensor {name!r}")

    return tensor


def load_weights(
    config: HiggsAudioV2Config, source: Source, *, precision: str, device: torch.device
) -> Weights:
    """Build the decoder's weights; tells how far it is.

    Args:
        config: Shape.
        source: Of the tensors.
        precision: bf16, int8 or int4; on a CPU bf16 is computed in float32.
        device: Where the decoder runs.

    Raises:
        UnsupportedCheckpointError: A tensor is missing, or its shape differs.
    """
    build = _Builder(config, source, device, precision)
    hidden, codes = config.hidden_size, config.num_codebooks * config.codebook_size
    # First, while the device's memory is empty: random ones are made there.
    text = source("embed_tokens.weight", (config.vocab_size, hidden)).to(
        "cpu", compute_dtype(device)
    )
    return Weights(
        layers=[build.layer(index) for index in shown(range(config.num_hidden_layers), "layers")],
        text_embedding=text,
        audio_embedding=build.plain("embed_audio_tokens.embed_audio_tokens", codes, hidden),
        norm=build.plain("norm", hidden),
        audio_head=build.plain("audio_lm_head", codes, hidden),
    )


@dataclass(frozen=True, slots=True)
class _Builder:
    config: HiggsAudioV2Config
    source: Source
    device: torch.device
    precision: str

    def plain(self, name: str, *shape: int) -> Tensor:
        return self.source(f"{name}.weight", shape).to(self.device, compute_dtype(self.device))

    def layer(self, index: int) -> Layer:
        config, at = self.config, f"layers.{index}."
        audio_bits, text_bits = _BITS[self.precision]
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        attention = {"q": queries, "k": keys, "v": keys}
        qkv = {f"{at}self_attn.{name}_proj": rows for name, rows in attention.items()}
        out = {f"{at}self_attn.o_proj": config.hidden_size}
        return Layer(
            qkv=self._linear(qkv, config.hidden_size, audio_bits),
            out=self._linear(out, queries, audio_bits),
            audio=self._branch(f"{at}audio_", audio_bits),
            text=self._branch(at, text_bits, decoded=False),
        )

    def _branch(self, prefix: str, bits: int, *, decoded: bool = True) -> Branch:
        hidden, wide = self.config.hidden_size, self.config.intermediate_size
        gate_up = {f"{prefix}mlp.{name}_proj": wide for name in ("gate", "up")}
        down = {f"{prefix}mlp.down_proj": hidden}
        return Branch(
            gate_up=self._linear(gate_up, hidden, bits, decoded=decoded),
            down=self._linear(down, wide, bits, decoded=decoded),
            attention_norm=self.plain(f"{prefix}input_layernorm", hidden),
            mlp_norm=self.plain(f"{prefix}post_attention_layernorm", hidden),
        )

    def _linear(
        self, parts: dict[str, int], columns: int, bits: int, *, decoded: bool = True
    ) -> Linear:
        """Join weights of so many rows each that read the same input, and round them."""
        weight = torch.cat([self.plain(name, rows, columns) for name, rows in parts.items()])
        if bits == _FULL_BITS:
            return Dense(weight)
        rounded = quantise(weight, bits)
        if decoded and bits == _TINYGEMM_BITS and self.device.type == "cuda":
            return Tinygemm.of(rounded)
        return rounded
