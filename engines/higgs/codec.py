"""The audio codec of Higgs Audio v2: codes to sound and sound to codes, at 25 frames a second.

The weights and the arithmetic are those of `HiggsAudioV2TokenizerModel` in transformers 5.24, made
of its public DAC and HuBERT models. That class itself needs torchaudio, whose wheels do not load
beside a CPU build of torch; tests compare the two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import DacModel, HiggsAudioV2TokenizerConfig, HubertModel
from transformers.audio_utils import conv1d_output_length
from transformers.models.xcodec.modeling_xcodec import SemanticEncoder  # this codec's, too

from engines.higgs import codec_dac, codec_semantic
from engines.higgs.generation import CODEBOOKS
from engines.voice import SAMPLE_RATE_HZ, SAMPLES_PER_TOKEN

RATIOS = [8, 5, 4, 2, 3]
BANDWIDTHS = [0.5, 1, 1.5, 2]  # the last one gives 8 codebooks: bosonai/higgs-audio-v2-tokenizer
SHORTEST_SAMPLES = 2 * SAMPLES_PER_TOKEN  # of a recording
RANDOM_RESIDUAL_GAIN = 0.3
RANDOM_LOUDNESS = 0.1  # standard deviation of a random codec's sound
# Recordings are filled up to one of these on a GPU, where each new length costs its preparation.
FILLED_SECONDS = (4, 6, 8, 12, 16, 24, 32, 48, 64)
# Parts of a checkpoint that neither encoding nor decoding uses.
UNUSED_WEIGHTS = re.compile(
    r"decoder_semantic\.|fc1\.|masked_spec_embed|cluster_size|embed_avg|inited"
)


def random_codec_config(*, tiny: bool) -> HiggsAudioV2TokenizerConfig:
    """The configuration of `--model random` and `--model random-tiny`."""
    # The class's defaults are the published codec's, apart from ratios and bandwidths.
    acoustic: dict[str, Any] = {"downsampling_ratios": RATIOS, "upsampling_ratios": RATIOS}
    semantic: dict[str, Any] = {}
    if tiny:
        acoustic |= {"encoder_hidden_size": 2, "decoder_hidden_size": 32, "hidden_size": 16}
        semantic |= {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        semantic |= {"intermediate_size": 32, "conv_dim": [16] * 7}
        semantic |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    return HiggsAudioV2TokenizerConfig(
        target_bandwidths=BANDWIDTHS,
        acoustic_model_config={"model_type": "dac", **acoustic},
        semantic_model_config={"model_type": "hubert", **semantic},
    )


class _Quantizer(nn.Module):
    """One codebook with its projections; the names are the checkpoint's."""

    def __init__(self, config: HiggsAudioV2TokenizerConfig) -> None:
        super().__init__()
        embed = torch.randn(config.codebook_size, config.codebook_dim)
        self.codebook = nn.ParameterDict({"embed": embed})
        self.project_in = nn.Linear(config.hidden_size, config.codebook_dim)
        self.project_out = nn.Linear(config.codebook_dim, config.hidden_size)

    def encode(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Nearest codes [frames] of `hidden` [frames, channels], and what they stand for."""
        point, embed = self.project_in(hidden), self.codebook["embed"]
        distance = embed.pow(2).sum(1) - 2 * point @ embed.T
        codes = distance.argmin(dim=1)
        return codes, self.project_out(embed[codes])


class Codec(nn.Module):
    """Encoder and decoder; the names of its parts are the checkpoint's.

    Args:
        config: Of the checkpoint.

    Raises:
        ValueError: The configuration is not of the published codec's frames.
    """

    def __init__(self, config: HiggsAudioV2TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        acoustic = config.acoustic_model_config
        rates_hz = (config.sample_rate, config.semantic_sample_rate)
        shape = (config.num_quantizers, list(acoustic.upsampling_ratios), set(config.strides))
        if rates_hz != (SAMPLE_RATE_HZ, 16_000) or shape != (CODEBOOKS, RATIOS, {1}):
            raise ValueError(f"a codec of {rates_hz} Hz and {shape} is unsupported")
        dac = DacModel(acoustic)
        self.acoustic_encoder, self.acoustic_decoder = dac.encoder, dac.decoder
        self.encoder_semantic = SemanticEncoder(config)
        self.semantic_model = HubertModel(config.semantic_model_config)
        self.semantic_model.masked_spec_embed = None  # for training
        self.fc = nn.Linear(config.hidden_size, config.hidden_size)
        self.fc2 = nn.Linear(config.hidden_size, acoustic.hidden_size)
        self.quantizer = nn.Module()
        self.quantizer.quantizers = nn.ModuleList(
            _Quantizer(config) for _ in range(config.num_quantizers)
        )
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
        weights = load_file(folder / "model.safetensors")
        unset, unknown = codec.load_state_dict(weights, strict=False, assign=True)
        unknown = [name for name in unknown if not UNUSED_WEIGHTS.search(name)]
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
            noise = codec.decode(torch.randint(codec.config.codebook_size, (1, CODEBOOKS, 8)))
            codec.acoustic_decoder.conv2.weight *= RANDOM_LOUDNESS / noise.std()
        return codec

    def prepared(self) -> Codec:
        """Fold what lies between codes and decoder into one table a codebook; for inference."""
        self.eval().requires_grad_(requires_grad=False)
        with torch.inference_mode():
            quantizers = list(self.quantizer.quantizers)
            self.tables = torch.stack(
                [
                    q.codebook["embed"] @ (self.fc2.weight @ q.project_out.weight).T
                    for q in quantizers
                ]
            ).clone()
            biases = sum(q.project_out.bias for q in quantizers)
            self.offset = (self.fc2.weight @ biases + self.fc2.bias).clone()
        codec_dac.prepare(self.acoustic_encoder)
        codec_dac.prepare(self.acoustic_decoder)
        return self

    def place(self, decoder: torch.device, encoder: torch.device) -> Codec:
        """Move the halves: 85 MiB decode, 620 MiB encode (references, off the hot path)."""
        if encoder.type == "cuda":
            # HuBERT's products in tf32, as cuDNN's convolutions are: 99.8 % of codes are equal.
            torch.set_float32_matmul_precision("high")
        self.to(encoder)
        self.acoustic_decoder.to(decoder)
        self.tables, self.offset = self.tables.to(decoder), self.offset.to(decoder)
        return self

    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes into sound; works inside a CUDA graph.

        Args:
            codes: Integers [rows, codebooks, frames], 0 to 1023.

        Returns:
            Samples [rows, frames x 960], of the decoder's dtype, unclipped.
        """
        hidden = self.offset + sum(
            table[codes[:, book]] for book, table in enumerate(self.tables.unbind())
        )
        hidden = hidden.transpose(1, 2).to(self.acoustic_decoder.conv1.weight.dtype)
        return codec_dac.decode(self.acoustic_decoder, hidden)

    @torch.inference_mode()
    def encode(self, recordings: Sequence[Tensor]) -> list[Tensor]:
        """Turn recordings into codes, all at once; neighbours do not change them.

        Args:
            recordings: Float [samples] each, mono, at 24 kHz; SHORTEST_SAMPLES or more.

        Returns:
            Codes, int64 [codebooks, frames] each.
        """
        config, hop, hubert = self.config, SAMPLES_PER_TOKEN, self.semantic_model.config
        counts = [len(samples) for samples in recordings]
        low_counts = [codec_semantic.samples_at_16_khz(count) for count in counts]
        frames = [
            math.ceil(codec_semantic.hubert_frames(hubert, n) / config.semantic_downsample_factor)
            for n in low_counts
        ]
        # Where the two encoders disagree about the frames, half of one is put on either side.
        margins = [
            0 if self._acoustic_frames(n) == wanted else hop // 2
            for n, wanted in zip(counts, frames, strict=True)
        ]
        size = self.filled_samples(max(counts))
        filled = [functional.pad(each, (0, size + hop - len(each))) for each in recordings]
        waves = torch.stack(filled).to(self.fc.weight)
        low = codec_semantic.at_16_khz(waves[:, :size])
        for row, n in zip(low, low_counts, strict=True):
            row[n:] = 0
        features = codec_semantic.hubert_features(self.semantic_model, low, low_counts)
        features = features[:, :: config.semantic_downsample_factor].transpose(1, 2)
        semantic = codec_semantic.semantic_features(self.encoder_semantic, features, frames)
        waves = torch.stack(
            [wave.roll(margin) for wave, margin in zip(waves, margins, strict=True)]
        )
        acoustic = codec_dac.encode(
            self.acoustic_encoder, waves, [n + 2 * m for n, m in zip(counts, margins, strict=True)]
        )
        length = max(frames)
        joined = torch.cat([acoustic[..., :length], semantic[..., :length]], dim=1)
        codes = self._quantise(self.fc(joined.transpose(1, 2)))
        return [row[:, :n] for row, n in zip(codes, frames, strict=True)]

    def filled_samples(self, samples: int) -> int:
        """The length to which a recording of so many samples is filled up."""
        if self.fc.weight.device.type == "cpu":
            return samples
        sizes = (seconds * SAMPLE_RATE_HZ for seconds in FILLED_SECONDS)
        return next((size for size in sizes if size >= samples), samples)

    def _quantise(self, hidden: Tensor) -> Tensor:
        """Codes [rows, codebooks, frames] of `hidden` [rows, frames, channels]."""
        shape, codes = hidden.shape[:2], []
        hidden = hidden.flatten(0, 1)
        for quantizer in self.quantizer.quantizers:
            chosen, meant = quantizer.encode(hidden)
            hidden = hidden - meant
            codes.append(chosen.view(shape))
        return torch.stack(codes, dim=1)

    def _acoustic_frames(self, samples: int) -> int:
        for block in self.acoustic_encoder.block:
            samples = conv1d_output_length(block.conv1, samples)
        return samples
