"""Locust's users work against a real gateway, and count what they heard."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

ROWS = {
    "/v1/audio/speech mp3", "/v1/audio/speech wav", "/v1/audio/speech pcm", "/generate",
    "/v1/audio/speech left", "first audio", "longest gap", "underrun", "real-time factor x1000",
}  # fmt: skip


def test_the_demonstration_runs_and_reports(tmp_path: Path) -> None:
    """`make load` in small: no request fails, and each kind of user and metric has its row."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "loadtest.demonstration", "--seconds", "8", "--users", "40"),
            *("--think-seconds", "0.5", "--out", str(tmp_path)),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "load_stats.csv").open(encoding="utf-8") as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    assert rows.keys() >= ROWS
    assert all(row["Failure Count"] == "0" for row in rows.values())
    listened = sum(
        int(rows[f"/v1/audio/speech {name}"]["Request Count"]) for name in ("mp3", "wav", "pcm")
    )
    assert int(rows["first audio"]["Request Count"]) == listened
    requests = [row for row in rows.values() if row["Type"] in {"GET", "POST"}]
    counted = sum(int(row["Request Count"]) for row in requests)
    assert int(rows["Aggregated"]["Request Count"]) == counted, "metrics are no requests"
    assert "gateway_audio_seconds_total" in done.stdout
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("shape", ["ramp", "spike", "soak"])
def test_each_shape_can_be_chosen_beside_the_users(shape: str) -> None:
    """A shape is a file more on locust's command line, and gives the load its bounds."""
    listed = subprocess.run(
        [
            *(sys.executable, "-m", "locust", "--list"),
            *("-f", f"loadtest/locustfile.py,loadtest/shapes/{shape}.py"),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert {"ListeningUser", "DownloadingUser", "LeavingUser"} <= set(listed.split())
