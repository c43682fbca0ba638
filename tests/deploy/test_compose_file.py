"""The compose file and vllm.env as Compose understands them; no Docker engine is needed."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engines.container.plan import OFFLINE, WEIGHTS_VARIABLES, make_plan
from engines.serve import add_engine_arguments
from gateway import __version__
from gateway.settings import Settings, variable_name
from tests.deploy.docker_host import ROOT, call, compose_command
from tests.deploy.stacks import ADDED_ARGUMENTS, COMPOSE_FILE, DOCUMENTED_ARGUMENTS

pytestmark = pytest.mark.docker

FRONT_FILE = ROOT / "deploy" / "front.yml"
VLLM_ENV = ROOT / "deploy" / "vllm.env"
SEED = ROOT / "engines" / "container" / "seed_voices.py"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
EVERYTHING = "gpu,higgs,cpu,monitoring,load"
GPU = {"engine", "weights", "voices-seed", "gpu-exporter"}
MONITORING = {"prometheus", "alertmanager", "grafana"}


def configuration(profiles: str | None, *options: str) -> dict[str, Any]:
    """What Compose makes of the file, as it is found from the repository's root."""
    command = compose_command()
    if command is None:
        pytest.skip("Docker Compose is not installed")
    environment = {"COMPOSE_PROFILES": profiles} if profiles else {}
    found = call(
        *command,
        "-f",
        COMPOSE_FILE,
        *options,
        "config",
        "--format",
        "json",
        environment=environment,
    )
    loaded = json.loads(found)
    assert isinstance(loaded, dict)
    return loaded


def variables() -> dict[str, str]:
    """The lines of vllm.env, those that are commented out included."""
    lines = re.findall(r"^(?:# )?([A-Z][A-Z_]+)=(.*)$", VLLM_ENV.read_text(), re.MULTILINE)
    return dict(lines)


@pytest.mark.parametrize(
    ("profiles", "options", "services"),
    [
        (None, (), {*GPU, "gateway", *MONITORING}),
        ("cpu,monitoring", (), {"gateway", "engine-cpu", *MONITORING}),
        ("cpu", (), {"gateway", "engine-cpu"}),
        (None, ("--profile", "cpu"), {"gateway", "engine-cpu"}),
        ("gpu", (), {*GPU, "gateway"}),
        ("higgs", (), {"gateway", "engine-higgs", "gpu-exporter"}),
        ("load", (), {"gateway", "locust"}),
    ],
)
def test_each_profile_starts_its_services(
    profiles: str | None, options: tuple[str, ...], services: set[str]
) -> None:
    """A plain `up` is the GPU with monitoring; naming profiles replaces that choice."""
    assert set(configuration(profiles, *options)["services"]) == services


def test_the_engine_is_started_as_documented_with_two_more_options() -> None:
    """No value is lost between vllm.env and the command line."""
    engine = configuration(None)["services"]["engine"]
    assert engine["image"] == "bosonai/higgs-audio-vllm:v0.8.3-250730"
    assert engine["command"] == f"{DOCUMENTED_ARGUMENTS} {ADDED_ARGUMENTS}".split()


def test_our_own_engine_is_started_with_words_that_it_knows() -> None:
    """Options of vllm.env are split as a shell splits them; none is no word."""
    engine = configuration("higgs")["services"]["engine-higgs"]
    parser = argparse.ArgumentParser()
    add_engine_arguments(parser)
    command, *words = engine["command"]
    assert command == "engine"
    parsed = parser.parse_args(words)
    assert (parsed.voice, parsed.host, parsed.port) == ("higgs", "0.0.0.0", 8000)
    assert parsed.model == "bosonai/higgs-audio-v2-generation-3B-base"


def test_every_variable_of_the_files_stands_in_vllm_env() -> None:
    """Whoever looks for a value finds it there, and Compose warns of none."""
    text = COMPOSE_FILE.read_text() + FRONT_FILE.read_text()
    used = set(re.findall(r"\$\{([A-Z_]+)", text))
    assert used <= set(variables())
    assert (ROOT / "deploy" / ".env").resolve() == VLLM_ENV


def test_every_gateway_line_of_vllm_env_is_a_setting() -> None:
    """A line that the gateway would ignore helps nobody."""
    known = {variable_name(field) for field in Settings.model_fields}
    lines = {name for name in variables() if name.startswith("GATEWAY_")}
    assert lines
    assert lines <= known


def test_the_small_images_are_built_without_the_large_ones_packages() -> None:
    """Docker's classic builder makes all stages above the target: gigabytes for nothing."""
    stages = re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    assert stages.index("build-higgs") > max(stages.index("gateway"), stages.index("cpu"))


def test_images_are_pinned() -> None:
    """No image of ours or of others moves under a running stack."""
    services = configuration(EVERYTHING)["services"]
    images = {name: service["image"] for name, service in services.items()}
    assert images["gateway"] == f"speech-gateway:{__version__}"
    assert images["engine-cpu"] == f"speech-gateway:{__version__}-cpu"
    assert images["engine-higgs"] == f"speech-gateway:{__version__}-higgs"
    for image in images.values():
        assert re.search(r":v?\d+\.\d+", image), image
    for name in MONITORING:
        assert re.search(r"@sha256:[0-9a-f]{64}$", images[name])


def test_nothing_is_reachable_from_other_machines() -> None:
    """Gateway and pages of operation are published on loopback, engines not at all."""
    services = configuration(EVERYTHING)["services"]
    published = {
        name: {port["host_ip"] for port in service.get("ports", ())}
        for name, service in services.items()
    }
    assert published["gateway"] == {"127.0.0.1"}
    assert published["engine"] == published["engine-cpu"] == set()
    assert set().union(*published.values()) == {"127.0.0.1"}


def test_the_engine_reaches_nobody_and_gets_no_token() -> None:
    """It would fetch any address that a request names, and runs code that came with the weights."""
    configured = configuration(None)
    engine = configured["services"]["engine"]
    assert list(engine["networks"]) == ["engine"]
    assert configured["networks"]["engine"]["internal"] is True
    assert engine["environment"].items() >= OFFLINE.items()
    assert "HF_TOKEN" not in engine["environment"]
    assert engine["init"] is True
    weights = configured["services"]["weights"]
    told = {"HF_TOKEN", "HF_ENDPOINT", "HIGGS_IMAGE", *WEIGHTS_VARIABLES}
    assert told == set(weights["environment"])
    assert list(weights["networks"]) == ["default"]


def test_compose_and_the_container_command_start_the_same_engine() -> None:
    """Two roads to one container: the file's values and the command's defaults."""
    plan = make_plan({})
    services = configuration(None)["services"]
    engine = services["engine"]
    assert engine["image"] == plan.image
    assert engine["command"][: len(plan.command)] == list(plan.command)
    assert engine["environment"] == plan.environment
    assert all(
        services["weights"]["environment"][k] == v for k, v in plan.weights_environment.items()
    )


def test_containers_get_longer_to_stop_than_answers_get_to_finish() -> None:
    """Otherwise Docker would cut the answers that the gateway lets run."""
    gateway = configuration(None)["services"]["gateway"]
    assert gateway["stop_grace_period"] == "45s"
    assert float(gateway["environment"]["GATEWAY_DRAIN_SECONDS"]) < 40


def test_behind_the_front_the_gateway_publishes_no_port() -> None:
    """Two gateways can run at once only where neither holds the port."""
    services = configuration("cpu", "-f", str(FRONT_FILE))["services"]
    assert "ports" not in services["gateway"]
    assert [port["published"] for port in services["front"]["ports"]] == ["8888"]


def seed(folder: Path, packages: Path) -> str:
    """Run the seeding as the init service does, for the user who runs the tests."""
    return call(
        sys.executable, SEED, folder, str(os.getuid()), environment={"PYTHONPATH": str(packages)}
    )


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder of packages with an engine that cannot be imported but has presets."""
    presets = tmp_path / "packages" / "vllm" / "entrypoints" / "bosonai" / "voice_presets"
    presets.mkdir(parents=True)
    (tmp_path / "packages" / "vllm" / "__init__.py").write_text("raise ImportError\n")
    (presets / "config.json").write_text('{"belinda": {}}')
    (presets / "belinda.wav").write_bytes(b"RIFF")
    return tmp_path / "packages"


def test_presets_are_copied_into_an_empty_folder(tmp_path: Path, packages: Path) -> None:
    """Without importing the engine, which would need its GPU."""
    folder = tmp_path / "voices"
    folder.mkdir()
    seed(folder, packages)
    assert sorted(path.name for path in folder.iterdir()) == ["belinda.wav", "config.json"]


def test_a_folder_with_voices_is_left_as_it_is(tmp_path: Path, packages: Path) -> None:
    """Voices that were added, and removals, survive every later start."""
    folder = tmp_path / "voices"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    seed(folder, packages)
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert (folder / "config.json").read_text() == "{}"


def test_a_copy_that_was_cut_short_is_done_again(tmp_path: Path, packages: Path) -> None:
    """The list of voices comes last, so half a copy has none."""
    folder = tmp_path / "voices"
    folder.mkdir()
    (folder / "belinda.wav").write_bytes(b"R")
    seed(folder, packages)
    assert (folder / "belinda.wav").read_bytes() == b"RIFF"
    assert (folder / "config.json").exists()


def test_an_image_without_presets_stops_the_start_with_a_reason(tmp_path: Path) -> None:
    """Rather than an engine that has no voice."""
    done = subprocess.run(
        [sys.executable, SEED, tmp_path, str(os.getuid())],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no voice_presets/config.json" in done.stderr
