"""Four small fused kernels of a decode step, each beside its plain PyTorch twin.

They give what torch.compile would give here, without its minutes of compilation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engines.higgs.kernels.triton_import import runs_kernels, tl, triton


def embed_rows(rows: Tensor, slots: Tensor, last_row: Tensor, table: Tensor) -> Tensor:
    """Return the sum of the eight embeddings of each slot's newest code row.

    Args:
        rows: int32 [slots, history, 8], delayed codes.
        slots: int32 [batch], the slot of each row of the batch.
        last_row: int32 [slots], index of the newest row in `rows`.
        table: [8 * codebook_size, hidden].

    Returns:
        [batch, hidden], of the table's dtype.
    """
    if not runs_kernels(table):
        return embed_rows_twin(rows, slots, last_row, table)
    hidden = table.shape[1]
    out = torch.empty(slots.shape[0], hidden, dtype=table.dtype, device=table.device)
    block = 1024
    grid = (slots.shape[0], triton.cdiv(hidden, block))
    _embed_rows[grid](
        rows, slots, last_row, table, out, rows.stride(0), hidden,
        CODEBOOK_SIZE=table.shape[0] // 8, BLOCK=block,
    )  # fmt: skip
    return out


def embed_rows_twin(rows: Tensor, slots: Tensor, last_row: Tensor, table: Tensor) -> Tensor:
    """Plain PyTorch of `embed_rows`."""
    return sum_of_embeddings(rows[slots.long(), last_row[slots.long()].long()].long(), table)


def sum_of_embeddings(codes: Tensor, table: Tensor) -> Tensor:
    """Return [rows, hidden] of codes int64 [rows, 8]: the sum of a row's eight embeddings."""
    offsets = torch.arange(8, device=codes.device) * (table.shape[0] // 8)
    return table[codes + offsets].sum(dim=-2)


@triton.jit
def _embed_rows(
    rows, slots, last_row, table, out, slot_stride, hidden,
    CODEBOOK_SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < hidden
    slot = tl.load(slots + row).to(tl.int64)
    codes = rows + slot * slot_stride + tl.load(last_row + slot) * 8
    total = tl.zeros([BLOCK], tl.float32)
    for book in tl.static_range(8):
        index = (tl.load(codes + book) + book * CODEBOOK_SIZE).to(tl.int64)
        total += tl.load(table + index * hidden + columns, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row * hidden + columns, total.to(out.dtype.element_ty), mask=mask)


def add_rms_norm(
    residual: Tensor,
    update: Tensor | None,
    weight: Tensor,
    eps: float,
    *,
    first: tuple[Tensor, int] | None = None,
) -> Tensor:
    """Add `update` to `residual` in place and return the normed sum.

    Args:
        residual: [rows, hidden].
        update: As the residual, or its float32 parts [parts, rows, hidden], which are summed.
        weight: [hidden].
        eps: Added to the mean square.
        first: Another weight, and how many rows from the first on take it.

    Returns:
        [rows, hidden], of the residual's dtype.
    """
    if not runs_kernels(residual):
        return add_rms_norm_twin(residual, update, weight, eps, first=first)
    rows, hidden = residual.shape
    out = torch.empty_like(residual)
    parts = 0 if update is None else 1 if update.ndim == 2 else update.shape[0]
    first_weight, first_rows = first or (weight, 0)
    _add_rms_norm[(rows,)](
        residual, residual if update is None else update, weight, first_weight, out,
        first_rows, rows * hidden, hidden, eps,
        PARTS=parts, BLOCK=triton.next_power_of_2(hidden), num_warps=8,
    )  # fmt: skip
    return out


def add_rms_norm_twin(
    residual: Tensor,
    update: Tensor | None,
    weight: Tensor,
    eps: float,
    *,
    first: tuple[Tensor, int] | None = None,
) -> Tensor:
    """Plain PyTorch of `add_rms_norm`."""
    if update is not None:
        residual.add_(_sum_parts(update, residual.dtype))
    wide = residual.float()
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    gain = weight.float().expand_as(normed)
    if first is not None:
        gain = torch.cat((first[0].float().expand(first[1], -1), gain[first[1] :]))
    return (gain * normed).to(residual.dtype)


def _sum_parts(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.ndim == 2 else tensor.sum(0).to(dtype)


@triton.jit
def _add_rms_norm(
    residual, update, weight, first_weight, out, first_rows, part_stride, hidden, eps,
    PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    base = row.to(tl.int64) * hidden
    columns = tl.arange(0, BLOCK)
    mask = columns < hidden
    value = tl.load(residual + base + columns, mask=mask, other=0.0)
    if PARTS > 0:
        added = tl.load(update + base + columns, mask=mask, other=0.0)
        for part in tl.static_range(1, PARTS):
            added += tl.load(update + part * part_stride + base + columns, mask=mask, other=0.0)
        # The sum is rounded to the residual's dtype before it is normed, as in the twin.
        value += added.to(value.dtype)
        tl.store(residual + base + columns, value, mask=mask)
    wide = value.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, axis=0) / hidden + eps)
    gains = first_weight if row < first_rows else weight
    gain = tl.load(gains + columns, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + base + columns, (gain * wide * scale).to(out.dtype.element_ty), mask=mask)


def rotate_and_store(
    qkv: Tensor, slots: Tensor, positions: Tensor, rotary: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """Rotate queries and keys by their positions, write keys and values to the cache.

    Args:
        qkv: [batch, (heads + 2 * kv_heads) * head_dim], the fused projection; or its float32 parts
            [parts, batch, ...], which are summed.
        slots: int32 [batch].
        positions: int32 [batch], where in its slot each row stands.
        rotary: float32 [context, 2, head_dim / 2], cosine and sine.
        keys: [slots, kv_heads, context, head_dim], one layer of the cache.
        values: As the keys.

    Returns:
        Rotated queries [batch, heads, head_dim].
    """
    if not runs_kernels(qkv):
        return rotate_and_store_twin(qkv, slots, positions, rotary, keys, values)
    _, kv_heads, _, head_dim = keys.shape
    batch, width = qkv.shape[-2:]
    heads = width // head_dim - 2 * kv_heads
    queries = torch.empty(batch, heads, head_dim, dtype=keys.dtype, device=qkv.device)
    _rotate_and_store[(batch, heads + 2 * kv_heads)](
        qkv, slots, positions, rotary, queries, keys, values, keys.stride(0), keys.stride(1),
        batch * width, PARTS=1 if qkv.ndim == 2 else qkv.shape[0],
        HEADS=heads, KV_HEADS=kv_heads, HALF=head_dim // 2, num_warps=1,
    )  # fmt: skip
    return queries


def rotate_and_store_twin(
    qkv: Tensor, slots: Tensor, positions: Tensor, rotary: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """Plain PyTorch of `rotate_and_store`."""
    _, kv_heads, _, head_dim = keys.shape
    qkv = _sum_parts(qkv, keys.dtype)
    heads = qkv.view(qkv.shape[0], -1, head_dim)
    turn = rotary[positions.long()][:, :, None]
    first, second = heads[:, :-kv_heads].float().chunk(2, dim=-1)
    rotated = torch.cat(
        (first * turn[:, 0] - second * turn[:, 1], second * turn[:, 0] + first * turn[:, 1]), -1
    ).to(qkv.dtype)
    keys[slots.long(), :, positions.long()] = rotated[:, -kv_heads:]
    values[slots.long(), :, positions.long()] = heads[:, -kv_heads:]
    return rotated[:, :-kv_heads].contiguous()


@triton.jit
def _rotate_and_store(
    qkv, slots, positions, rotary, queries, keys, values, slot_stride, head_stride, part_stride,
    PARTS: tl.constexpr, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    index = tl.arange(0, HALF)
    source = qkv + (row * (HEADS + 2 * KV_HEADS) + head) * 2 * HALF
    first = tl.load(source + index)
    second = tl.load(source + HALF + index)
    for part in tl.static_range(1, PARTS):
        first += tl.load(source + part * part_stride + index)
        second += tl.load(source + part * part_stride + HALF + index)
    # Rounded as a projection is, before it is turned.
    first = first.to(queries.dtype.element_ty)
    second = second.to(queries.dtype.element_ty)
    slot = tl.load(slots + row).to(tl.int64)
    position = tl.load(positions + row)
    cell = slot * slot_stride + position * 2 * HALF
    if head >= HEADS + KV_HEADS:
        target = values + cell + (head - HEADS - KV_HEADS) * head_stride
        tl.store(target + index, first)
        tl.store(target + HALF + index, second)
    else:
        cosine = tl.load(rotary + position * 2 * HALF + index)
        sine = tl.load(rotary + position * 2 * HALF + HALF + index)
        x = first.to(tl.float32)
        y = second.to(tl.float32)
        if head < HEADS:
            target = queries + (row * HEADS + head) * 2 * HALF
        else:
            target = keys + cell + (head - HEADS) * head_stride
        tl.store(target + index, (x * cosine - y * sine).to(queries.dtype.element_ty))
        tl.store(target + HALF + index, (y * cosine + x * sine).to(queries.dtype.element_ty))


def silu_mul(gate_up: Tensor) -> Tensor:
    """Return SiLU(gate) * up of the fused projection: [rows, 2 * size] to [rows, size]."""
    if not runs_kernels(gate_up):
        return silu_mul_twin(gate_up)
    rows, size = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty(rows, size, dtype=gate_up.dtype, device=gate_up.device)
    _silu_mul[(rows, triton.cdiv(size, 1024))](gate_up, out, size, BLOCK=1024)
    return out


def silu_mul_twin(gate_up: Tensor) -> Tensor:
    """Plain PyTorch of `silu_mul`."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    return (torch.nn.functional.silu(gate) * up).to(gate_up.dtype)


@triton.jit
def _silu_mul(gate_up, out, size, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < size
    gate = tl.load(gate_up + row * 2 * size + columns, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * size + size + columns, mask=mask, other=0.0).to(tl.float32)
    result = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out + row * size + columns, result.to(out.dtype.element_ty), mask=mask)
