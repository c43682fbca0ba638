"""Attention of one new position a row over the row's own slot of the cache.

Grouped: the query heads of a key-value head share its loads, nothing is repeated. Split-KV: a row's
tiles of positions are dealt to several programs, whose partial softmaxes a second kernel merges. A
row's result depends on its own length alone, never on its neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engines.higgs.kernels.triton_import import runs_kernels, tl, triton

_TILE_POSITIONS = 64
_GROUP = 16  # tl.dot wants 16 rows at least; a group of three heads is padded to it


def splits_of(batch: int, kv_heads: int) -> int:
    """Return how many programs read a row's key-value head: more where few rows must fill the card.

    Fixed for a size of batch, so that a captured graph and a row's rounding do not vary.
    """
    # Measured on an H100 (132 multiprocessors) at lengths to 850 positions.
    return max(2, min(16, 512 // (batch * kv_heads)))


def decode_attention(
    queries: Tensor, keys: Tensor, values: Tensor, slots: Tensor, positions: Tensor
) -> Tensor:
    """Attend from one position a row to all of its slot up to and with that position.

    Args:
        queries: [batch, heads, head_dim], rotated.
        keys: [slots, kv_heads, context, head_dim], one layer of the cache.
        values: As the keys.
        slots: int32 [batch].
        positions: int32 [batch]; row i sees positions[i] + 1 positions.

    Returns:
        [batch, heads * head_dim].
    """
    if not runs_kernels(queries):
        return decode_attention_twin(queries, keys, values, slots, positions)
    batch, heads, head_dim = queries.shape
    kv_heads = keys.shape[1]
    splits = splits_of(batch, kv_heads)
    partial = torch.empty(
        batch, heads, splits, head_dim, dtype=torch.float32, device=queries.device
    )
    # Per split: the largest score and the sum of the exponentials.
    weights = torch.empty(batch, heads, splits, 2, dtype=torch.float32, device=queries.device)
    out = torch.empty(batch, heads * head_dim, dtype=queries.dtype, device=queries.device)
    _attend_split[(batch, kv_heads, splits)](
        queries, keys, values, slots, positions, partial, weights,
        keys.stride(0), keys.stride(1), head_dim**-0.5,
        HEADS=heads, GROUP=heads // kv_heads, PADDED=_GROUP, DIM=head_dim,
        SPLITS=splits, TILE=_TILE_POSITIONS, num_warps=4, num_stages=3,
    )  # fmt: skip
    _merge_splits[(batch, heads)](
        partial, weights, positions, out, HEADS=heads, DIM=head_dim, SPLITS=splits,
        PADDED=triton.next_power_of_2(splits), TILE=_TILE_POSITIONS, num_warps=1,
    )  # fmt: skip
    return out


def decode_attention_twin(
    queries: Tensor, keys: Tensor, values: Tensor, slots: Tensor, positions: Tensor
) -> Tensor:
    """Plain PyTorch of `decode_attention`: tiles of one position, each of its own length."""
    places = torch.arange(len(slots), device=slots.device)
    tiles = torch.stack((places, torch.ones_like(places), slots, positions), 1)
    return prefill_attention_twin(queries, keys, values, places, tiles)


@triton.jit
def _add_tile(query, key, value, seen, scale, largest, total, result):
    """Add a tile of keys and values to a softmax: its largest score, its sum and its product."""
    scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
    scores = tl.where(seen, scores, float("-inf"))
    new_largest = tl.maximum(largest, tl.max(scores, axis=1))
    shrink = tl.exp(largest - new_largest)
    exponentials = tl.exp(scores - new_largest[:, None])
    total = total * shrink + tl.sum(exponentials, axis=1)
    product = tl.dot(exponentials.to(value.dtype), value, input_precision="ieee")
    return new_largest, total, result * shrink[:, None] + product


@triton.jit
def _attend_split(
    queries, keys, values, slots, positions, partial, weights,
    slot_stride, head_stride, scale,
    HEADS: tl.constexpr, GROUP: tl.constexpr, PADDED: tl.constexpr, DIM: tl.constexpr,
    SPLITS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    length = tl.load(positions + row) + 1
    if split * TILE >= length:
        return
    slot = tl.load(slots + row).to(tl.int64)
    base = slot * slot_stride + kv_head * head_stride
    group = tl.arange(0, PADDED)
    dims = tl.arange(0, DIM)
    tile = tl.arange(0, TILE)
    heads = kv_head * GROUP + group
    in_group = group < GROUP
    query = tl.load(
        queries + (row * HEADS + heads)[:, None] * DIM + dims[None, :],
        mask=in_group[:, None], other=0.0,
    )  # fmt: skip
    largest = tl.full([PADDED], float("-inf"), tl.float32)
    total = tl.zeros([PADDED], tl.float32)
    result = tl.zeros([PADDED, DIM], tl.float32)
    for first in range(split * TILE, length, SPLITS * TILE):
        at = first + tile
        seen = at < length
        cells = base + at[:, None] * DIM + dims[None, :]
        key = tl.load(keys + cells, mask=seen[:, None], other=0.0)
        value = tl.load(values + cells, mask=seen[:, None], other=0.0)
        largest, total, result = _add_tile(
            query, key, value, seen[None, :], scale, largest, total, result
        )
    cell = (row * HEADS + heads) * SPLITS + split
    tl.store(partial + cell[:, None] * DIM + dims[None, :], result, mask=in_group[:, None])
    tl.store(weights + cell * 2, largest, mask=in_group)
    tl.store(weights + cell * 2 + 1, total, mask=in_group)


@triton.jit
def _merge_splits(
    partial, weights, positions, out,
    HEADS: tl.constexpr, DIM: tl.constexpr, SPLITS: tl.constexpr, PADDED: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    used = tl.minimum(SPLITS, (tl.load(positions + row) + TILE) // TILE)
    cell = (row * HEADS + head) * SPLITS + tl.arange(0, PADDED)
    valid = tl.arange(0, PADDED) < used
    dims = tl.arange(0, DIM)
    largest = tl.load(weights + cell * 2, mask=valid, other=float("-inf"))
    share = tl.exp(largest - tl.max(largest, axis=0))
    total = tl.sum(share * tl.load(weights + cell * 2 + 1, mask=valid, other=0.0), axis=0)
    parts = tl.load(partial + cell[:, None] * DIM + dims[None, :], mask=valid[:, None], other=0.0)
    result = tl.sum(parts * share[:, None], axis=0) / total
    tl.store(out + (row * HEADS + head) * DIM + dims, result.to(out.dtype.element_ty))


PREFILL_TILE = 64  # queries of a program; `tiles` below is made of it


def prefill_attention(
    queries: Tensor, keys: Tensor, values: Tensor, places: Tensor, tiles: Tensor
) -> Tensor:
    """Attend from new positions of several slots to all of their slot before and with them.

    Args:
        queries: [rows, heads, head_dim], rotated, in any order.
        keys: [slots, kv_heads, context, head_dim], one layer of the cache.
        values: As the keys.
        places: int32 [positions], the row of each position, one prompt's after another.
        tiles: int32 [tiles, 4]: index of a tile's first position in `places`, how many positions it
            has (64 at most), their slot, and where in it the first one stands.

    Returns:
        [rows, heads * head_dim]; zeros in rows that no place names.
    """
    if not runs_kernels(queries):
        return prefill_attention_twin(queries, keys, values, places, tiles)
    heads, head_dim = queries.shape[1:]
    out = torch.zeros_like(queries).flatten(1)
    _prefill[(tiles.shape[0], heads)](
        queries, keys, values, places, tiles, out, keys.stride(0), keys.stride(1), head_dim**-0.5,
        HEADS=heads, GROUP=heads // keys.shape[1], DIM=head_dim, TILE=PREFILL_TILE,
        num_warps=4, num_stages=2,
    )  # fmt: skip
    return out


def prefill_attention_twin(
    queries: Tensor, keys: Tensor, values: Tensor, places: Tensor, tiles: Tensor
) -> Tensor:
    """Plain PyTorch of `prefill_attention`, tile by tile."""
    out = torch.zeros_like(queries).flatten(1)
    group, scale = queries.shape[1] // keys.shape[1], queries.shape[2] ** -0.5
    for first, count, slot, start in tiles.tolist():
        rows = places[first : first + count].long()
        key, value = (
            part[slot, :, : start + count].float().repeat_interleave(group, 0)
            for part in (keys, values)
        )
        scores = queries[rows].float().transpose(0, 1) @ key.transpose(1, 2) * scale
        at = torch.arange(start, start + count, device=queries.device)[:, None]
        later = torch.arange(start + count, device=queries.device)[None, :] > at
        attended = scores.masked_fill(later, -torch.inf).softmax(-1) @ value
        out[rows] = attended.transpose(0, 1).reshape(count, -1).to(out.dtype)
    return out


@triton.jit
def _prefill(
    queries, keys, values, places, tiles, out, slot_stride, head_stride, scale,
    HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    description = tiles + tl.program_id(0) * 4
    head = tl.program_id(1)
    first, count = tl.load(description), tl.load(description + 1)
    slot, start = tl.load(description + 2).to(tl.int64), tl.load(description + 3)
    index = tl.arange(0, TILE)
    dims = tl.arange(0, DIM)
    valid = index < count
    row = tl.load(places + first + index, mask=valid, other=0).to(tl.int64)
    cells = (row * HEADS + head)[:, None] * DIM + dims[None, :]
    query = tl.load(queries + cells, mask=valid[:, None], other=0.0)
    base = slot * slot_stride + (head // GROUP) * head_stride
    largest = tl.full([TILE], float("-inf"), tl.float32)
    total = tl.zeros([TILE], tl.float32)
    result = tl.zeros([TILE, DIM], tl.float32)
    end = start + count
    for tile in range(0, end, TILE):
        at = tile + index
        seen = at < end
        cache = base + at[:, None] * DIM + dims[None, :]
        key = tl.load(keys + cache, mask=seen[:, None], other=0.0)
        value = tl.load(values + cache, mask=seen[:, None], other=0.0)
        not_later = at[None, :] <= (start + index)[:, None]
        largest, total, result = _add_tile(
            query, key, value, not_later, scale, largest, total, result
        )
    result = (result / total[:, None]).to(out.dtype.element_ty)
    tl.store(out + cells, result, mask=valid[:, None])
