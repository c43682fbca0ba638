"""The audio codec of Higgs Audio v2: codes to sound and sound to codes, at 25 frames a second.

The weights and the arithmetic are those of `HiggsAudioV2TokenizerModel` in transformers 5.24, made
of its public DAC and HuBERT models. That class itself needs torchaudio, whose wheels do not load
beside a CPU build of torch; tests compare the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import DacModel, HiggsAudioV2TokenizerConfig, HubertModel
from transformers.models.dac.modeling_dac import Snake1d

from engines.higgs.kernels.snake import snake

RATIOS = [8, 5, 4, 2, 3]
BANDWIDTHS = [0.5, 1, 1.5, 2]  # the last one gives 8 codebooks: bosonai/higgs-audio-v2-tokenizer
RESIDUAL_KERNEL_REACH = 3 * (1 + 3 + 9)  # kernel 7 at the dilations of DAC's three residual units
HUBERT_PADDING_SAMPLES = 160
RANDOM_RESIDUAL_GAIN = 0.3
RANDOM_LOUDNESS = 0.1  # standard deviation of a random codec's sound
RESAMPLER_ZERO_CROSSINGS = 6  # torchaudio.functional.resample's defaults, with which the model was
RESAMPLER_ROLLOFF = 0.99  # trained
# Parts of a checkpoint that neither encoding nor decoding uses.
UNUSED_WEIGHTS = (
    "decoder_semantic.",
    "fc1.",
    "semantic_model.masked_spec_embed",
    "cluster_size",
    "embed_avg",
    "inited",
)


def context_frames(ratios: Sequence[int]) -> tuple[int, int]:
    """Frames to the left and right of a frame that its sound depends on: the decoder's reach.

    A window with so much context decodes to exactly the samples of one whole decode.

    Args:
        ratios: Upsampling ratios of the DAC decoder, in its order.
    """
    left = right = 3  # the last convolution has a kernel of 7, as the first has
    for ratio in reversed(ratios):
        left, right = left + RESIDUAL_KERNEL_REACH, right + RESIDUAL_KERNEL_REACH
        padding = math.ceil(ratio / 2)
        left = -math.ceil((padding + 1 - 2 * ratio - left) / ratio)
        right = (right - 1 + padding) // ratio + 1
    return left + 3, right + 3


def random_codec_config(*, tiny: bool) -> HiggsAudioV2TokenizerConfig:
    """The configuration of `--model random` and `--model random-tiny`."""
    acoustic = {"model_type": "dac", "downsampling_ratios": RATIOS, "upsampling_ratios": RATIOS}
    sizes = {"encoder_hidden_size": 64, "decoder_hidden_size": 1024, "hidden_size": 256}
    semantic: dict[str, Any] = {"model_type": "hubert"}
    if tiny:
        sizes = {"encoder_hidden_size": 2, "decoder_hidden_size": 32, "hidden_size": 16}
        semantic |= {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        semantic |= {"intermediate_size": 32, "conv_dim": [16] * 7}
        semantic |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    return HiggsAudioV2TokenizerConfig(
        target_bandwidths=BANDWIDTHS,
        acoustic_model_config=acoustic | sizes,
        semantic_model_config=semantic,
    )


class _Quantizer(nn.Module):
    """One codebook with its projections; the names are the checkpoint's."""

    def __init__(self, size: int, width: int, hidden: int) -> None:
        super().__init__()
        self.codebook = nn.Module()
        self.codebook.register_buffer("embed", torch.randn(size, width))
        self.project_in = nn.Linear(hidden, width)
        self.project_out = nn.Linear(width, hidden)

    @property
    def embed(self) -> Tensor:
        return self.codebook.get_buffer("embed")

    def encode(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Nearest codes [frames] of `hidden` [frames, channels], and what they stand for."""
        point = self.project_in(hidden)
        distance = self.embed.pow(2).sum(1) - 2 * point @ self.embed.T
        codes = distance.argmin(dim=1)
        return codes, self.project_out(self.embed[codes])


class _SemanticUnit(nn.Module):
    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        padding = (kernel - 1) // 2 * dilation
        self.conv1 = nn.Conv1d(
            channels, channels, kernel, padding=padding, dilation=dilation, bias=False
        )
        self.conv2 = nn.Conv1d(channels, channels, 1, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        inner: Tensor = self.conv2(functional.elu(self.conv1(functional.elu(hidden))))
        return hidden + inner


class _SemanticBlock(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int, kernel: int, dilations: Any) -> None:
        super().__init__()
        units = [_SemanticUnit(inside, kernel, dilation) for dilation in dilations]
        self.res_units = nn.ModuleList(units)
        last = 3 if stride == 1 else 2 * stride
        self.conv = nn.Conv1d(inside, outside, last, stride=stride, padding=(last - 1) // 2)

    def forward(self, hidden: Tensor) -> Tensor:
        for unit in self.res_units:
            hidden = unit(hidden)
        result: Tensor = self.conv(hidden)
        return result


class _SemanticEncoder(nn.Module):
    def __init__(self, config: HiggsAudioV2TokenizerConfig) -> None:
        super().__init__()
        width, kernel = config.semantic_hidden_size, config.kernel_size
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, bias=False)
        sizes = [width, *(int(width * ratio) for ratio in config.channel_ratios)]
        self.conv_blocks = nn.ModuleList(
            _SemanticBlock(inside, outside, stride, config.unit_kernel_size, config.block_dilations)
            for inside, outside, stride in zip(sizes, sizes[1:], config.strides, strict=False)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.conv(hidden)
        for block in self.conv_blocks:
            hidden = block(hidden)
        return hidden


class _FusedSnake(nn.Module):
    """DAC's activation as one kernel: five passes over memory become one."""

    def __init__(self, alpha: nn.Parameter) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, hidden: Tensor) -> Tensor:
        return snake(hidden, self.alpha)


class Codec(nn.Module):
    """Encoder and decoder; the names of its parts are the checkpoint's.

    Args:
        config: Of the checkpoint.

    Attributes:
        books: Codebooks.
        hop_samples: Samples of one frame.
        sample_rate_hz: Of the sound on both sides.
        context: Frames on either side that a frame's sound depends on.
    """

    def __init__(self, config: HiggsAudioV2TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        acoustic = config.acoustic_model_config
        dac = DacModel(acoustic)
        self.acoustic_encoder, self.acoustic_decoder = dac.encoder, dac.decoder
        for module in self.acoustic_decoder.modules():
            if isinstance(module, nn.ConvTranspose1d):
                module.output_padding = (module.stride[0] % 2,)
        self.acoustic_decoder.tanh = nn.Identity()
        self.encoder_semantic = _SemanticEncoder(config)
        self.semantic_model = HubertModel(config.semantic_model_config)
        self.fc = nn.Linear(config.hidden_size, config.hidden_size)
        self.fc2 = nn.Linear(config.hidden_size, acoustic.hidden_size)
        self.quantizer = nn.Module()
        self.quantizer.quantizers = nn.ModuleList(
            _Quantizer(config.codebook_size, config.codebook_dim, config.hidden_size)
            for _ in range(config.num_quantizers)
        )
        self.books: int = config.num_quantizers
        self.hop_samples: int = config.hop_length
        self.sample_rate_hz: int = config.sample_rate
        self.context = max(context_frames(acoustic.upsampling_ratios))
        self.register_buffer("tables", torch.empty(0), persistent=False)
        self.register_buffer("offset", torch.empty(0), persistent=False)

    @classmethod
    def from_folder(cls, folder: Path) -> Codec:
        """Load config.json and model.safetensors.

        Raises:
            OSError: A file is missing.
            ValueError: The weights are not those of this codec.
        """
        if not (folder / "model.safetensors").is_file():
            raise OSError(
                f"{folder} has no model.safetensors: the codec is read in the layout of"
                " transformers (the hub's since 2026-04-04), not as model.pth"
            )
        config = HiggsAudioV2TokenizerConfig.from_pretrained(folder)
        with torch.device("meta"):  # without the seconds that an initialisation takes
            codec = cls(config)
        weights = {
            name: tensor
            for name, tensor in load_file(folder / "model.safetensors").items()
            if not any(part in name for part in UNUSED_WEIGHTS)
        }
        unset, unknown = codec.load_state_dict(weights, strict=False, assign=True)
        codec.semantic_model.masked_spec_embed = None  # for training
        unset = [name for name in unset if not any(part in name for part in UNUSED_WEIGHTS)]
        if unset or unknown:
            raise ValueError(
                f"{folder} does not hold the codec of Higgs Audio v2 in the layout of transformers:"
                f" {len(unset)} weights are missing, {len(unknown)} are unknown"
                f" ({', '.join([*unset, *unknown][:3])})"
            )
        return codec.prepared()

    @classmethod
    def random(cls, *, tiny: bool, seed: int = 0) -> Codec:
        """A codec whose sound is noise of an ordinary loudness."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            codec = cls(random_codec_config(tiny=tiny))
            for name, module in codec.acoustic_decoder.named_modules():
                if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                    # Activations of about 1 on the whole way, as in a trained net: the rounding
                    # of large ones would grow without bound in the sine.
                    taps = 2 if isinstance(module, nn.ConvTranspose1d) else module.kernel_size[0]
                    gain = RANDOM_RESIDUAL_GAIN if "res_unit" in name else 1.0
                    nn.init.normal_(module.weight, std=gain / math.sqrt(taps * module.in_channels))
            codec.prepared()
            noise = codec.decode(torch.randint(codec.config.codebook_size, (1, codec.books, 8)))
            codec.acoustic_decoder.conv2.weight *= RANDOM_LOUDNESS / noise.std()
        return codec

    def prepared(self) -> Codec:
        """Fold what lies between codes and decoder into one table a codebook; for inference."""
        self.eval().requires_grad_(requires_grad=False)
        with torch.inference_mode():
            quantizers = list(self.quantizer.quantizers)
            self.tables = torch.stack(
                [q.embed @ (self.fc2.weight @ q.project_out.weight).T for q in quantizers]
            ).clone()
            biases = sum(q.project_out.bias for q in quantizers)
            self.offset = (self.fc2.weight @ biases + self.fc2.bias).clone()
        _fuse_snakes(self.acoustic_decoder)
        return self

    def place(self, decoder: torch.device, encoder: torch.device) -> Codec:
        """Move the halves: 85 MiB decode, 620 MiB encode (references, off the hot path)."""
        self.to(encoder)
        self.acoustic_decoder.to(decoder)
        self.tables, self.offset = self.tables.to(decoder), self.offset.to(decoder)
        return self

    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes into sound; works inside a CUDA graph.

        Args:
            codes: Integers [rows, codebooks, frames], 0 to 1023.

        Returns:
            Samples [rows, frames x hop_samples], of the decoder's dtype, unclipped.
        """
        hidden = self.offset + sum(
            table[codes[:, book]] for book, table in enumerate(self.tables.unbind())
        )
        decoder = self.acoustic_decoder
        samples: Tensor = decoder(hidden.transpose(1, 2).to(decoder.conv1.weight.dtype))
        return samples[:, 0]

    @torch.inference_mode()
    def encode(self, samples: Tensor) -> Tensor:
        """Turn sound into codes.

        Args:
            samples: Float [samples], mono, at `sample_rate_hz`.

        Returns:
            Codes, int64 [codebooks, frames].

        Raises:
            ValueError: It is too short for one frame.
        """
        if len(samples) < 2 * self.hop_samples:
            raise ValueError("the recording is shorter than two frames of the codec")
        config = self.config
        waveform = samples.to(self.fc.weight)[None]
        semantic = self.encoder_semantic(self._semantic_features(waveform).transpose(1, 2))
        if self._acoustic_frames(waveform.shape[1]) != semantic.shape[2]:
            waveform = functional.pad(waveform, (config.hop_length // 2, config.hop_length // 2))
        acoustic = self.acoustic_encoder(waveform[:, None])
        hidden = self.fc(torch.cat([acoustic, semantic], dim=1)[0].T)
        codes = []
        for quantizer in self.quantizer.quantizers:
            chosen, meant = quantizer.encode(hidden)
            hidden = hidden - meant
            codes.append(chosen)
        return torch.stack(codes)

    def _semantic_features(self, waveform: Tensor) -> Tensor:
        config = self.config
        at_16_khz = resample(waveform, config.sample_rate, config.semantic_sample_rate)
        padded = functional.pad(at_16_khz, (HUBERT_PADDING_SAMPLES, HUBERT_PADDING_SAMPLES))
        states = self.semantic_model(padded, output_hidden_states=True).hidden_states
        features = torch.stack(states, dim=1).mean(dim=1)
        return features[:, :: config.semantic_downsample_factor]

    def _acoustic_frames(self, samples: int) -> int:
        for ratio in self.config.acoustic_model_config.downsampling_ratios:
            samples = (samples + 2 * math.ceil(ratio / 2) - 2 * ratio) // ratio + 1
        return samples


def _fuse_snakes(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, Snake1d):
            setattr(module, name, _FusedSnake(child.alpha))
        else:
            _fuse_snakes(child)


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
