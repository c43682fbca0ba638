"""The GPU's figures: what nvidia-smi says, in base units, and nothing where it says nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from gateway.gpu import Gpu, GpuCollector, parse
from loadtest.processes import answers, free_port, wait_until

# Printed by a real card on 2026-11-23, its UUID shortened.
H100 = "0, NVIDIA H100 80GB HBM3, GPU-44a2e56f, 0, 81559, 0, 43, 125.65\n"
RTX = "1, NVIDIA GeForce RTX 4090, GPU-11112222, 20110, 24564, 97, [N/A], [Not Supported]\n"


def test_figures_come_in_base_units() -> None:
    """Bytes, a ratio, degrees, watts."""
    (gpu,) = parse(H100)
    assert gpu.labels == ("0", "NVIDIA H100 80GB HBM3", "GPU-44a2e56f")
    assert gpu.values == {
        "gateway_gpu_memory_used_bytes": 0,
        "gateway_gpu_memory_total_bytes": 81559 * 1024 * 1024,
        "gateway_gpu_utilization_ratio": 0,
        "gateway_gpu_temperature_celsius": 43,
        "gateway_gpu_power_watts": 125.65,
    }


def test_what_the_driver_does_not_have_is_no_zero() -> None:
    """A card without a power sensor does not draw nothing."""
    first, second = parse(H100 + RTX)
    assert first.labels[0] == "0"
    assert second.values.keys() == {
        "gateway_gpu_memory_used_bytes",
        "gateway_gpu_memory_total_bytes",
        "gateway_gpu_utilization_ratio",
    }
    assert second.values["gateway_gpu_utilization_ratio"] == pytest.approx(0.97)


@pytest.mark.parametrize(
    "printed",
    ["", "No devices were found\n", "NVIDIA-SMI has failed because …\n", "a, b, c\n", "\x00\xff\n"],
)
def test_anything_else_is_no_gpu(printed: str) -> None:
    """Whatever a driver in trouble prints."""
    assert parse(printed) == ()


def test_no_gpu_is_no_series() -> None:
    """A dashboard shows a gap, not a card that idles."""
    asked: list[tuple[Gpu, ...]] = [(), parse(H100)]
    registry = CollectorRegistry()
    registry.register(GpuCollector(lambda: asked.pop(0)))  # asked once as it is registered
    collector = GpuCollector(lambda: ())
    assert list(collector.collect()) == []


def nvidia_smi(folder: Path, script: str) -> dict[str, str]:
    """An environment in which nvidia-smi is a given script."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def test_the_exporter_serves_them_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """Two cards; then the driver fails, and their series are gone; SIGTERM ends with 0."""
    answer = tmp_path / "answer"
    answer.write_text(H100 + RTX)
    environment = nvidia_smi(tmp_path, f'cat "{answer}" || exit 9')
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "gateway", "gpu-exporter"),
            *("--host", "127.0.0.1", "--port", str(port)),
        ],
        env=environment,
    )
    try:
        wait_until(lambda: answers(url), "it serves")
        text = httpx.get(url, timeout=5).text
        assert 'gateway_gpu_power_watts{index="0"' in text
        assert 'gateway_gpu_power_watts{index="1"' not in text
        assert text.count("gateway_gpu_memory_total_bytes{") == 2
        answer.unlink()
        wait_until(lambda: "gateway_gpu" not in httpx.get(url, timeout=5).text, "they are gone")
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
