"""The GPU's figures: what nvidia-smi says, in base units, and nothing where it says nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from gateway.commands.gpu_exporter import Gpu, GpuWatch, ask_nvidia_smi, parse
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


@pytest.mark.parametrize("figure", ["nan", "inf", "ERR!", "[GPU requires reset]", ""])
def test_a_figure_that_is_no_number_is_left_out(figure: str) -> None:
    """The card's other figures stay."""
    (gpu,) = parse(H100.replace("125.65", figure))
    assert len(gpu.values) == 4


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
    [
        "",
        "No devices were found\n",
        "NVIDIA-SMI has failed because …\n",
        "a, b, c\n",
        H100.strip() + ", 7\n",
        "\x00\xff\n",
    ],
)
def test_anything_else_is_no_gpu(printed: str) -> None:
    """Whatever a driver in trouble prints."""
    assert parse(printed) == ()


def told(watch: GpuWatch) -> set[str]:
    """Names of the metrics that a scrape would get."""
    return {family.name for family in watch.collect()}


def test_no_gpu_is_no_series() -> None:
    """A dashboard shows a gap, not a card that idles."""
    asked = threading.Event()

    def ask() -> tuple[Gpu, ...]:
        asked.set()
        return ()

    watch = GpuWatch(ask)
    assert told(watch) == set()  # nobody was asked yet
    watch.start()
    assert asked.wait(10)
    assert told(watch) == set()
    watch.stop()


def test_a_driver_that_hangs_lets_no_scrape_wait_and_its_figures_fade() -> None:
    """The last figures hold for a while, then they are gone; nothing blocks meanwhile."""
    hangs = threading.Event()
    answers_: list[tuple[Gpu, ...]] = [parse(H100)]

    def ask() -> tuple[Gpu, ...]:
        if answers_:
            return answers_.pop()
        hangs.set()
        threading.Event().wait()  # for ever, as a process inside a broken driver
        return ()

    watch = GpuWatch(ask, every_seconds=0.01, kept_seconds=1)
    watch.start()
    assert hangs.wait(10)
    assert "gateway_gpu_power_watts" in told(watch)
    wait_until(lambda: not told(watch), "they are gone")
    watch.stop()


@pytest.mark.parametrize(
    ("script", "told_error"),
    [
        ("exec sleep 600", "timed out"),
        ("echo no driver >&2; exit 9", "exit status 9"),
        (None, "No such file"),
    ],
    ids=["hangs", "fails", "is missing"],
)
def test_a_driver_in_trouble_gives_no_figures(
    tmp_path: Path, script: str | None, told_error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An nvidia-smi that hangs is ended; the log tells why there are no figures."""
    monkeypatch.setattr("gateway.commands.gpu_exporter.NVIDIA_SMI_SECONDS", 0.2)
    path = nvidia_smi(tmp_path, script)["PATH"] if script else str(tmp_path)
    monkeypatch.setenv("PATH", path)
    with pytest.raises((OSError, subprocess.SubprocessError), match=told_error):
        ask_nvidia_smi()


def test_bytes_that_are_no_text_are_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Garbage before a card does not hide the card."""
    environment = nvidia_smi(tmp_path, "printf '\\377\\000, \"x\\n'; printf '%s' \"$CARD\"")
    monkeypatch.setenv("PATH", environment["PATH"])
    monkeypatch.setenv("CARD", H100)
    assert ask_nvidia_smi() == parse(H100)


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
