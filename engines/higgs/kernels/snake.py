"""DAC's activation x + sin(a x)^2 / a as one Triton kernel, beside its twin in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from engines.higgs.kernels.triton_import import runs_kernels, tl, triton

BLOCK = 1024


def snake_twin(hidden: Tensor, alpha: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Plain PyTorch of `snake`."""
    result = hidden + torch.sin(alpha * hidden).square() / (alpha + 1e-9)
    if lengths is not None:
        places = torch.arange(hidden.shape[2], device=hidden.device)
        result *= places < lengths[:, None, None]
    return result


def snake(hidden: Tensor, alpha: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Apply the activation.

    Args:
        hidden: [rows, channels, samples].
        alpha: [1, channels, 1], of the same dtype.
        lengths: int32 [rows]: what lies behind a row's own samples becomes zero.
    """
    if not runs_kernels(hidden):
        return snake_twin(hidden, alpha, lengths)
    hidden = hidden.contiguous()
    rows, channels, samples = hidden.shape
    result = torch.empty_like(hidden)
    grid = (rows * channels, triton.cdiv(samples, BLOCK))
    _kernel[grid](
        hidden, alpha, result, hidden if lengths is None else lengths, channels, samples,
        CUT=lengths is not None, BLOCK=BLOCK,
    )  # fmt: skip
    return result


@triton.jit
def _kernel(
    hidden, alpha, result, lengths, channels, samples, CUT: tl.constexpr, BLOCK: tl.constexpr
):
    line = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < samples
    a = tl.load(alpha + line % channels).to(tl.float32)
    x = tl.load(hidden + line * samples + place, mask=inside, other=0.0).to(tl.float32)
    s = tl.sin(a * x)
    value = x + s * s / (a + 1e-9)
    if CUT:
        value = tl.where(place < tl.load(lengths + line // channels), value, 0.0)
    tl.store(result + line * samples + place, value, mask=inside)
