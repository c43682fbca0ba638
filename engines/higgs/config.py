"""The model's configuration: transformers' own class, read from a checkpoint's files and checked.

Two layouts exist: transformers' own (`model_type` higgs_audio_v2, hub revisions since 2026-04-04)
and Boson's first one (`model_type` higgs_audio). Nothing is guessed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import HiggsAudioV2Config, LlamaConfig

from engines.higgs.generation import CODEBOOKS, STREAM_BOS, STREAM_EOS

# Boson's layout does not name the delay token; transformers' conversion of it does.
OLD_LAYOUT_DELAY_TOKEN = 128014


class UnsupportedCheckpointError(ValueError):
    """The checkpoint's configuration asks for what this engine does not compute."""


def checked(config: HiggsAudioV2Config) -> HiggsAudioV2Config:
    """Return a configuration that the decoder computes.

    Raises:
        UnsupportedCheckpointError: A bias, another activation, other codebooks, or a rotary type
            that changes with the length.
    """
    if config.attention_bias or config.mlp_bias or config.hidden_act != "silu":
        raise UnsupportedCheckpointError("biases and activations other than SiLU are unsupported")
    codes = (config.num_codebooks, config.audio_stream_bos_id, config.audio_stream_eos_id)
    if codes != (CODEBOOKS, STREAM_BOS, STREAM_EOS):
        raise UnsupportedCheckpointError(f"(codebooks, BOS, EOS) = {codes} are unsupported")
    if config.codebook_size <= STREAM_EOS:
        # transformers' default is 1024, which leaves out the stream's BOS and EOS.
        raise UnsupportedCheckpointError(
            f"codebook_size {config.codebook_size} has no room for the stream's BOS and EOS codes"
        )
    if config.rope_parameters["rope_type"] not in {"default", "linear", "llama3"}:
        kind = config.rope_parameters["rope_type"]
        raise UnsupportedCheckpointError(f"rotary embedding of type {kind!r} is unsupported")
    return config


def read_config(folder: Path) -> HiggsAudioV2Config:
    """Read `config.json` of a checkpoint's folder, in either layout.

    Raises:
        UnsupportedCheckpointError: Another model, or a variant of this one that is not computed.
    """
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = raw.get("model_type")
    if kind == "higgs_audio_v2":
        return checked(HiggsAudioV2Config.from_pretrained(folder))
    if kind == "higgs_audio":
        return checked(_from_old_layout(raw))
    raise UnsupportedCheckpointError(f"model_type {kind!r} is not Higgs Audio v2")


# Settings of Boson's layout that change the computation, and the value that this engine computes.
_OLD_LAYOUT_REQUIRED = {
    "use_delay_pattern": True,
    "audio_embed_avg": False,
    "use_audio_out_embed_projector": False,
    "use_audio_out_self_attention": False,
    "use_rq_transformer": False,
    "audio_decoder_proj_num_layers": 0,
}

_OLD_LAYOUT_SHAPE = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps", "hidden_act"),
    *("attention_bias", "mlp_bias", "max_position_embeddings", "rope_parameters"),
)


def _from_old_layout(raw: dict[str, Any]) -> HiggsAudioV2Config:
    text = raw["text_config"]
    for name, value in _OLD_LAYOUT_REQUIRED.items():
        if (raw.get(name) or False) != value:
            raise UnsupportedCheckpointError(f"{name}={raw.get(name)!r} is unsupported")
    if sorted(raw["audio_dual_ffn_layers"]) != list(range(text["num_hidden_layers"])):
        raise UnsupportedCheckpointError("layers without an audio feed-forward net are unsupported")
    llama = LlamaConfig(**text)  # as Boson's own configuration class reads it
    return HiggsAudioV2Config(
        **{name: getattr(llama, name) for name in _OLD_LAYOUT_SHAPE},
        num_codebooks=raw["audio_num_codebooks"],
        codebook_size=raw["audio_codebook_size"] + 2,  # BOS and EOS follow the codes
        audio_token_id=raw["audio_out_token_idx"],
        audio_bos_token_id=raw["audio_out_bos_token_id"],
        audio_delay_token_id=OLD_LAYOUT_DELAY_TOKEN,
        audio_stream_bos_id=raw["audio_stream_bos_id"],
        audio_stream_eos_id=raw["audio_stream_eos_id"],
    )


# Widths are multiples of 128, so that 4-bit weights can be tried on it too.
_TINY = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
}


def random_config(*, tiny: bool) -> HiggsAudioV2Config:
    """Return the published model's configuration, or a tiny one with the same token ids."""
    # The class's defaults are the published model's, apart from the codebook's size.
    return HiggsAudioV2Config(codebook_size=1026, **(_TINY if tiny else {}))
