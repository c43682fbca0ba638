"""A tiny model of transformers' own class with random weights, and this engine's copy of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch", reason="the extra `gpu` is not installed")
pytest.importorskip("transformers", reason="the extra `gpu` is not installed")

from transformers import HiggsAudioV2Config, HiggsAudioV2ForConditionalGeneration  # noqa: E402

from engines.higgs.config import random_config  # noqa: E402
from engines.higgs.generation import Prompt, delay  # noqa: E402
from engines.higgs.model import Decoder  # noqa: E402
from engines.higgs.weights import load_weights  # noqa: E402

CPU = torch.device("cpu")
CONTEXT = 320


def state_dict_source(model: Any) -> Any:
    """Return a source of the tensors of a transformers model in memory."""
    state = model.state_dict()

    def tensor(name: str, shape: tuple[int, ...]) -> Any:
        found = state[name if name.startswith("audio_lm") else f"model.{name}"]
        assert found.shape == shape
        return found

    return tensor


def transformers_model(*, layers: int = 2, spread: float = 0.25) -> Any:
    """Return transformers' model at tiny size, with weights that make lively logits."""
    torch.manual_seed(1)
    tiny = random_config(tiny=True)
    config = HiggsAudioV2Config(
        codebook_size=tiny.codebook_size,
        hidden_size=tiny.hidden_size,
        intermediate_size=tiny.intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=tiny.num_attention_heads,
        num_key_value_heads=tiny.num_key_value_heads,
        head_dim=tiny.head_dim,
    )
    model = HiggsAudioV2ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5)
            elif "embed_tokens.weight" not in name:
                weight.normal_(0, spread / weight.shape[1] ** 0.25)
    return model


def decoder_of(model: Any, *, precision: str = "bf16", context: int = CONTEXT) -> Decoder:
    """Return this engine's decoder with the weights of transformers' model."""
    source = state_dict_source(model)
    weights = load_weights(model.config, source, precision=precision, device=CPU)
    return Decoder(model.config, weights, context)


def random_codes(frames: int, seed: int) -> npt.NDArray[np.int16]:
    """Return int16 [8, frames] codes of a reference."""
    return np.random.default_rng(seed).integers(0, 1024, (8, frames)).astype(np.int16)


def prompt_of(
    config: HiggsAudioV2Config, *, texts: int = 12, references: tuple[int, ...] = (), seed: int = 3
) -> Prompt:
    """Return a prompt: for each reference some text and its audio, then text and the audio's BOS.

    The references are the shared prefix.
    """
    rng = np.random.default_rng(seed)
    ids: list[int] = []
    rows: list[npt.NDArray[np.int16]] = []
    shared = 0
    for index, frames in enumerate(references):
        ids += rng.integers(0, 128000, texts).tolist()
        ids.append(config.audio_bos_token_id)
        rows.append(delay(random_codes(frames, seed + index)))
        ids += [config.audio_token_id] * (frames + 2) + [config.audio_delay_token_id] * 7
        shared = len(ids)
    ids += rng.integers(0, 128000, texts).tolist()
    ids.append(config.audio_bos_token_id)
    stacked = np.concatenate(rows) if rows else np.zeros((0, 8), np.int16)
    return Prompt(np.array(ids, np.int32), stacked, shared)


def transformers_inputs(prompt: Prompt) -> dict[str, Any]:
    """Return the prompt as transformers' `forward` and `generate` take it."""
    inputs = {
        "input_ids": torch.from_numpy(prompt.token_ids).long()[None],
        "attention_mask": torch.ones(1, len(prompt.token_ids), dtype=torch.long),
    }
    if len(prompt.audio_rows):
        inputs["audio_input_ids"] = torch.from_numpy(prompt.audio_rows).long()[None]
        inputs["audio_input_ids_mask"] = torch.ones(1, len(prompt.audio_rows), dtype=torch.bool)
    return inputs
