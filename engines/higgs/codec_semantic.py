"""Semantic features of recordings, several at once: HuBERT's, and a few convolutions over them.

Recordings of a batch are filled up with zeros to one length. What a layer makes of the filling is
zeroed again before the next convolution, and HuBERT's first norm and its attention leave it out: a
recording's features are those that it has alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

HUBERT_PADDING_SAMPLES = 160
SOURCE, TARGET = 3, 2  # 24 kHz to 16 kHz
RESAMPLER_ZERO_CROSSINGS = 6  # torchaudio.functional.resample's defaults, with which the model was
RESAMPLER_ROLLOFF = 0.99  # trained


def hubert_frames(config: Any, samples: int) -> int:
    """Frames that HuBERT gives for so many samples of 16 kHz, its padding not counted."""
    samples += 2 * HUBERT_PADDING_SAMPLES
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def hubert_features(model: Any, waves: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the mean of HuBERT's hidden states [rows, frames, channels].

    Args:
        model: A `HubertModel` of transformers.
        waves: [rows, samples] of 16 kHz, zeros behind each row's own sound.
        counts: Samples of each row.
    """
    padding = HUBERT_PADDING_SAMPLES
    waves = functional.pad(waves, (padding, padding))[:, None]
    first, *layers = model.feature_extractor.conv_layers
    reached = (waves.shape[2] - first.conv.kernel_size[0]) // first.conv.stride[0] + 1
    # One by one: its norm runs over all of a recording.
    rows = [first(row[None, :, : n + 2 * padding]) for row, n in zip(waves, counts, strict=True)]
    hidden = torch.cat([functional.pad(row, (0, reached - row.shape[2])) for row in rows])
    for layer in layers:
        hidden = layer(hidden)
    hidden = model.feature_projection(hidden.transpose(1, 2))
    inside = _inside([hubert_frames(model.config, count) for count in counts], hidden.shape[1])
    inside = inside.to(hidden.device)
    hidden = hidden * inside[..., None]
    unseen = torch.zeros(inside.shape, dtype=hidden.dtype, device=hidden.device)
    unseen = unseen.masked_fill(~inside, -torch.inf)[:, None, None]
    encoder = model.encoder
    hidden = encoder.layer_norm(hidden + encoder.pos_conv_embed(hidden))
    total = hidden.clone()
    for layer in encoder.layers:
        hidden = layer(hidden, attention_mask=unseen)
        total += hidden
    return total / (len(encoder.layers) + 1)


def _inside(counts: Sequence[int], longest: int) -> Tensor:
    """Bool [rows, longest]: what lies in a row's own count."""
    return torch.arange(longest)[None] < torch.tensor(counts)[:, None]


def semantic_features(encoder: Any, hidden: Tensor, counts: Sequence[int]) -> Tensor:
    """Run the convolutions over HuBERT's features.

    Args:
        encoder: A `SemanticEncoder` of transformers without strides.
        hidden: Features [rows, channels, frames].
        counts: Frames of each row.

    Returns:
        [rows, channels, frames].
    """
    inside = _inside(counts, hidden.shape[2])[:, None].to(hidden)
    hidden = encoder.conv(hidden * inside)
    for block in encoder.conv_blocks:
        for unit in block.res_units:
            hidden = unit(hidden * inside)
        hidden = block.conv(hidden * inside)
    return hidden


def at_16_khz(waves: Tensor) -> Tensor:
    """Resample by windowed sinc interpolation, as torchaudio.functional.resample does by default.

    Args:
        waves: Float [rows, samples] of 24 kHz.
    """
    kernel = _sinc_kernel().to(waves)
    reach = (kernel.shape[-1] - SOURCE) // 2
    padded = functional.pad(waves, (reach, reach + SOURCE))
    filtered = functional.conv1d(padded[:, None], kernel, stride=SOURCE)
    return filtered.transpose(1, 2).flatten(1)[:, : samples_at_16_khz(waves.shape[1])]


def samples_at_16_khz(samples: int) -> int:
    """Samples that `at_16_khz` makes of so many."""
    return math.ceil(samples * TARGET / SOURCE)


@cache
def _sinc_kernel() -> Tensor:
    """Filters [2, 1, taps], one a phase."""
    cutoff = TARGET * RESAMPLER_ROLLOFF
    reach = math.ceil(RESAMPLER_ZERO_CROSSINGS * SOURCE / cutoff)
    taps = torch.arange(-reach, reach + SOURCE, dtype=torch.float64)[None, None] / SOURCE
    phases = torch.arange(0, -TARGET, -1, dtype=torch.float64)[:, None, None] / TARGET
    time = ((taps + phases) * cutoff).clamp(-RESAMPLER_ZERO_CROSSINGS, RESAMPLER_ZERO_CROSSINGS)
    window = torch.cos(time * math.pi / RESAMPLER_ZERO_CROSSINGS / 2) ** 2
    return torch.sinc(time) * window * cutoff / SOURCE
