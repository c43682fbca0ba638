"""Semantic features of recordings, several at once: HuBERT's, and a few convolutions over them.

Recordings of a batch are filled up with zeros to one length. What a layer makes of the filling is
zeroed again before the next convolution, and HuBERT's first norm and its attention leave it out: a
recording's features are those that it has alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

HUBERT_PADDING_SAMPLES = 160
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
    if min(counts) == max(counts):
        rows = [first(waves[..., : counts[0] + 2 * padding])]
    else:  # its norm runs over all of a recording
        rows = [
            first(row[None, :, : n + 2 * padding]) for row, n in zip(waves, counts, strict=True)
        ]
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


def resample(waveform: Tensor, rate_hz: int, wanted_hz: int) -> Tensor:
    """Resample by windowed sinc interpolation, as torchaudio.functional.resample does by default.

    Args:
        waveform: Float [channels, samples].
        rate_hz: Its sample rate.
        wanted_hz: The rate of what is returned.
    """
    if rate_hz == wanted_hz:
        return waveform
    divisor = math.gcd(rate_hz, wanted_hz)
    source, target = rate_hz // divisor, wanted_hz // divisor
    kernel = _sinc_kernel(source, target).to(waveform)
    reach = (kernel.shape[-1] - source) // 2
    padded = functional.pad(waveform, (reach, reach + source))
    filtered = functional.conv1d(padded[:, None], kernel, stride=source)
    length = -(-target * waveform.shape[-1] // source)
    return filtered.transpose(1, 2).flatten(1)[:, :length]


@lru_cache(maxsize=16)
def _sinc_kernel(source: int, target: int) -> Tensor:
    """Filters [target, 1, taps], one a phase."""
    cutoff = min(source, target) * RESAMPLER_ROLLOFF
    reach = math.ceil(RESAMPLER_ZERO_CROSSINGS * source / cutoff)
    taps = torch.arange(-reach, reach + source, dtype=torch.float64)[None, None] / source
    phases = torch.arange(0, -target, -1, dtype=torch.float64)[:, None, None] / target
    time = ((taps + phases) * cutoff).clamp(-RESAMPLER_ZERO_CROSSINGS, RESAMPLER_ZERO_CROSSINGS)
    window = torch.cos(time * math.pi / RESAMPLER_ZERO_CROSSINGS / 2) ** 2
    return torch.sinc(time) * window * cutoff / source
