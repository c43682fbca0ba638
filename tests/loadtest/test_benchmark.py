"""`python -m loadtest.benchmark` against a running gateway, as a user starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.running import running_engine, running_gateway


def test_the_report_tells_what_happened(tmp_path: Path) -> None:
    """Every figure in JSON, and an exit status that says whether any request failed."""
    file = tmp_path / "report.json"

    def benchmark(url: str) -> tuple[int, dict[str, Any]]:
        command = [sys.executable, "-m", "loadtest.benchmark", "--url", url]
        command += ["--requests", "8", "--concurrent", "4", "--json", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert "8 requests, 4 at once" in done.stdout
        assert "100%" in done.stderr  # the progress bar
        report = json.loads(file.read_text(encoding="utf-8"))
        assert isinstance(report, dict)
        return done.returncode, report

    with (
        running_engine("--voice", "simulated", "--tokens-per-second", "500") as engine,
        running_gateway(upstreams=engine.address) as gateway,
    ):
        status, report = benchmark(gateway.url)
        assert status == 0
        for run in (report["whole"], report["streamed"]):
            assert (run["requests"], run["successful"], run["failed"]) == (8, 8, 0)
            assert run["success_rate"] == 1
            assert 2 <= run["peak_concurrent"] <= 4
            seconds = run["wall_seconds"]
            assert run["requests_per_second"] == pytest.approx(8 / seconds, rel=0.01)
            rate = run["audio_seconds"] / seconds
            assert run["audio_seconds_per_second"] == pytest.approx(rate, rel=0.01)
            trip, size = run["round_trip_seconds"], run["size_bytes"]
            assert 0 < trip["min"] <= trip["p50"] <= trip["p95"] <= trip["max"] <= seconds
            assert run["server_seconds"]["max"] <= trip["max"]
            assert size["mean"] * 8 == pytest.approx(run["audio_seconds"] * 48_000, rel=0.01)
            assert run["real_time_factor"]["mean"] < 1
        streamed = report["streamed"]
        assert streamed["first_audio_seconds"]["mean"] < streamed["round_trip_seconds"]["mean"]
        httpx.post(engine.address + "/simulator/faults", json={"next": ["truncate-96"] * 200})
        status, report = benchmark(gateway.url)
    assert status == 1
    assert report["whole"]["failed"] > 0
    assert report["whole"]["errors"]
