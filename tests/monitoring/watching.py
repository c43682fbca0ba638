"""Real Prometheus and Alertmanager around a gateway under load, and a webhook that listens.

The configuration is the shipped one, with other addresses and shorter intervals and windows.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import cycle
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import yaml

from loadtest.processes import DEADLINE_SECONDS

ROOT = Path(__file__).parents[2]
# What nvidia_gpu_exporter answers, taken from its documentation (docs/METRICS.md).
GPU_METRICS = """\
nvidia_smi_gpu_info{uuid="11112222",name="NVIDIA A100-SXM4-40GB",index="0"} 1
nvidia_smi_memory_used_bytes{uuid="11112222"} 3.4603008e+10
nvidia_smi_memory_total_bytes{uuid="11112222"} 4.294967296e+10
nvidia_smi_utilization_gpu_ratio{uuid="11112222"} 0.71
nvidia_smi_temperature_gpu{uuid="11112222"} 63
nvidia_smi_power_draw_watts{uuid="11112222"} 212.5
"""
SLOTS, QUEUE_PLACES = 2, 1
# rate() over five minutes would need minutes of load.
WINDOW_SECONDS = 8
WINDOW = re.compile(r"\[\d+m\]")


@dataclass(frozen=True)
class Watched:
    """What runs.

    Attributes:
        prometheus: Its address.
        gateway: The gateway's.
        alerts: What Alertmanager has sent to the webhook.
        engine: Stops the engine.
    """

    prometheus: str
    gateway: str
    alerts: SimpleQueue[dict[str, Any]]
    engine: ExitStack

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Samples that a query finds now."""
        answer = httpx.get(
            self.prometheus + "/api/v1/query", params={"query": expression}, timeout=120
        )
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        found = answer.json()["data"]["result"]
        assert isinstance(found, list)
        return found


def quick(text: str) -> str:
    """A query or rules file with windows that a test can fill."""
    return WINDOW.sub(f"[{WINDOW_SECONDS}s]", text)


def configure(folder: Path, ports: dict[str, int]) -> None:
    """The shipped files for this run."""
    rules = folder / "rules"
    rules.mkdir()
    for path in (ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"):
        text = re.sub(r"\bfor: \d+m", "for: 1s", quick(path.read_text()))
        (rules / path.name).write_text(text)
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(
        ("scrape_interval", "scrape_timeout", "evaluation_interval"), "1s"
    )
    for job in config["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}]
    manager = config["alerting"]["alertmanagers"][0]["static_configs"][0]
    manager["targets"] = [f"127.0.0.1:{ports['alertmanager']}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shipped = yaml.safe_load((ROOT / "deploy" / "alertmanager" / "alertmanager.yml").read_text())
    shipped["route"] |= {
        "receiver": "hook",
        "group_wait": "1s",
        "group_interval": "1s",
    }
    hook = {"url": f"http://127.0.0.1:{ports['hook']}/", "send_resolved": True}
    shipped["receivers"].append({"name": "hook", "webhook_configs": [hook]})
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(shipped))


def webhook(port: int, alerts: SimpleQueue[dict[str, Any]]) -> HTTPServer:
    """A listener for what Alertmanager sends."""

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Take one message."""
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            for alert in body["alerts"]:
                alerts.put(alert)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return HTTPServer(("127.0.0.1", port), Hook)


class Load:
    """Clients of every kind, one more than the gateway takes, some of whom do wrong."""

    def __init__(self, url: str, engine: str) -> None:
        self._url = url
        self._stopped = threading.Event()
        # A few answers are broken, so that what tells of failures has something to tell.
        faults = {"rate": 0.15, "kinds": ["raise", "cut-48000", "runaway"], "seed": 5}
        httpx.post(engine + "/simulator/faults", json=faults)
        self._clients = [
            threading.Thread(target=self._ask, daemon=True) for _ in range(SLOTS + QUEUE_PLACES + 1)
        ]
        for client in self._clients:
            client.start()

    def _ask(self) -> None:
        speech = self._url + "/v1/audio/speech"
        text = "This is one of a few sentences."
        bodies = [
            *(
                (speech, {"model": "tts-1", "input": text, "response_format": f})
                for f in ("mp3", "wav", "opus")
            ),
            (speech, {"model": "tts-1", "input": text, "speed": 99}),
            (self._url + "/generate", {"text": text}),
        ]
        with httpx.Client(timeout=120) as client:
            for url, body in cycle(bodies):
                with contextlib.suppress(httpx.RemoteProtocolError):  # broken off, as planned
                    client.post(url, json=body)
                if self._stopped.wait(0.03):
                    return

    def stop(self) -> None:
        """End with what is on its way."""
        self._stopped.set()
        for client in self._clients:
            client.join(DEADLINE_SECONDS)


def started(scope: ExitStack, *command: str | Path, folder: Path, log: Path) -> None:
    """A process for as long as the scope is open."""
    with log.open("wb") as out:
        process = subprocess.Popen([*map(str, command)], stdout=out, stderr=out, cwd=folder)

    def stop() -> None:
        process.terminate()
        process.wait(DEADLINE_SECONDS)

    scope.callback(stop)
