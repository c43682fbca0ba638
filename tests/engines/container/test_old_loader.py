"""The loader of the makers' image, its own files, on tiny codecs of both layouts; no network.

`OLD_LOADER` names a checkout of github.com/boson-ai/higgs-audio at f04f5df (2025-08-03), whose
codec loader is that of the image; it needs torch, transformers 4, librosa and
vector-quantize-pytorch. `make prove` skips it without them.
"""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = os.environ.get("OLD_LOADER")
pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(not CHECKOUT, reason="OLD_LOADER names no checkout"),
    pytest.mark.filterwarnings("default"),
]
CONFIG: dict[str, Any] = {
    "n_filters": 2, "D": 4, "ratios": [2], "sample_rate": 16000, "bins": 8, "n_q": 2,
    "target_bandwidths": [1], "semantic_techer": "hubert_base_general",
}  # fmt: skip
COMMIT = "c" * 40


def load(folder: Path) -> Any:
    """What the image does with `--audio-tokenizer-type FOLDER`."""
    module = sys.modules["boson_multimodal.audio_processing.higgs_audio_tokenizer"]
    return module.load_higgs_audio_tokenizer(str(folder), device="cpu")


@pytest.fixture(scope="module", autouse=True)
def _loader(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The loader's modules, without what it imports and does not call, and a cache with hubert."""
    home = tmp_path_factory.mktemp("cache")
    os.environ.update(HF_HOME=str(home), HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    sys.path.insert(0, str(CHECKOUT))
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")  # before the stand-ins: it looks for torchaudio itself
    from transformers import HubertConfig, HubertModel  # noqa: PLC0415

    for name, members in {
        "audiotools": {"AudioSignal": object},
        "audiotools.ml": {"BaseModel": torch.nn.Module},
        "torchaudio": {},
    }.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(members)
    package = "boson_multimodal.audio_processing"
    vendored = __import__(f"{package}.descriptaudiocodec", fromlist=["x"])
    sys.modules["dac"] = types.ModuleType("dac")
    folder = Path(str(vendored.__file__)).parent / "dac"
    vars(sys.modules["dac"])["__path__"] = [str(folder)]
    repository = home / "hub" / "models--bosonai--hubert_base"
    tiny = HubertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=[8], conv_stride=[5], conv_kernel=[10], num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    HubertModel(tiny).save_pretrained(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    __import__(f"{package}.higgs_audio_tokenizer")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec of the layout that the image knows."""
    import torch  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("old")
    module = sys.modules["boson_multimodal.audio_processing.higgs_audio_tokenizer"]
    model = module.HiggsAudioTokenizer(**CONFIG, device="cpu")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    torch.save(model.state_dict(), folder / "model.pth")
    return folder


def taken(folder: Path, model: Any) -> tuple[int, int]:
    """How many of a model's tensors are those of the file, and how many there are."""
    import torch  # noqa: PLC0415

    saved = torch.load(folder / "model.pth")
    state = model.state_dict()
    return sum(k in saved and torch.equal(v, saved[k]) for k, v in state.items()), len(state)


def test_the_layout_of_the_pinned_commit_loads_whole(old: Path) -> None:
    """From a folder, with hubert from the cache's refs/main, offline."""
    found, count = taken(old, load(old))
    print(f"\nold layout: {found} of {count} tensors are those of the file")
    assert found == count > 100


def test_the_newer_layout_is_refused(tmp_path: Path) -> None:
    """Its config.json is no list of arguments, and it has no model.pth."""
    config = {"model_type": "higgs_audio_v2_tokenizer", "architectures": ["HiggsAudioV2Tokenizer"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(TypeError, match="unexpected keyword argument") as refused:
        load(tmp_path)
    print(f"\nnewer layout: {refused.value}")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(FileNotFoundError, match=r"model\.pth"):
        load(tmp_path)


def test_other_names_in_the_right_file_load_silently(old: Path, tmp_path: Path) -> None:
    """`strict=False`: why the weights are fetched by commit, and no guess is made."""
    import torch  # noqa: PLC0415

    saved = torch.load(old / "model.pth")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    torch.save({f"acoustic_{name}": value for name, value in saved.items()}, tmp_path / "model.pth")
    found, count = taken(tmp_path, load(tmp_path))
    print(f"\nother names: loads without a word; {found} of {count} tensors are those of the file")
    assert found == 0
