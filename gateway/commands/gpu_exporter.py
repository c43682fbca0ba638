"""What nvidia-smi says of the GPUs, as metrics: `speech-gateway gpu-exporter`.

A GPU that is not there, and a figure that the driver does not have, give no series: a zero would
look like an idle card.
"""

from __future__ import annotations

import argparse
import logging
import logging.config
import math
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.telemetry.logging import log_config

logger = logging.getLogger("gateway.gpu")

MEBIBYTE = 1024 * 1024
ASKED_EVERY_SECONDS = 5.0  # half a scrape interval
NVIDIA_SMI_SECONDS = 10.0  # a driver in trouble lets it hang
KEPT_SECONDS = 20.0  # longer than an answer may take; older figures are nobody's


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric out of a column of nvidia-smi.

    Attributes:
        column: Name of the query.
        name: Of the metric.
        text: Its help.
        factor: From nvidia-smi's unit to the metric's base unit.
    """

    column: str
    name: str
    text: str
    factor: float = 1.0


FIGURES = (
    Figure("memory.used", "gateway_gpu_memory_used_bytes", "Memory in use.", MEBIBYTE),
    Figure("memory.total", "gateway_gpu_memory_total_bytes", "Memory of the card.", MEBIBYTE),
    Figure(
        "utilization.gpu",
        "gateway_gpu_utilization_ratio",
        "Share of the time in which a kernel ran.",
        0.01,
    ),
    Figure("temperature.gpu", "gateway_gpu_temperature_celsius", "Temperature of the chip."),
    Figure("power.draw", "gateway_gpu_power_watts", "Power drawn."),
)
LABELS = ("index", "name", "uuid")
COMMAND = (
    "nvidia-smi",
    "--query-gpu=" + ",".join([*LABELS, *(figure.column for figure in FIGURES)]),
    "--format=csv,noheader,nounits",
)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One card.

    Attributes:
        labels: Values of `LABELS`.
        values: By metric name, in base units; figures that the driver does not have are missing.
    """

    labels: tuple[str, ...]
    values: Mapping[str, float]


def rows_of(printed: str, columns: int) -> Iterator[list[str]]:
    """The rows of what nvidia-smi prints as CSV; lines that say something else are left out."""
    for line in printed.splitlines():
        row = [cell.strip() for cell in line.split(",")]
        if len(row) == columns:
            yield row


def parse(printed: str) -> tuple[Gpu, ...]:
    """Read nvidia-smi's answer to `COMMAND`; lines that say something else are left out."""
    found = []
    for row in rows_of(printed, len(LABELS) + len(FIGURES)):
        if not row[0].isdecimal():
            continue
        values = {}
        for figure, text in zip(FIGURES, row[len(LABELS) :], strict=True):
            try:
                value = float(text)
            except ValueError:  # [N/A], [Not Supported], [Unknown Error]
                continue
            if math.isfinite(value):
                values[figure.name] = value * figure.factor
        found.append(Gpu(tuple(row[: len(LABELS)]), values))
    return tuple(found)


def ask_nvidia_smi() -> tuple[Gpu, ...]:
    """The GPUs of this machine now.

    Raises:
        OSError: There is no nvidia-smi.
        subprocess.SubprocessError: It failed, or did not end in time.
    """
    done = subprocess.run(  # noqa: S603  (a constant command)
        COMMAND,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=NVIDIA_SMI_SECONDS,
        check=True,
    )
    return parse(done.stdout)


class GpuWatch(Collector):
    """Asks again and again in a thread of its own, so that no scrape waits for the driver.

    Args:
        ask: Where the GPUs come from; may raise what `ask_nvidia_smi` raises, and may hang.
        every_seconds: Pause between two answers.
        kept_seconds: Age at which figures are told no longer.
    """

    def __init__(
        self,
        ask: Callable[[], tuple[Gpu, ...]] = ask_nvidia_smi,
        every_seconds: float = ASKED_EVERY_SECONDS,
        kept_seconds: float = KEPT_SECONDS,
    ) -> None:
        self._ask = ask
        self._every_seconds = every_seconds
        self._kept_seconds = kept_seconds
        self._seen: tuple[float, tuple[Gpu, ...]] = (float("-inf"), ())
        self._stopped = threading.Event()
        # A process that hangs inside the driver cannot even be killed: exit without it.
        self._thread = threading.Thread(target=self._run, name="nvidia-smi", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; an answer on its way is not waited for."""
        self._stopped.set()

    def _run(self) -> None:
        said = ""
        while not self._stopped.is_set():
            gpus: tuple[Gpu, ...] = ()
            try:
                gpus = self._ask()
                news = f"{len(gpus)} GPU(s) seen"
            except (OSError, subprocess.SubprocessError) as error:
                news = f"no GPU's figures: {error}"
            self._seen = (time.monotonic(), gpus)
            if news != said:
                logger.info("%s", news)
                said = news
            self._stopped.wait(self._every_seconds)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families that have a sample."""
        seen_at, gpus = self._seen
        if time.monotonic() - seen_at > self._kept_seconds:
            return
        for figure in FIGURES:
            family = GaugeMetricFamily(figure.name, figure.text, labels=LABELS)
            for gpu in gpus:
                if figure.name in gpu.values:
                    family.add_metric(gpu.labels, gpu.values[figure.name])
            if family.samples:
                yield family


def run_exporter(arguments: argparse.Namespace) -> int:
    """Serve /metrics until SIGTERM or SIGINT."""
    logging.config.dictConfig(log_config("info"))
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    registry = CollectorRegistry()
    watch = GpuWatch()
    watch.start()
    registry.register(watch)
    server, thread = start_http_server(arguments.port, arguments.host, registry)
    logger.info("listening on http://%s:%d/metrics", arguments.host, server.server_port)
    stopped.wait()
    server.shutdown()
    server.server_close()
    thread.join()
    watch.stop()
    return 0
