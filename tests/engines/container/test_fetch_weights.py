"""The download of the weights, with the real huggingface_hub against a hub of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import engines.container
from tests.engines.container import hub
from tests.engines.container.fake_engine import CODEC_ARGUMENTS, OFFLINE

SCRIPT = Path(engines.container.__file__).parent / "fetch_weights.py"
FAKE_ENGINE = Path(__file__).parent / "fake_engine.py"


@pytest.fixture
def server() -> Iterator[hub.running]:
    """A hub."""
    with hub.running() as server:
        yield server


class Machine:
    """A cache, and the settings of the download."""

    def __init__(self, home: Path, endpoint: str) -> None:
        self.home = home
        self.environment = {
            "PATH": os.environ["PATH"],
            "HF_HOME": str(home),
            "HF_ENDPOINT": endpoint,
            "HF_TOKEN": "hf_of_this_test",
            "HIGGS_MODEL": hub.MODEL,
            "HIGGS_MODEL_REVISION": hub.MODEL_COMMIT,
            "HIGGS_AUDIO_TOKENIZER": hub.CODEC,
            "HIGGS_AUDIO_TOKENIZER_REVISION": hub.CODEC_COMMIT,
            "HIGGS_HUBERT_REVISION": "",
            "WEIGHTS_PAUSE_SECONDS": "0",
        }

    def fetch(self, **settings: str) -> tuple[int, str]:
        """Run the script: exit status, and all that it printed."""
        done = subprocess.run(
            [sys.executable, SCRIPT],
            env={**self.environment, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        return done.returncode, done.stdout

    def engine_refuses(self, **changes: str) -> str:
        """What the old loader's checks say of this cache; empty where they pass."""
        values = {
            "--model": str(self.home / "snapshots" / hub.MODEL_COMMIT),
            "--audio-tokenizer-type": str(self.home / "snapshots" / hub.CODEC_COMMIT),
            **changes,
        }
        done = subprocess.run(
            [sys.executable, FAKE_ENGINE, *(word for pair in values.items() for word in pair)],
            env={**self.environment, **dict.fromkeys(OFFLINE, "1"), "FAKE_ENGINE_CHECKS_ONLY": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        reasons = [line for line in done.stderr.splitlines() if "cannot load" in line]
        assert reasons or "everything is here" in done.stdout, done.stderr
        return reasons[0] if reasons else ""


@pytest.fixture
def machine(tmp_path: Path, server: hub.running) -> Machine:
    """A machine with an empty cache."""
    return Machine(tmp_path / "cache", server.url)


def test_a_fresh_machine_gets_all_three_by_commit_and_the_engine_loads_them(
    machine: Machine, server: hub.running
) -> None:
    """Licence first; then folders that the old loader takes, whatever `main` holds."""
    status, said = machine.fetch()
    assert status == 0, said
    lines = said.splitlines()
    assert "Boson Higgs Audio 2 Community License" in lines[0]
    assert f"{hub.HUBERT}: commit {hub.HUBERT_COMMIT} is complete" in lines
    lock = json.loads((machine.home / "weights.lock.json").read_text())
    assert lock == {
        hub.MODEL: hub.MODEL_COMMIT,
        hub.CODEC: hub.CODEC_COMMIT,
        hub.HUBERT: hub.HUBERT_COMMIT,
    }
    main = machine.home / "hub" / "models--bosonai--hubert_base" / "refs" / "main"
    assert main.read_text() == hub.HUBERT_COMMIT
    assert machine.engine_refuses() == ""
    assert "Bearer hf_of_this_test" in server.hub.tokens


def test_a_second_start_asks_the_hub_nothing(machine: Machine, server: hub.running) -> None:
    """It may have no network, and the hub's newest hubert may be another by then."""
    assert machine.fetch()[0] == 0
    server.hub.asked.clear()
    server.hub.repositories[hub.HUBERT]["f" * 40] = hub.HUBERT_FILES
    assert machine.fetch()[0] == 0
    assert server.hub.asked == []
    assert json.loads((machine.home / "weights.lock.json").read_text())[hub.HUBERT] == "b" * 40
    server.hub.repositories[hub.HUBERT]["f" * 40] = {**hub.HUBERT_FILES, "new.py": ""}
    assert machine.fetch(HIGGS_HUBERT_REVISION="f" * 40)[0] == 0, "a setting overrides the lock"
    assert json.loads((machine.home / "weights.lock.json").read_text())[hub.HUBERT] == "f" * 40


def test_a_cache_that_was_filled_elsewhere_is_enough(machine: Machine, server: hub.running) -> None:
    """Without a lock file, and without a hub."""
    assert machine.fetch()[0] == 0
    (machine.home / "weights.lock.json").unlink()
    server.hub.refuse = 503
    server.hub.asked.clear()
    status, said = machine.fetch(HF_HUB_OFFLINE="1")
    assert status == 0, said
    assert machine.engine_refuses() == ""


def test_a_broken_download_goes_on(machine: Machine, server: hub.running) -> None:
    """Every file of weights breaks off once."""
    server.hub.cut = 4
    status, said = machine.fetch()
    assert status == 0, said
    assert machine.engine_refuses() == ""


def test_a_cache_with_a_missing_shard_is_completed(machine: Machine) -> None:
    """An earlier download that ended in between looks whole to the hub's library."""
    assert machine.fetch()[0] == 0
    snapshot = machine.home / "snapshots" / hub.MODEL_COMMIT
    (snapshot / "model-2.safetensors").unlink()
    assert "has no model-2.safetensors" in machine.engine_refuses()
    assert machine.fetch()[0] == 0
    assert machine.engine_refuses() == ""


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"HIGGS_MODEL_REVISION": "main"}, "HIGGS_MODEL_REVISION=main is no commit"),
        ({"HIGGS_MODEL_REVISION": hub.NEWER_COMMIT}, "of the newer layout"),
        ({"HIGGS_AUDIO_TOKENIZER_REVISION": hub.NEWER_COMMIT}, "it has no model.pth"),
        ({"HIGGS_AUDIO_TOKENIZER_REVISION": "a" * 40}, "check HIGGS_AUDIO_TOKENIZER_REVISION"),
        ({"HIGGS_MODEL": ""}, "must name repositories"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "HF_ENDPOINT names another one"),
    ],
)
def test_what_the_image_cannot_load_or_nobody_gives_is_told_in_one_line(
    machine: Machine, settings: dict[str, str], told: str
) -> None:
    """The last line, without a traceback."""
    status, said = machine.fetch(**settings)
    assert status == 1
    assert "Traceback" not in said
    assert told in said.splitlines()[-1]
    assert said.splitlines()[-1].startswith("weights: ")


def test_a_repository_that_wants_its_licence_accepted_names_the_token(
    machine: Machine, server: hub.running
) -> None:
    """403 of a gated repository."""
    server.hub.refuse = 403
    status, said = machine.fetch()
    assert status == 1
    assert "accept its licence there, and set HF_TOKEN" in said.splitlines()[-1]


def test_progress_is_lines_of_the_log(machine: Machine) -> None:
    """A bar that ends no line would not be seen in a container's log."""
    status, said = machine.fetch(WEIGHTS_PROGRESS_SECONDS="0.001")
    assert status == 0, said
    assert "GB, " in said
    assert "\r" not in said


def test_the_fake_engine_refuses_what_the_old_loader_refuses(machine: Machine) -> None:
    """Names instead of folders, the newer layout, and a cache without hubert."""
    assert machine.fetch()[0] == 0
    assert "no folder with a model" in machine.engine_refuses(**{"--model": hub.MODEL})
    assert "is not here" in machine.engine_refuses(**{"--audio-tokenizer-type": hub.CODEC})
    codec = machine.home / "snapshots" / hub.CODEC_COMMIT
    (codec / "config.json").unlink()
    (codec / "config.json").write_text(hub.NEW_CODEC["config.json"])
    assert "unexpected argument 'model_type'" in machine.engine_refuses()
    assert set(json.loads(hub.OLD_CODEC["config.json"])) <= CODEC_ARGUMENTS
