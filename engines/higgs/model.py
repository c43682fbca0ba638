"""The decoder: attention shared by text and audio, a feed-forward net for each.

Decode runs on audio rows alone (attention, audio feed-forward, audio head); text meets its own
feed-forward net only in prefill. Every projection is a callable that hides its precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.higgs.config import ModelConfig
from engines.higgs.kernels.attention import decode_attention, prefill_attention
from engines.higgs.kernels.fused import add_rms_norm, embed_rows, rotate_and_store, silu_mul
from engines.higgs.state import Field, SlotState

Linear = Callable[[Tensor], Tensor]


@dataclass(slots=True)
class Layer:
    """Weights of one decoder layer: gate and up fused, queries, keys and values fused."""

    qkv: Linear
    out: Linear
    audio_gate_up: Linear
    audio_down: Linear
    text_gate_up: Linear
    text_down: Linear
    audio_attention_norm: Tensor
    audio_mlp_norm: Tensor
    text_attention_norm: Tensor
    text_mlp_norm: Tensor


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
    def empty(cls, config: ModelConfig, slots: int, context: int, like: Tensor) -> Cache:
        """Return a cache of the dtype and on the device of `like`."""
        shape = (config.layers, slots, config.kv_heads, context, config.head_dim)
        return cls(*(torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in range(2)))


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive positions of one slot within a prefill batch.

    Attributes:
        slot: Whose positions they are.
        start: Position of the first.
        token_ids: [count], on the host.
        audio_rows: [audio positions of the segment, 8], on the host.
    """

    slot: int
    start: int
    token_ids: Tensor
    audio_rows: Tensor


class Decoder:
    """Computes decode steps and prefills over a slot cache.

    Args:
        config: Shape.
        weights: In the dtype that it computes in.
        context: Positions that the rotary table covers.
    """

    def __init__(self, config: ModelConfig, weights: Weights, context: int) -> None:
        self.config = config
        self.weights = weights
        self.device = weights.norm.device
        angles = torch.arange(context)[:, None].float() * torch.tensor(config.inv_freq)
        self._rotary = (torch.stack((angles.cos(), angles.sin()), 1) * config.rotary_scale).to(
            self.device
        )

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
        fields = state.integers.index_select(0, slots)
        positions = fields[:, Field.POSITION].contiguous()
        last_row = state.integers[:, Field.LAST_ROW].contiguous()
        hidden = embed_rows(state.rows, slots, last_row, weights.audio_embedding)
        update = None
        for index, layer in enumerate(weights.layers):
            normed = add_rms_norm(hidden, update, layer.audio_attention_norm, eps)
            keys, values = cache.keys[index], cache.values[index]
            queries = rotate_and_store(
                layer.qkv(normed), slots, positions, self._rotary, keys, values
            )
            update = layer.out(decode_attention(queries, keys, values, slots, positions))
            normed = add_rms_norm(hidden, update, layer.audio_mlp_norm, eps)
            update = layer.audio_down(silu_mul(layer.audio_gate_up(normed)))
        normed = add_rms_norm(hidden, update, weights.norm, eps)
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
        batch = _PrefillBatch(segments, self.config, self.device)
        hidden = self._embed(batch, segments)
        update = None
        for index, layer in enumerate(weights.layers):
            normed = batch.norm(
                hidden, update, layer.text_attention_norm, layer.audio_attention_norm, eps
            )
            keys, values = cache.keys[index], cache.values[index]
            queries = rotate_and_store(
                layer.qkv(normed), batch.slots, batch.positions, self._rotary, keys, values
            )
            if index == len(weights.layers) - 1 and not logits:
                break
            attended = torch.cat(
                [
                    prefill_attention(
                        part, keys[s.slot, :, : s.end], values[s.slot, :, : s.end], s.start
                    )
                    for part, s in zip(queries.split(batch.counts), batch.spans, strict=True)
                ]
            )
            normed = batch.norm(
                hidden, layer.out(attended), layer.text_mlp_norm, layer.audio_mlp_norm, eps
            )
            update = torch.empty_like(hidden)
            if len(batch.text):
                gated = silu_mul(layer.text_gate_up(normed[batch.text]))
                update[batch.text] = layer.text_down(gated)
            if len(batch.audio):
                gated = silu_mul(layer.audio_gate_up(normed[batch.audio]))
                update[batch.audio] = layer.audio_down(gated)
        if not logits:
            return hidden
        normed = add_rms_norm(hidden, update, weights.norm, eps)
        return torch.nn.functional.linear(normed, weights.audio_head)

    def _embed(self, batch: _PrefillBatch, segments: Sequence[Segment]) -> Tensor:
        table = self.weights.text_embedding
        hidden = to_device(table[batch.token_ids], self.device)
        if len(batch.audio):
            rows = torch.cat([segment.audio_rows for segment in segments]).long()
            rows = rows + torch.arange(rows.shape[1]) * self.config.codebook_size
            codes = to_device(rows, self.device)
            hidden[batch.audio] = self.weights.audio_embedding[codes].sum(dim=-2)
        return hidden


@dataclass(frozen=True, slots=True)
class _Span:
    slot: int
    start: int
    end: int


class _PrefillBatch:
    """Indices of a prefill, made on the host and copied at once."""

    def __init__(
        self, segments: Sequence[Segment], config: ModelConfig, device: torch.device
    ) -> None:
        self.counts = [len(segment.token_ids) for segment in segments]
        self.spans = [
            _Span(segment.slot, segment.start, segment.start + count)
            for segment, count in zip(segments, self.counts, strict=True)
        ]
        self.token_ids = torch.cat([segment.token_ids for segment in segments]).long()
        audio = (self.token_ids == config.audio_token_id) | (
            self.token_ids == config.audio_delay_token_id
        )
        self.text = to_device((~audio).nonzero()[:, 0], device)
        self.audio = to_device(audio.nonzero()[:, 0], device)
        slots = torch.cat([torch.full((s.end - s.start,), s.slot) for s in self.spans])
        self.slots = to_device(slots.int(), device)
        positions = torch.cat([torch.arange(s.start, s.end) for s in self.spans])
        self.positions = to_device(positions.int(), device)
        self._is_audio = to_device(audio, device)[:, None]

    def norm(
        self, hidden: Tensor, update: Tensor | None, text: Tensor, audio: Tensor, eps: float
    ) -> Tensor:
        """Add, and norm each position with its own kind's weight."""
        normed = add_rms_norm(hidden, update, text, eps)
        return torch.where(self._is_audio, add_rms_norm(hidden, None, audio, eps), normed)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy without waiting for what the device does."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
