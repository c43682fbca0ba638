"""What nvidia-smi says of the GPUs, as metrics: `speech-gateway gpu-exporter`.

A GPU that is not there, and a figure that the driver does not have, give no series: a zero would
look like an idle card.
"""

from __future__ import annotations

import argparse
import csv
import logging
import logging.config
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.logs import log_config

logger = logging.getLogger("gateway.gpu")

MEBIBYTE = 1024 * 1024
NVIDIA_SMI_SECONDS = 10.0  # a driver in trouble lets it hang
KEPT_SECONDS = 2.0  # several scrapers ask the driver once


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


def parse(printed: str) -> tuple[Gpu, ...]:
    """Read nvidia-smi's answer to `COMMAND`; lines that say something else are left out."""
    found = []
    for row in csv.reader(printed.splitlines(), skipinitialspace=True):
        if len(row) != len(LABELS) + len(FIGURES) or not row[0].isdecimal():
            continue
        values = {}
        for figure, text in zip(FIGURES, row[len(LABELS) :], strict=True):
            try:
                values[figure.name] = float(text) * figure.factor
            except ValueError:  # [N/A], [Not Supported], [Unknown Error]
                continue
        found.append(Gpu(tuple(row[: len(LABELS)]), values))
    return tuple(found)


def ask_nvidia_smi() -> tuple[Gpu, ...]:
    """The GPUs of this machine now; none where nvidia-smi is missing, fails or hangs."""
    try:
        done = subprocess.run(  # noqa: S603  (a constant command)
            COMMAND, capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.debug("nvidia-smi: %s", error)
        return ()
    return parse(done.stdout)


class GpuCollector(Collector):
    """Asks at a scrape, at most every two seconds.

    Args:
        ask: Where the GPUs come from.
    """

    def __init__(self, ask: Callable[[], tuple[Gpu, ...]] = ask_nvidia_smi) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._gpus: tuple[Gpu, ...] = ()
        self._asked_at = float("-inf")

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families that have a sample."""
        with self._lock:
            if time.monotonic() - self._asked_at > KEPT_SECONDS:
                before, self._gpus = len(self._gpus), self._ask()
                self._asked_at = time.monotonic()
                if len(self._gpus) != before:
                    logger.info("%d GPU(s) seen", len(self._gpus))
            gpus = self._gpus
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
    registry.register(GpuCollector())
    server, thread = start_http_server(arguments.port, arguments.host, registry)
    logger.info("listening on http://%s:%d/metrics", arguments.host, server.server_port)
    stopped.wait()
    server.shutdown()
    server.server_close()
    thread.join()
    return 0
