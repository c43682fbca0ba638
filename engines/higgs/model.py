"""The decoder: attention shared by text and audio, a feed-forward net for each.

Decode runs on audio rows alone (attention, audio feed-forward, audio head); text meets its own
feed-forward net only in prefill. Every projection is a callable that hides its precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import HiggsAudioV2Config
from transformers.models.higgs_audio_v2.modeling_higgs_audio_v2 import HiggsAudioV2RotaryEmbedding

from engines.higgs.generation import CODEBOOKS
from engines.higgs.kernels import fused
from engines.higgs.kernels.attention import PREFILL_TILE, decode_attention, prefill_attention
from engines.higgs.state import Field, SlotState


class Linear(Protocol):
    """A projection of any precision."""

    def __call__(self, x: Tensor) -> Tensor:
        """Project many rows, [rows, in] to [rows, out]."""

    def few(self, x: Tensor) -> Tensor:
        """Project few rows; float32 [parts, rows, out] stands for its sum over the parts."""


@dataclass(slots=True)
class Branch:
    """What a layer has for one kind of positions, audio or text; gate and up fused."""

    gate_up: Linear
    down: Linear
    attention_norm: Tensor
    mlp_norm: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Run many rows [rows, hidden] through the feed-forward net."""
        return self.down(fused.silu_mul(self.gate_up(x)))


@dataclass(slots=True)
class Layer:
    """Weights of one decoder layer; queries, keys and values fused."""

    qkv: Linear
    out: Linear
    audio: Branch
    text: Branch


@dataclass(slots=True)
class Weights:
    """All weights.

    Attributes:
        text_embedding: [vocab, hidden], in the host's memory: a prompt's rows are copied.
        audio_embedding: [8 * codebook_size, hidden].
        norm: [hidden].
        audio_head: [8 * codebook_size, hidden].
    """

    layers: list[Layer]
    text_embedding: Tensor
    audio_embedding: Tensor
    norm: Tensor
    audio_head: Tensor


@dataclass(slots=True)
class Cache:
    """Keys and values of all slots: [layers, slots, kv_heads, context, head_dim] each."""

    keys: Tensor
    values: Tensor

    @classmethod
    def empty(cls, config: HiggsAudioV2Config, slots: int, context: int, like: Tensor) -> Cache:
        """Return a cache of the dtype and on the device of `like`."""
        heads = config.num_key_value_heads
        shape = (config.num_hidden_layers, slots, heads, context, config.head_dim)
        return cls(*(torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in range(2)))


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive positions of one slot within a prefill batch.

    Attributes:
        slot: Whose positions they are.
        start: Position of the first.
        token_ids: [count].
        audio_rows: [audio positions of the segment, 8].
    """

    slot: int
    start: int
    token_ids: NDArray[np.int32]
    audio_rows: NDArray[np.int16]


class Decoder:
    """Computes decode steps and prefills over a slot cache.

    Args:
        config: Shape.
        weights: In the dtype that it computes in.
        context: Positions that the rotary table covers.
    """

    def __init__(self, config: HiggsAudioV2Config, weights: Weights, context: int) -> None:
        self.config = config
        self.weights = weights
        self.device = weights.norm.device
        rotary = HiggsAudioV2RotaryEmbedding(config)
        angles = torch.arange(context)[:, None].float() * rotary.inv_freq
        turns = torch.stack((angles.cos(), angles.sin()), 1) * rotary.attention_scaling
        self._rotary = turns.to(self.device)

    def decode(self, slots: Tensor, state: SlotState, cache: Cache) -> Tensor:
        """Run each slot's newest code row through the decoder.

        Args:
            slots: int32 [batch].
            state: Of all slots.
            cache: Keys and values of the row are written to it.

        Returns:
            Logits [batch, 8 * codebook_size].
        """
        weights, eps = self.weights, self.config.rms_norm_eps
        positions = state.integers[:, Field.POSITION].index_select(0, slots)
        last_row = state.integers[:, Field.LAST_ROW].contiguous()
        hidden = fused.embed_rows(state.rows, slots, last_row, weights.audio_embedding)
        update = None
        for index, layer in enumerate(weights.layers):
            normed = fused.add_rms_norm(hidden, update, layer.audio.attention_norm, eps)
            keys, values = cache.keys[index], cache.values[index]
            queries = fused.rotate_and_store(
                layer.qkv.few(normed), slots, positions, self._rotary, keys, values
            )
            update = layer.out.few(decode_attention(queries, keys, values, slots, positions))
            normed = fused.add_rms_norm(hidden, update, layer.audio.mlp_norm, eps)
            update = layer.audio.down.few(fused.silu_mul(layer.audio.gate_up.few(normed)))
        normed = fused.add_rms_norm(hidden, update, weights.norm, eps)
        return torch.nn.functional.linear(normed, weights.audio_head)

    def prefill(self, segments: Sequence[Segment], cache: Cache, *, logits: bool = False) -> Tensor:
        """Write the keys and values of segments of prompts into their slots.

        The first generated row needs no logits (the delay pattern fixes it), so the last layer
        ends with its keys and values.

        Args:
            segments: Of different slots.
            cache: Holds what stands before each segment.
            logits: Compute them all the same, for comparison with another implementation.

        Returns:
            Logits [positions, 8 * codebook_size] where asked for, else the last hidden states.
        """
        weights, eps = self.weights, self.config.rms_norm_eps
        batch = PrefillBatch(segments, self.config, cache, self.device)
        texts = batch.text_rows
        hidden = self._embed(batch)
        update = None
        for index, layer in enumerate(weights.layers):
            first = (layer.text.attention_norm, texts)
            normed = fused.add_rms_norm(
                hidden, update, layer.audio.attention_norm, eps, first=first
            )
            keys, values = cache.keys[index], cache.values[index]
            queries = fused.rotate_and_store(
                layer.qkv(normed), batch.slots, batch.positions, self._rotary, keys, values
            )
            if index == len(weights.layers) - 1 and not logits:
                return hidden
            attended = prefill_attention(queries, keys, values, batch.places, batch.tiles)
            first, update = (layer.text.mlp_norm, texts), layer.out(attended)
            normed = fused.add_rms_norm(hidden, update, layer.audio.mlp_norm, eps, first=first)
            kinds = ((layer.text, normed[:texts]), (layer.audio, normed[texts:]))
            update = torch.cat([branch(rows) for branch, rows in kinds if len(rows)])
        normed = fused.add_rms_norm(hidden, update, weights.norm, eps)
        return torch.nn.functional.linear(normed[batch.places.long()], weights.audio_head)

    def _embed(self, batch: PrefillBatch) -> Tensor:
        """Return [rows, hidden]: embeddings of text, then sums of embeddings of codes."""
        text = to_device(self.weights.text_embedding[batch.text_ids], self.device)
        return torch.cat((text, fused.sum_of_embeddings(batch.codes, self.weights.audio_embedding)))


# Rows of text and rows of audio are each filled up to one of these, so that the dense kernels see
# few sizes, all of which are loaded at the start.
PREFILL_BUCKETS = (64, 128, 256, 384, 512, 768, 1024)


def _bucket(rows: int, device: torch.device) -> int:
    if rows == 0 or device.type != "cuda":
        return rows
    return next((size for size in PREFILL_BUCKETS if size >= rows), rows)


class PrefillBatch:
    """Positions of several slots as rows, all text before all audio, and where each one stands.

    Made on the host and copied at once.

    Attributes:
        text_ids: int64 [text rows], on the host; the rows that fill up the bucket repeat token 0.
        text_rows: Rows of text, the bucket's filling included.
        codes: int64 [audio rows, 8].
        slots: int32 [rows]; rows that fill up a bucket are written to the scratch slot.
        positions: int32 [rows].
        places: int32 [positions], the row of each position.
        tiles: int32 [tiles, 4], see `prefill_attention`.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        config: HiggsAudioV2Config,
        cache: Cache,
        device: torch.device,
    ) -> None:
        counts = [len(segment.token_ids) for segment in segments]
        token_ids = np.concatenate([segment.token_ids for segment in segments])
        audio = np.isin(token_ids, (config.audio_token_id, config.audio_delay_token_id))
        audios, texts = int(audio.sum()), int((~audio).sum())
        self.text_rows = _bucket(texts, device)
        rows = self.text_rows + _bucket(audios, device)
        self.text_ids = torch.zeros(self.text_rows, dtype=torch.long)
        self.text_ids[:texts] = torch.from_numpy(token_ids[~audio])
        places = np.where(audio, self.text_rows + audio.cumsum(), (~audio).cumsum()) - 1
        slots = np.full(rows, cache.keys.shape[1] - 1)
        slots[places] = np.repeat([segment.slot for segment in segments], counts)
        positions = np.zeros(rows, np.int64)
        positions[places] = np.concatenate(
            [np.arange(s.start, s.start + n) for s, n in zip(segments, counts, strict=True)]
        )
        tiles = []
        first = 0
        for segment, count in zip(segments, counts, strict=True):
            for at in range(0, count, PREFILL_TILE):
                size = min(PREFILL_TILE, count - at)
                tiles.append((first + at, size, segment.slot, segment.start + at))
            first += count
        codes = np.zeros((rows - self.text_rows, CODEBOOKS), np.int64)
        codes[:audios] = np.concatenate([segment.audio_rows for segment in segments])
        parts = [slots, positions, places, np.ravel(tiles), np.ravel(codes)]
        whole = to_device(torch.from_numpy(np.concatenate(parts).astype(np.int32)), device)
        self.slots, self.positions, self.places, flat_tiles, flat_codes = whole.split(
            [len(part) for part in parts]
        )
        self.tiles = flat_tiles.view(-1, 4)
        self.codes = flat_codes.view(-1, CODEBOOKS).long()


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy without waiting for what the device does."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
