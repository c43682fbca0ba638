"""DAC's activation x + sin(a x)^2 / a as one Triton kernel, beside its twin in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from engines.higgs.kernels.triton_import import runs_kernels, tl, triton

BLOCK = 1024


def snake_twin(hidden: Tensor, alpha: Tensor) -> Tensor:
    """Plain PyTorch of `snake`."""
    return hidden + torch.sin(alpha * hidden).square() / (alpha + 1e-9)


def snake(hidden: Tensor, alpha: Tensor) -> Tensor:
    """Apply the activation.

    Args:
        hidden: [rows, channels, samples].
        alpha: [1, channels, 1], of the same dtype.
    """
    if not runs_kernels(hidden):
        return snake_twin(hidden, alpha)
    hidden = hidden.contiguous()
    rows, channels, samples = hidden.shape
    result = torch.empty_like(hidden)
    grid = (rows * channels, triton.cdiv(samples, BLOCK))
    _kernel[grid](hidden, alpha, result, channels, samples, BLOCK=BLOCK)
    return result


@triton.jit
def _kernel(hidden, alpha, result, channels, samples, BLOCK: tl.constexpr):
    line = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < samples
    a = tl.load(alpha + line % channels).to(tl.float32)
    x = tl.load(hidden + line * samples + place, mask=inside).to(tl.float32)
    s = tl.sin(a * x)
    tl.store(result + line * samples + place, x + s * s / (a + 1e-9), mask=inside)
