"""What somebody gets who clones the repository or installs its distribution."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.conftest import DOCKER

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def documents() -> list[Path]:
    """Every page of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / name for name in listed.split() if (ROOT / name).exists()]


def test_the_distribution_has_a_name_of_its_own_and_the_command_its_own() -> None:
    """`speech-gateway` on PyPI is another project: nobody may be told to install that."""
    assert PROJECT["project"]["name"] == "higgs-speech-gateway"
    assert "speech-gateway" in PROJECT["project"]["scripts"]
    files = [*documents(), *(ROOT / "gateway").rglob("*.py"), *(ROOT / "engines").rglob("*.py")]
    told = "\n".join(file.read_text("utf-8") for file in files)
    assert re.findall(r"pip install '?speech-gateway|(?<!higgs-)speech-gateway\[", told) == []


def test_the_package_data_exists() -> None:
    """A pattern that matches nothing promises a file that is not there."""
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items():
        for pattern in patterns:
            assert list((ROOT / package).glob(pattern)), f"{package}: {pattern}"


def test_the_clones_address_has_one_placeholder() -> None:
    """Whoever forks it replaces one word."""
    told = "\n".join(page.read_text("utf-8") for page in documents())
    addresses = {word for line in re.findall(r"git clone (.*)", told) for word in line.split()}
    assert {word for word in addresses if word.isupper()} == {"CLONE_URL"}
    assert [word for word in addresses if "://" in word] == []


@pytest.mark.parametrize(
    "name", ["keys", "keys.txt", "voices/me.wav", "hello.mp3", "hello.opus", "sweep.html"]
)
def test_what_a_run_leaves_in_the_clone_is_ignored(name: str) -> None:
    """Keys above all."""
    done = subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_no_source_file_is_ignored() -> None:
    """A pattern for keys must not hide `keys.py`."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert listed.stdout == ""


def clone(folder: Path) -> Path:
    """The files that scripts/install and scripts/test need, without an environment."""
    for name in ("pyproject.toml", "constraints.txt", "scripts/install", "scripts/test"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def test_an_installation_without_a_network_says_so(tmp_path: Path) -> None:
    """Not a page of pip's retries alone."""
    environment = {
        **os.environ,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_RETRIES": "0",
        "PIP_NO_INDEX": "1",
    }
    done = subprocess.run(
        [clone(tmp_path) / "scripts" / "install"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "where there is no network" in done.stderr.splitlines()[-1]
    assert not (tmp_path / ".venv" / "installed").exists(), "it is tried again"


def test_no_failure_keeps_another_part_from_running(tmp_path: Path) -> None:
    """One run has every test, tests/deploy too, stops at no failure, and tells of it."""
    folder = clone(tmp_path)
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@" >> ran\nexit 1\n')
    python.chmod(0o755)
    done = subprocess.run([folder / "scripts" / "test"], check=False)
    assert done.returncode == 1
    ran = (folder / "ran").read_text()
    assert ran == "-m pytest -n 5 --dist loadfile --no-loadscope-reorder\n"


def test_what_shares_a_docker_engine_runs_in_one_process() -> None:
    """Else each process would start an engine and build every image for itself."""
    files = (ROOT / "tests" / "deploy").glob("test_*.py")
    sharing = {f"tests/deploy/{file.name}::" for file in files if "workshop" in file.read_text()}
    assert sharing == set(DOCKER)
