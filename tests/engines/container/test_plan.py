"""The settings file decides what container is made: exactly the documented one."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.container import plan as plan_module
from engines.container.plan import ContainerError, make_plan, read_file, size_bytes
from engines.container.preflight import check_cards, read_cards

ROOT = Path(__file__).parents[3]
DOCUMENTED = (
    "--served-model-name higgs-audio-v2-generation-3B-base "
    "--model "
    "/root/.cache/huggingface/snapshots/10840182ca4ad5d9d9113b60b9bb3c1ef1ba3f84 "
    "--audio-tokenizer-type "
    "/root/.cache/huggingface/snapshots/9d4988fbd4ad07b4cac3a5fa462741a41810dbec "
    "--limit-mm-per-prompt audio=50 "
    "--max-model-len 8192 --port 8000 --gpu-memory-utilization 0.8 "
    "--disable-mm-preprocessor-cache --disable-log-requests"
)
A100 = "NVIDIA A100-SXM4-40GB, 40960, 512, 8.0\n"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "HIGGS_PORT",
        "HIGGS_IMAGE",
        "GATEWAY_VOICES_DIR",
        "HF_TOKEN",
        "HF_ENDPOINT",
    ):
        monkeypatch.delenv(name, raising=False)


def test_the_shipped_file_gives_the_documented_container() -> None:
    """The arguments of the engine's makers, and not to log what people say."""
    plan = make_plan(read_file(ROOT / "deploy" / "vllm.env"))
    assert " ".join(plan.command) == DOCUMENTED
    assert plan.image == "bosonai/higgs-audio-vllm:v0.8.3-250730"
    assert plan.shared_memory_bytes == 20 << 30
    assert plan.address == "http://127.0.0.1:8000"
    assert plan == make_plan({}), "the defaults are those of the file"


def test_the_shell_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with Compose: what is set for one command wins."""
    file = tmp_path / "vllm.env"
    file.write_text("HIGGS_PORT=8001\nHIGGS_MAX_MODEL_LEN=4096\n# HIGGS_IMAGE=other\n")
    monkeypatch.setenv("HIGGS_PORT", "8002")
    plan = make_plan(read_file(file), "mine")
    assert plan.port == 8002
    assert plan.command[plan.command.index("--max-model-len") + 1] == "4096"
    assert plan.image == "bosonai/higgs-audio-vllm:v0.8.3-250730"
    assert plan.name == "mine"


def test_the_download_alone_gets_the_hubs_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine, which runs code that came with the weights, never sees it and asks no hub."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.local")
    plan = make_plan({"HIGGS_HUBERT_REVISION": "c" * 40})
    assert plan.weights_environment["HF_TOKEN"] == "hf_secret"  # noqa: S105
    assert plan.weights_environment["HF_ENDPOINT"] == "http://hub.local"
    assert plan.weights_environment["HIGGS_HUBERT_REVISION"] == "c" * 40
    assert "hf_secret" not in plan.environment.values()
    assert plan.environment["HF_HUB_OFFLINE"] == plan.environment["TRANSFORMERS_OFFLINE"] == "1"
    assert plan.fingerprint == make_plan({}).fingerprint, "a token makes no other container"


def test_other_rules_of_the_network_make_another_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that an earlier version made would go on without them."""
    before = make_plan({}).fingerprint
    monkeypatch.setattr(plan_module, "NO_ROUTER", {})
    assert make_plan({}).fingerprint != before


def test_a_cache_of_this_machine_takes_the_volumes_place(tmp_path: Path) -> None:
    """One that is filled already is not downloaded again."""
    assert make_plan({}).models == "speech-gateway_models"
    assert make_plan({"HIGGS_MODELS": str(tmp_path)}).models == str(tmp_path)


def test_a_voices_folder_takes_the_place_of_the_images_own(tmp_path: Path) -> None:
    """The engine reads the gateway's library."""
    plan = make_plan({"GATEWAY_VOICES_DIR": str(tmp_path)})
    assert plan.command[-2:] == ("--voice-presets-dir", "/voices")
    assert plan.voices_folder == str(tmp_path)
    assert plan.fingerprint != make_plan({}).fingerprint


@pytest.mark.parametrize(
    ("text", "expected"), [("20gb", 20 << 30), ("512m", 512 << 20), ("64", 64), ("1 GiB", 1 << 30)]
)
def test_sizes_are_read_as_docker_writes_them(text: str, expected: int) -> None:
    """`20gb` is what its makers write."""
    assert size_bytes(text) == expected


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"HIGGS_PORT": "many"}, "HIGGS_PORT"),
        ({"HIGGS_PORT": "99999"}, "HIGGS_PORT"),
        ({"HIGGS_SHM_SIZE": "big"}, "HIGGS_SHM_SIZE"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, str], named: str) -> None:
    """One sentence says which line of the file to mend."""
    with pytest.raises(ContainerError, match=named):
        make_plan(values)


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    """A misspelt path must not start an engine with defaults."""
    with pytest.raises(ContainerError, match=r"nothing\.env"):
        read_file(tmp_path / "nothing.env")


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("", "no GPU"),
        ("No devices were found\n", "no GPU"),
        ("NVIDIA GeForce RTX 3060, 12288, 1, 8.6\n", "12 GiB"),
        ("NVIDIA B200, 183359, 0, 10.0\n", "Blackwell"),
        ("NVIDIA GeForce RTX 5090, 32607, 0, 12.0\n", "--precision bf16"),
        ("NVIDIA GeForce RTX 3060, 12288, 0, 8.6\n", "--precision int8"),
        ("NVIDIA GeForce RTX 4060, 8188, 0, 8.9\n", "--precision int8"),
        ("NVIDIA GeForce RTX 5090, 32607, 0, 12.0\n", "Blackwell"),
        ("NVIDIA A100-SXM4-40GB, 40960, 30000, 8.0\n", "HIGGS_GPU_MEMORY_UTILIZATION"),
    ],
)
def test_a_gpu_that_cannot_do_it_is_refused_with_the_reason(printed: str, said: str) -> None:
    """Better one sentence now than a crash after a download of 12 GB."""
    with pytest.raises(ContainerError, match=said):
        check_cards(read_cards(printed), 0.8)


@pytest.mark.parametrize(
    "printed",
    [
        A100,
        "NVIDIA GeForce RTX 4090, 24564, 300, 8.9\n",
        "NVIDIA A10G, 23028, 0, 8.6\n",
        "NVIDIA H100 80GB HBM3, 81559, 0, 9.0\n" + A100,
    ],
)
def test_a_gpu_that_can_is_let_through(printed: str) -> None:
    """Cards of 24 GB report a little less than that."""
    check_cards(read_cards(printed), 0.8)
