"""DAC's activation x + sin(a x)^2 / a and the sums before it: one Triton kernel beside its twin.

A convolution of cuDNN adds its bias in a pass of its own over memory, and a residual unit adds its
input in another: with the activation they are a third of the codec's time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engines.higgs.kernels.triton_import import runs_kernels, tl, triton

BLOCK = 1024


def snake_twin(
    hidden: Tensor,
    alpha: Tensor,
    bias: Tensor,
    *,
    residual: Tensor | None = None,
    total: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """Plain PyTorch of `snake`."""
    alpha = alpha.view(-1, 1, 1)
    hidden = hidden + bias.view(-1, 1, 1)
    if residual is not None:
        hidden += residual
    if total is not None:
        total.copy_(hidden)
    result = hidden + torch.sin(alpha * hidden).square() / (alpha + 1e-9)
    if lengths is not None:
        places = torch.arange(hidden.shape[3], device=hidden.device)
        result *= places < lengths[:, None, None, None]
    return result


def snake(
    hidden: Tensor,
    alpha: Tensor,
    bias: Tensor,
    *,
    residual: Tensor | None = None,
    total: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """Return the activation of hidden + bias + residual.

    Args:
        hidden: [rows, channels, 1, samples], its channels next to each other in memory
            (`torch.channels_last`), as all that has its shape. It may be overwritten.
        alpha: One slope a channel, of the same dtype.
        bias: [channels].
        residual: As `hidden`, or None.
        total: Is filled with the sum; may be `hidden` or `residual`.
        lengths: int32 [rows]: what lies behind a row's own samples becomes zero.
    """
    if not runs_kernels(hidden):
        return snake_twin(hidden, alpha, bias, residual=residual, total=total, lengths=lengths)
    hidden = hidden.contiguous(memory_format=torch.channels_last)
    _, channels, _, samples = hidden.shape
    result = torch.empty_like(hidden) if total is hidden else hidden
    count = hidden.numel()
    _kernel[(triton.cdiv(count, BLOCK),)](
        hidden, alpha, bias, hidden if residual is None else residual,
        hidden if total is None else total, hidden if lengths is None else lengths, result,
        count, channels, samples,
        ADD=residual is not None, KEEP=total is not None, CUT=lengths is not None, BLOCK=BLOCK,
    )  # fmt: skip
    return result


@triton.jit
def _kernel(
    hidden, alpha, bias, residual, total, lengths, result, count, channels, samples,
    ADD: tl.constexpr, KEEP: tl.constexpr, CUT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    channel = at % channels
    a = tl.load(alpha + channel, mask=inside, other=1.0).to(tl.float32)
    x = tl.load(hidden + at, mask=inside, other=0.0).to(tl.float32)
    x += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        x += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    if KEEP:
        tl.store(total + at, x.to(total.dtype.element_ty), mask=inside)
    s = tl.sin(a * x)
    value = x + s * s / (a + 1e-9)
    if CUT:
        place = at // channels
        length = tl.load(lengths + place // samples, mask=inside, other=0)
        value = tl.where(place % samples < length, value, 0.0)
    tl.store(result + at, value.to(result.dtype.element_ty), mask=inside)
