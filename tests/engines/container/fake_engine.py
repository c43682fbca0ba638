"""Stands in for the engine's image: it refuses what the image's loader refuses, then simulates.

Run as `python3 engine.py ARGUMENTS` where the gateway is installed. A process of its own is the
engine core: when that is killed, every request hangs and `/health` still says 200, as
docs/contract.md section 1 has it.
"""

from __future__ import annotations

import http.client
import json
import os
import runpy
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_NO_USAGE_STATS")
# The arguments of HiggsAudioTokenizer (boson_multimodal/audio_processing/higgs_audio_tokenizer.py):
# its loader passes the whole config.json to it.
CODEC_ARGUMENTS = {
    "n_filters", "D", "target_bandwidths", "ratios", "sample_rate", "bins", "n_q", "codebook_dim",
    "normalize", "causal", "semantic_techer", "last_layer_semantic", "merge_mode",
    "downsample_mode", "semantic_mode", "vq_scale", "semantic_sample_rate",
}  # fmt: skip


def refuse(reason: str) -> None:
    """End as the image would, with a line that names what it missed."""
    sys.exit(f"the engine cannot load: {reason}")


def check_model(folder: Path) -> None:
    """A snapshot of the generation model, with every shard."""
    if not (folder / "config.json").is_file():
        refuse(f"{folder} is no folder with a model, and there is no network")
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    if kind != "higgs_audio":
        refuse(f"model type {kind} is not known")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    for shard in index["weight_map"].values():
        if not (folder / shard).is_file():
            refuse(f"{folder} has no {shard}")


def check_codec(folder: Path) -> None:
    """What `load_higgs_audio_tokenizer` reads."""
    if not folder.exists():
        refuse(f"the codec {folder} is not here, and there is no network")
    unknown = set(json.loads((folder / "config.json").read_text())) - CODEC_ARGUMENTS
    if unknown:
        refuse(f"HiggsAudioTokenizer got an unexpected argument {min(unknown)!r}")
    if not (folder / "model.pth").is_file():
        refuse(f"no such file: {folder}/model.pth")


def check_hubert(cache: Path) -> None:
    """What `AutoModel.from_pretrained("bosonai/hubert_base")` finds without a network."""
    folder = cache / "hub" / "models--bosonai--hubert_base"
    main = folder / "refs" / "main"
    if not main.is_file() or not (folder / "snapshots" / main.read_text()).is_dir():
        refuse("bosonai/hubert_base is not in the cache")


def hang_without_core(port: str) -> None:
    """Start the core; when it is gone, let every request hang."""
    program = [sys.executable, "-c", "import sys; sys.stdin.read()"]  # it ends with this process
    core = subprocess.Popen(program, stdin=subprocess.PIPE)
    print(f"core {core.pid}", flush=True)

    def watch() -> None:
        core.wait()
        server = http.client.HTTPConnection("127.0.0.1", int(port))
        server.request("POST", "/simulator/faults", json.dumps({"always": "hang"}))
        server.getresponse().read()

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Check, then serve."""
    arguments = sys.argv[1:]
    print("argv " + json.dumps(arguments), flush=True)
    values = dict(pairwise(arguments))
    missing = [name for name in OFFLINE if os.environ.get(name) != "1"]
    if missing:
        refuse(f"{missing[0]} is not set: it would ask the hub")
    check_model(Path(values["--model"]))
    check_codec(Path(values["--audio-tokenizer-type"]))
    check_hubert(Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"))
    print("everything is here", flush=True)
    if "FAKE_ENGINE_CHECKS_ONLY" in os.environ:
        return
    while (file := os.environ.get("FAKE_ENGINE_START_FILE")) and not Path(file).exists():
        time.sleep(0.1)
    hang_without_core(values["--port"])
    sys.argv[1:] = [
        *("engine", "--voice", "simulated", "--port", values["--port"]),
        *("--host", values.get("--host", "0.0.0.0")),
        *("--served-model-name", values["--served-model-name"]),
        *os.environ.get("FAKE_ENGINE_ARGUMENTS", "").split(),
    ]
    runpy.run_module("gateway", run_name="__main__")


if __name__ == "__main__":
    main()
