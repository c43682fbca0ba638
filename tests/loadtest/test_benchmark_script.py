"""The benchmark as somebody runs it from a clone: as a script, with or without the environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "loadtest" / "benchmark.py"


def test_it_runs_as_a_script_from_anywhere(tmp_path: Path) -> None:
    """Its folder's modules are found, whatever the working folder is."""
    done = subprocess.run(
        [sys.executable, SCRIPT, "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout


def test_outside_of_the_environment_it_names_the_command() -> None:
    """A Python without the packages, as `python` of a fresh machine is."""
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip("no Python of the system")
    done = subprocess.run(
        [python, "-S", SCRIPT],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin"},
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "scripts/install cpu load" in line


def test_a_sweep_shows_how_long_it_takes_and_keeps_logs_out_of_sight(tmp_path: Path) -> None:
    """One line a measurement and a bar; the gateway's own lines are nowhere."""
    done = subprocess.run(
        [
            *(sys.executable, SCRIPT, "--sweep", "--quick", "--simulate", "300"),
            *("--levels", "4", "--offered", "0.5", "--seconds", "3", "--settle", "1"),
            *("--csv", tmp_path / "sweep.csv"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 measurements: about 0 min" in done.stdout
    assert "3/3" in done.stderr
    assert "gateway.access" not in done.stdout + done.stderr
    assert "INFO" not in done.stdout + done.stderr
    assert (tmp_path / "sweep.csv").exists()
