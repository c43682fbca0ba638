"""Projections of 16, 8 and 4 bits, computed from bf16 activations.

Decode's few rows read small weights once: 8 bits by a Triton kernel of ours, 4 bits by PyTorch's
own (tinygemm). Prefill's many rows have the weight expanded and multiplied by the dense kernel. The
plain PyTorch twin of all is `expand_twin` and a dense product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engines.higgs.kernels.triton_import import runs_kernels, tl, triton

GROUP = 64  # weights that share a scale and an offset, 4 bits
_NARROW_OUTPUTS = 8192  # fewer tiles than a card has room for
_TINYGEMM_TILES = 8  # of 16 columns, in its packed weight


@dataclass(slots=True)
class Dense:
    """A projection with its weight as it is: [out, in]."""

    weight: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Project [rows, in] to [rows, out]."""
        return torch.nn.functional.linear(x, self.weight)

    few = __call__


@dataclass(slots=True)
class Quantised:
    """A projection of 8 or 4 bits.

    Attributes:
        bits: 8 or 4.
        data: int8 [out, in]; or uint8 [out, in / 2], where a byte's low half is the weight of its
            column and the high half that of in / 2 columns further.
        scale: float32 [out] of 8 bits; [out, in / 64] of 4 bits.
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
        return torch.nn.functional.linear(x, expand(self))

    def few(self, x: Tensor) -> Tensor:
        """Project a decode step's rows [rows, in].

        Returns:
            [rows, out]; or float32 [parts, rows, out], whose sum that is.
        """
        if self.bits == 4 or not runs_kernels(x):
            return self(x)
        return project(x, self)


@dataclass(slots=True)
class Tinygemm:
    """A projection of 4 bits in the layout of PyTorch's own kernel for few rows.

    Attributes:
        packed: As `aten::_convert_weight_to_int4pack` makes it.
        scales: bf16 [in / 64, out, 2], scales and offsets.
    """

    packed: Tensor
    scales: Tensor

    @classmethod
    def of(cls, weight: Quantised) -> Tinygemm:
        """Repack a weight of 4 bits, which PyTorch's kernel reads as (level - 8) * scale + zero."""
        if weight.offset is None:
            raise ValueError("the weight has 8 bits")
        levels = torch.cat((weight.data & 15, weight.data >> 4), dim=1)
        packed = torch.ops.aten._convert_weight_to_int4pack(  # noqa: SLF001 - an operator's name
            levels[:, ::2] << 4 | levels[:, 1::2], _TINYGEMM_TILES
        )
        zeros = weight.offset + 8 * weight.scale
        scales = torch.stack((weight.scale, zeros), -1).transpose(0, 1)
        return cls(packed, scales.to(torch.bfloat16).contiguous())

    def __call__(self, x: Tensor) -> Tensor:
        """Project [rows, in] to [rows, out]."""
        return torch.ops.aten._weight_int4pack_mm(x, self.packed, GROUP, self.scales)  # noqa: SLF001

    few = __call__


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
    """Return the weight [out, in] that a quantised one stands for, by a kernel on a GPU."""
    if not runs_kernels(weight.data):
        return expand_twin(weight)
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


def project(x: Tensor, weight: Quantised) -> Tensor:
    """Project a few rows [rows, in] by a weight of 8 bits.

    Args:
        x: The rows.
        weight: Of 8 bits.

    Returns:
        [rows, out]; or float32 [parts, rows, out]: a narrow weight is read by more programs than it
        has tiles of outputs, each of which sums a part of the columns.
    """
    rows, columns = x.shape
    outputs = weight.data.shape[0]
    parts, tile_out, tile_in, warps, stages = _tile(outputs, columns)
    shape, dtype = (
        ((rows, outputs), x.dtype) if parts == 1 else ((parts, rows, outputs), torch.float32)
    )
    out = torch.empty(shape, dtype=dtype, device=x.device)
    tile_rows = min(64, max(16, triton.next_power_of_2(rows)))
    grid = (triton.cdiv(outputs, tile_out), parts, triton.cdiv(rows, tile_rows))
    _project[grid](
        x, weight.data, weight.scale, out, rows, outputs, columns, columns // parts,
        ROWS=tile_rows, OUT=tile_out, IN=tile_in, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return out


def _tile(outputs: int, columns: int) -> tuple[int, int, int, int, int]:
    """Return parts, outputs and columns of a tile, warps, and stages of the pipeline.

    They were measured fastest on an H100, 1 and 8 rows: 1.8 to 2.5 TB/s by shape.
    """
    tile_in = min(256, columns & -columns)  # the largest power of two that divides the columns
    narrow = outputs <= _NARROW_OUTPUTS and columns % (4 * tile_in) == 0
    return 4 if narrow else 1, 32, tile_in, 4, 3


@triton.jit
def _project(
    x, data, scale, out, rows, outputs, columns, part_columns,
    ROWS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr,
):  # fmt: skip
    output = tl.program_id(0) * OUT + tl.arange(0, OUT)
    part = tl.program_id(1)
    row = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    column = part * part_columns + tl.arange(0, IN)
    x_tile = x + row[:, None] * columns + column[None, :]
    w_tile = data + output[:, None].to(tl.int64) * columns + column[None, :]
    in_rows = row[:, None] < rows
    in_out = output[:, None] < outputs
    total = tl.zeros([ROWS, OUT], tl.float32)
    for _ in range(0, part_columns, IN):
        weights = tl.load(w_tile, mask=in_out, other=0)
        inputs = tl.load(x_tile, mask=in_rows, other=0.0)
        total += tl.dot(inputs, tl.trans(weights.to(x.dtype.element_ty)), input_precision="ieee")
        x_tile += IN
        w_tile += IN
    total *= tl.load(scale + output, mask=output < outputs, other=0.0)[None, :]
    target = out + (part * rows + row[:, None]) * outputs + output[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=in_rows & (output[None, :] < outputs))
