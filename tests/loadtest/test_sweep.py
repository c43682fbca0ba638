"""The sweep's figures are right: they are what decides how many people a GPU can serve."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.speech_client import Heard
from loadtest.sweep import Level, Window, knee, percentile


def level(load: float, rate: float, *, target: str = "gateway", kind: str = "concurrency") -> Level:
    """A level with the figures that matter here."""
    return Level(target, kind, load, 1, 0, 0, rate, rate, 1, 0.1, 0.2, 0.3, 0.5, 0.6, 0.0)


def test_the_knee_is_the_smallest_load_near_the_best_throughput() -> None:
    """More requests at once than that only wait longer."""
    rates = {1: 3.5, 8: 28, 16: 56, 32: 59, 64: 60}
    found = knee([level(load, rate) for load, rate in rates.items()])
    assert found is not None
    assert found.load == 32
    assert knee([]) is None
    assert knee([level(1, 0)]) is None


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.95, 95), (0.99, 99), (0.001, 1)])
def test_percentiles_are_those_of_the_nearest_rank(share: float, value: float) -> None:
    """Half of a hundred values are at or below their median."""
    assert percentile([float(number) for number in range(100, 0, -1)], share) == value
    assert percentile([], share) == 0


def test_goodput_leaves_out_what_came_too_late_or_broke() -> None:
    """An answer that nobody waited for is no use, however fast the GPU was."""
    window = Window(100.0, 10.0)
    window.heard = [
        Heard(101, 104, 200, "", 0.5, 20, counted_bytes=20 * 48_000),
        Heard(101, 104, 200, "", 3.0, 20, counted_bytes=20 * 48_000),
        Heard(101, 104, 200, "ClientPayloadError", 0.5, 20, counted_bytes=20 * 48_000),
        Heard(101, 104, 429),
        Heard(101, 104, 502),
        Heard(90, 95, 200, "", 0.5, 20),
        Heard(90, 120, 200, "", 0.5, 20, counted_bytes=10 * 48_000),
    ]
    found = window.level("gateway", "offered", 4.0, promised_seconds=2.0)
    assert (found.complete, found.refused, found.failed) == (2, 1, 2)
    assert found.goodput == 3.0
    assert found.first_audio_p50_seconds == 0.5
    assert found.first_audio_p99_seconds == 3.0


def test_a_sweep_of_a_simulated_gpu_finds_its_rate(tmp_path: Path) -> None:
    """The measured throughput is the simulator's, the page has its plots, the table its rows."""
    report, table = tmp_path / "report.html", tmp_path / "levels.csv"
    said = subprocess.run(
        [
            *(sys.executable, "-m", "loadtest.benchmark", "--sweep", "--simulate", "250"),
            *("--seconds", "4", "--settle", "1", "--levels", "4", "--offered", "0.5"),
            *("--report", str(report), "--csv", str(table)),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert [(row["target"], row["kind"]) for row in rows] == [
        ("gateway", "concurrency"),
        ("direct", "concurrency"),
        ("gateway", "offered"),
    ]
    # 250 tokens a second are ten seconds of audio; so few do not ask much of a busy machine.
    saturated = [float(row["audio_seconds_per_second"]) for row in rows if row["load"] == "4"]
    assert saturated == pytest.approx([10.0, 10.0], rel=0.3)
    assert not any(int(row["failed"]) for row in rows)
    assert re.search(r"gateway to direct at saturation: \d+\.\d\d%", said)
    page = report.read_text(encoding="utf-8")
    assert page.count("<svg") == 4
    assert page.count("<tr>") == 1 + len(rows)
