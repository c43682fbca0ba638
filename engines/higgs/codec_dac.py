"""DAC's encoder and decoder: the weights of transformers' `DacModel`, computed with fused sums.

Convolutions are two-dimensional ones of height 1 whose channels lie next to each other in memory:
cuDNN's kernels want them so, and would turn every tensor over before and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.audio_utils import conv1d_output_length

from engines.higgs.kernels.snake import snake


def prepare(module: nn.Module) -> None:
    """Lay out the weights of all convolutions as this file's functions take them."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv1d | nn.ConvTranspose1d):
            weight = conv.weight[:, :, None].contiguous(memory_format=torch.channels_last)
            conv.weight = nn.Parameter(weight, requires_grad=False)


def decode(decoder: Any, hidden: Tensor) -> Tensor:
    """Run DAC's decoder, without its last tanh.

    Args:
        decoder: A prepared `DacDecoder` of transformers.
        hidden: [rows, channels, frames].

    Returns:
        Samples [rows, samples].
    """
    blocks = list(decoder.block)
    hidden = _channels_last(hidden)
    alphas = [block.snake1.alpha for block in blocks] + [decoder.snake1.alpha]
    active = snake(_conv(hidden, decoder.conv1), alphas[0], decoder.conv1.bias)
    for block, alpha in zip(blocks, alphas[1:], strict=True):
        conv = block.conv_t1
        stride = conv.stride[0]
        hidden = functional.conv_transpose2d(
            active, conv.weight, None, (1, stride), (0, conv.padding[0]), (0, stride % 2)
        )
        active = _residual_units(hidden, conv.bias, block, alpha, None)
    samples = _conv(active, decoder.conv2) + decoder.conv2.bias
    return samples[:, 0, 0]


def encode(encoder: Any, waves: Tensor, counts: Sequence[int]) -> Tensor:
    """Run DAC's encoder.

    Args:
        encoder: A prepared `DacEncoder` of transformers.
        waves: [rows, samples], zeros behind each row's own sound.
        counts: Samples of each row.

    Returns:
        [rows, channels, frames].
    """

    def lengths() -> Tensor:
        return torch.tensor(counts, dtype=torch.int32).to(waves.device)

    last = encoder.conv1
    hidden = _conv(_channels_last(waves[:, None]), last)
    for block in encoder.block:
        active = _residual_units(hidden, last.bias, block, block.snake1.alpha, lengths())
        last = block.conv1
        hidden = _conv(active, last)
        counts = [conv1d_output_length(last, count) for count in counts]
    active = snake(hidden, encoder.snake1.alpha, last.bias, lengths=lengths())
    features: Tensor = _conv(active, encoder.conv2)[:, :, 0]
    return features + encoder.conv2.bias[:, None]


def _residual_units(
    hidden: Tensor, bias: Tensor, block: Any, alpha: Tensor, lengths: Tensor | None
) -> Tensor:
    """Run a block's three units over hidden + bias; return the activation of the outcome."""
    units = (block.res_unit1, block.res_unit2, block.res_unit3)
    alphas = [unit.snake1.alpha for unit in units[1:]] + [alpha]
    active = snake(hidden, units[0].snake1.alpha, bias, total=hidden, lengths=lengths)
    for unit, following in zip(units, alphas, strict=True):
        inner = _conv(active, unit.conv1)
        inner = snake(inner, unit.snake2.alpha, unit.conv1.bias, lengths=lengths)
        inner = _conv(inner, unit.conv2)
        active = snake(
            inner, following, unit.conv2.bias, residual=hidden, total=hidden, lengths=lengths
        )
    return active


def _channels_last(hidden: Tensor) -> Tensor:
    return hidden[:, :, None].contiguous(memory_format=torch.channels_last)


def _conv(hidden: Tensor, conv: Any) -> Tensor:
    """Convolve without the bias, which the next activation adds."""
    return functional.conv2d(
        hidden, conv.weight, None, (1, conv.stride[0]), (0, conv.padding[0]), (1, conv.dilation[0])
    )
