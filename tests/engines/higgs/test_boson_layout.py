"""A tiny model saved by the makers' own class, converted by transformers' script, against ours.

Fetched, not in this repository: `OLD_LOADER` names a checkout of github.com/boson-ai/higgs-audio,
`OLD_PYTHON` an interpreter with torch and transformers 4.46, which that class needs, and
`HIGGS_CONVERTER` convert_higgs_audio_v2_to_hf.py of transformers' repository. `make prove` skips it
without them.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import HiggsAudioV2Config

from engines.higgs.config import random_config
from tests.engines.higgs.test_decoder import loaded, read_of

FETCHED = [os.environ.get(name) for name in ("OLD_LOADER", "OLD_PYTHON", "HIGGS_CONVERTER")]
pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(not all(FETCHED), reason="OLD_LOADER, OLD_PYTHON and HIGGS_CONVERTER"),
    pytest.mark.filterwarnings("default"),
]
# The published configuration of Boson's layout, its sizes aside.
SAVE = """
import sys, types
from pathlib import Path

sys.modules["loguru"] = types.ModuleType("loguru")  # imported, not called here
sys.path.insert(0, sys.argv[1])
import torch
from boson_multimodal.model.higgs_audio import HiggsAudioConfig, HiggsAudioModel

torch.manual_seed(5)
rope = {"rope_type": "llama3", "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192}
text = {"model_type": "llama", "vocab_size": 128256, "hidden_size": 128, "intermediate_size": 256,
        "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "rope_theta": 500000.0,
        "rope_scaling": rope}
model = HiggsAudioModel(HiggsAudioConfig(
    text_config=text, audio_adapter_type="dual_ffn_fast_forward", audio_dual_ffn_layers=[0, 1],
    audio_num_codebooks=8, audio_codebook_size=1024, use_delay_pattern=True,
    encode_whisper_embed=False, encode_audio_in_tokens=True, skip_audio_tower=True))
for parameter in model.parameters():
    torch.nn.init.normal_(parameter)
model.save_pretrained(sys.argv[2])
"""


def converter() -> Any:
    """The script as a module, on folders and a tiny configuration instead of the hub's."""
    path = Path(str(FETCHED[2]))
    spec = importlib.util.spec_from_file_location("converter", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tiny = random_config(tiny=True)
    module.snapshot_download = lambda repo_id, **_: repo_id
    module.HiggsAudioV2Config = lambda codebook_size: HiggsAudioV2Config(
        codebook_size=codebook_size,
        hidden_size=tiny.hidden_size,
        intermediate_size=tiny.intermediate_size,
        num_hidden_layers=tiny.num_hidden_layers,
        num_attention_heads=tiny.num_attention_heads,
        num_key_value_heads=tiny.num_key_value_heads,
        head_dim=tiny.head_dim,
        rope_parameters={
            "rope_type": "llama3", "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_theta": 500000.0,
        },
    )  # fmt: skip
    return module


def test_the_makers_own_model_loads_as_what_transformers_makes_of_it(tmp_path: Path) -> None:
    """Every weight to the bit, and every field of the configuration."""
    old, new = tmp_path / "old", tmp_path / "new"
    subprocess.run([str(FETCHED[1]), "-c", SAVE, str(FETCHED[0]), str(old)], check=True)
    converter().convert_model(str(old)).save_pretrained(new)
    old_config, ours = loaded(old)
    new_config, theirs = loaded(new)
    assert '"higgs_audio"' in (old / "config.json").read_text()
    assert '"higgs_audio_v2"' in (new / "config.json").read_text()
    assert read_of(old_config) == read_of(new_config)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.std() > 0.5, name
        assert torch.equal(tensor, theirs[name]), name
