"""Projections with weights of 8 or 4 bits, computed from bf16 activations.

A few rows (decode) run in a Triton kernel that reads the small weights once; many rows (prefill)
have the weight expanded and multiplied by the dense kernel. The plain PyTorch twin of both is
`expand_twin` and a dense product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engines.higgs.kernels.triton_import import runs_kernels, tl, triton

GROUP = 64  # weights that share a scale and an offset, 4 bits
_NARROW_OUTPUTS = 8192
MOST_KERNEL_ROWS = 64  # above it, expanding the weight and a dense product are faster (H100)


@dataclass(slots=True)
class Dense:
    """A projection with its weight as it is: [out, in]."""

    weight: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Project [rows, in] to [rows, out]."""
        return torch.nn.functional.linear(x, self.weight)


@dataclass(slots=True)
class Quantised:
    """A projection of 8 or 4 bits.

    Attributes:
        bits: 8 or 4.
        data: int8 [out, in]; or uint8 [out, in / 2], where a byte's low half is the weight of its
            column and the high half that of in / 2 columns further.
        scale: float32 [out] of 8 bits; float32 [out, in / 64] of 4 bits.
        offset: The same shape as the scale: weight = data * scale + offset. None for 8 bits.
        dtype: Of the expanded weight.
    """

    bits: int
    data: Tensor
    scale: Tensor
    offset: Tensor | None
    dtype: torch.dtype

    def __call__(self, x: Tensor) -> Tensor:
        """Project [rows, in] to [rows, out]."""
        if not runs_kernels(x):
            return torch.nn.functional.linear(x, expand_twin(self))
        if x.shape[0] > MOST_KERNEL_ROWS:
            return torch.nn.functional.linear(x, expand(self))
        return project(x, self)


def quantise(weight: Tensor, bits: int) -> Quantised:
    """Round a weight [out, in] to 8 bits (one scale a row) or 4 bits (groups of 64)."""
    wide = weight.float()
    if bits == 8:
        scale = wide.abs().amax(1).clamp(min=1e-8) / 127
        data = (wide / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        return Quantised(8, data, scale, None, weight.dtype)
    rows, columns = wide.shape
    groups = wide.view(rows, columns // GROUP, GROUP)
    low, high = groups.amin(-1), groups.amax(-1)
    scale = ((high - low) / 15).clamp(min=1e-8)
    levels = ((groups - low[..., None]) / scale[..., None]).round().clamp(0, 15)
    levels = levels.to(torch.uint8).view(rows, columns)
    first, second = levels.chunk(2, dim=1)
    return Quantised(4, first | (second << 4), scale, low, weight.dtype)


def expand_twin(weight: Quantised) -> Tensor:
    """Return the weight [out, in] that a quantised one stands for."""
    if weight.offset is None:
        return (weight.data.float() * weight.scale[:, None]).to(weight.dtype)
    levels = torch.cat((weight.data & 15, weight.data >> 4), dim=1).float()
    groups = levels.view(levels.shape[0], -1, GROUP)
    wide = groups * weight.scale[..., None] + weight.offset[..., None]
    return wide.view(levels.shape).to(weight.dtype)


def expand(weight: Quantised) -> Tensor:
    """Return the weight [out, in] that a quantised one stands for, by a kernel."""
    rows, stored = weight.data.shape
    columns = stored if weight.offset is None else 2 * stored
    out = torch.empty(rows, columns, dtype=weight.dtype, device=weight.data.device)
    offset = weight.scale if weight.offset is None else weight.offset
    _expand[(rows, triton.cdiv(stored, 1024))](
        weight.data, weight.scale, offset, out, stored, BITS=weight.bits, GROUPED=GROUP, BLOCK=1024
    )
    return out


@triton.jit
def _expand(
    data, scale, offset, out, stored, BITS: tl.constexpr, GROUPED: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < stored
    value = tl.load(data + row * stored + columns, mask=mask, other=0)
    if BITS == 8:
        wide = value.to(tl.float32) * tl.load(scale + row)
        tl.store(out + row * stored + columns, wide.to(out.dtype.element_ty), mask=mask)
    else:
        groups = row * (2 * stored // GROUPED) + columns // GROUPED
        half = stored // GROUPED
        target = out + row * 2 * stored + columns
        low = (value & 15).to(tl.float32) * tl.load(scale + groups, mask=mask, other=0.0)
        low += tl.load(offset + groups, mask=mask, other=0.0)
        high = (value >> 4).to(tl.float32) * tl.load(scale + groups + half, mask=mask, other=0.0)
        high += tl.load(offset + groups + half, mask=mask, other=0.0)
        tl.store(target, low.to(out.dtype.element_ty), mask=mask)
        tl.store(target + stored, high.to(out.dtype.element_ty), mask=mask)


def project(
    x: Tensor, weight: Quantised, *, tune: tuple[int, int, int, int] | None = None
) -> Tensor:
    """Project a few rows [rows, in] to [rows, out] by a kernel.

    Args:
        x: At most 64 rows.
        weight: Of 8 or 4 bits.
        tune: Outputs and columns of a tile, warps, pipeline stages; None takes the table's.
    """
    rows, columns = x.shape
    outputs, stored = weight.data.shape
    out = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    tile_rows = max(16, triton.next_power_of_2(rows))
    tile_out, tile_in, warps, stages = tune or _tile(weight.bits, outputs, columns)
    kernel = _project_8 if weight.bits == 8 else _project_4
    offset = weight.scale if weight.offset is None else weight.offset
    kernel[(triton.cdiv(outputs, tile_out),)](
        x, weight.data, weight.scale, offset, out, rows, outputs, stored,
        ROWS=tile_rows, OUT=tile_out, IN=tile_in, GROUPED=GROUP,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return out


def _tile(bits: int, outputs: int, columns: int) -> tuple[int, int, int, int]:
    """Return the tile measured fastest on an H100 for this shape, and a safe one for others."""
    if bits == 4:
        return 16, 64 if columns % 128 == 0 else 32, 4, 5
    # The largest power of two that divides the columns, within bounds.
    tile_in = min(256, columns & -columns)
    return (16 if outputs <= _NARROW_OUTPUTS else 32), tile_in, 4, 5


@triton.jit
def _project_8(
    x, data, scale, offset, out, rows, outputs, stored,
    ROWS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr, GROUPED: tl.constexpr,
):  # fmt: skip
    output = tl.program_id(0) * OUT + tl.arange(0, OUT)
    row = tl.arange(0, ROWS)
    column = tl.arange(0, IN)
    x_tile = x + row[:, None] * stored + column[None, :]
    w_tile = data + output[:, None].to(tl.int64) * stored + column[None, :]
    in_rows = row[:, None] < rows
    in_out = output[:, None] < outputs
    total = tl.zeros([ROWS, OUT], tl.float32)
    for _ in range(0, stored, IN):
        weights = tl.load(w_tile, mask=in_out, other=0)
        inputs = tl.load(x_tile, mask=in_rows, other=0.0)
        total += tl.dot(inputs, tl.trans(weights.to(x.dtype.element_ty)), input_precision="ieee")
        x_tile += IN
        w_tile += IN
    total *= tl.load(scale + output, mask=output < outputs, other=0.0)[None, :]
    target = out + row[:, None] * outputs + output[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=in_rows & (output[None, :] < outputs))


@triton.jit
def _project_4(
    x, data, scale, offset, out, rows, outputs, stored,
    ROWS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr, GROUPED: tl.constexpr,
):  # fmt: skip
    # A tile of IN columns lies within one group, on both halves of the row.
    output = tl.program_id(0) * OUT + tl.arange(0, OUT)
    row = tl.arange(0, ROWS)
    column = tl.arange(0, IN)
    x_tile = x + row[:, None] * (2 * stored) + column[None, :]
    w_tile = data + output[:, None].to(tl.int64) * stored + column[None, :]
    in_rows = row[:, None] < rows
    in_out = output < outputs
    groups = output * (2 * stored // GROUPED)
    half = stored // GROUPED
    total = tl.zeros([ROWS, OUT], tl.float32)
    for first in range(0, stored, IN):
        packed = tl.load(w_tile, mask=in_out[:, None], other=0)
        group = groups + first // GROUPED
        inputs = tl.load(x_tile, mask=in_rows, other=0.0)
        levels = tl.trans((packed & 15).to(x.dtype.element_ty))
        part = tl.dot(inputs, levels, input_precision="ieee")
        total += part * tl.load(scale + group, mask=in_out, other=0.0)[None, :]
        bias = tl.load(offset + group, mask=in_out, other=0.0)[None, :]
        total += tl.sum(inputs.to(tl.float32), axis=1)[:, None] * bias
        inputs = tl.load(x_tile + stored, mask=in_rows, other=0.0)
        levels = tl.trans((packed >> 4).to(x.dtype.element_ty))
        part = tl.dot(inputs, levels, input_precision="ieee")
        total += part * tl.load(scale + group + half, mask=in_out, other=0.0)[None, :]
        bias = tl.load(offset + group + half, mask=in_out, other=0.0)[None, :]
        total += tl.sum(inputs.to(tl.float32), axis=1)[:, None] * bias
        x_tile += IN
        w_tile += IN
    target = out + row[:, None] * outputs + output[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=in_rows & in_out[None, :])
