"""Real Prometheus and Alertmanager watch a gateway under load: every panel has data.

The configuration is the shipped one, with other addresses and shorter intervals and windows.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import httpx
import pytest
import yaml

from loadtest.processes import (
    DEADLINE_SECONDS,
    answers,
    free_port,
    running_engine,
    running_serve,
    wait_until,
)
from tests.monitoring.test_dashboards import expression_of, panels

ROOT = Path(__file__).parents[2]
CARD = "0, NVIDIA A100-SXM4-40GB, GPU-11112222, 33000, 40960, 71, 63, 212.50"
# rate() over five minutes would need minutes of load.
WINDOW = re.compile(r"\[(1|5|15)m\]")

pytestmark = pytest.mark.skipif(
    not shutil.which("prometheus") or not shutil.which("prometheus-alertmanager"),
    reason="needs Prometheus and Alertmanager (scripts/install --system)",
)


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
            self.prometheus + "/api/v1/query", params={"query": expression}, timeout=10
        )
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        found = answer.json()["data"]["result"]
        assert isinstance(found, list)
        return found


def quick(text: str) -> str:
    """A query or rules file with windows that a test can fill."""
    return WINDOW.sub("[8s]", text)


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


class Load(threading.Thread):
    """Clients of every kind, some of whom do wrong, until `stop`."""

    def __init__(self, url: str, engine: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._engine = engine
        self._stopped = threading.Event()

    def run(self) -> None:
        """Ask and ask again."""
        speech = self._url + "/v1/audio/speech"
        with httpx.Client(timeout=30) as client:
            # A few answers are broken, so that what tells of failures has something to tell.
            kinds = {"rate": 0.1, "kinds": ["raise", "cut-48000"], "seed": 5}
            client.post(self._engine + "/simulator/faults", json=kinds)
            number = 0
            while not self._stopped.is_set():
                number += 1
                body = {"input": f"This is sentence number {number}.", "response_format": "mp3"}
                for format_ in ("mp3", "wav", "opus"):
                    self._post(client, speech, {**body, "response_format": format_})
                self._post(client, speech, {**body, "speed": 99})
                self._post(client, self._url + "/generate", {"text": body["input"]})

    @staticmethod
    def _post(client: httpx.Client, url: str, body: dict[str, Any]) -> None:
        with contextlib.suppress(httpx.RemoteProtocolError):  # broken off, as planned
            client.post(url, json=body)

    def stop(self) -> None:
        """End with what is on its way."""
        self._stopped.set()
        self.join(DEADLINE_SECONDS)


def started(scope: ExitStack, *command: str | Path, folder: Path, log: Path) -> None:
    """A process for as long as the scope is open."""
    with log.open("wb") as out:
        process = subprocess.Popen([*map(str, command)], stdout=out, stderr=out, cwd=folder)

    def stop() -> None:
        process.terminate()
        process.wait(DEADLINE_SECONDS)

    scope.callback(stop)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Engine, gateway, GPU exporter, Prometheus, Alertmanager and a webhook, under load."""
    folder = tmp_path_factory.mktemp("monitoring")
    names = ("gpu", "prometheus", "alertmanager", "hook")
    ports = {name: free_port() for name in names}
    alerts: SimpleQueue[dict[str, Any]] = SimpleQueue()
    with ExitStack() as scope:
        engine_scope = scope.enter_context(ExitStack())
        engine = engine_scope.enter_context(
            running_engine("--voice", "simulated", "--tokens-per-second", "800")
        )
        serve = scope.enter_context(
            running_serve(upstreams=engine.address, probe_interval_seconds=0.5, log_level="error")
        )
        ports["engine"] = int(engine.address.rsplit(":", 1)[1])
        ports["gateway"] = int(serve.url.rsplit(":", 1)[1])
        configure(folder, ports)
        hook = webhook(ports["hook"], alerts)
        threading.Thread(target=hook.serve_forever, daemon=True).start()
        scope.callback(hook.server_close)
        scope.callback(hook.shutdown)
        program = folder / "nvidia-smi"
        program.write_text(f'#!/bin/sh\necho "{CARD}"\n')
        program.chmod(0o755)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{folder}:/usr/bin:/bin")
            started(
                scope,
                *(sys.executable, "-m", "gateway", "gpu-exporter", "--host", "127.0.0.1"),
                *("--port", str(ports["gpu"])),
                folder=ROOT, log=folder / "gpu.log",
            )  # fmt: skip
        started(
            scope,
            *("prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"),
            f"--web.listen-address=127.0.0.1:{ports['prometheus']}",
            "--rules.alert.resend-delay=2s",
            folder=folder, log=folder / "prometheus.log",
        )  # fmt: skip
        started(
            scope,
            *("prometheus-alertmanager", "--config.file=alertmanager.yml"),
            *("--storage.path=alerts", "--cluster.listen-address="),
            f"--web.listen-address=127.0.0.1:{ports['alertmanager']}",
            folder=folder, log=folder / "alertmanager.log",
        )  # fmt: skip
        prometheus = f"http://127.0.0.1:{ports['prometheus']}"
        load = Load(serve.url, engine.address)
        load.start()
        scope.callback(load.stop)
        wait_until(lambda: answers(prometheus + "/-/ready"), "Prometheus is ready")
        yield Watched(prometheus, serve.url, alerts, engine_scope)


def test_every_target_is_up(watched: Watched) -> None:
    """The jobs of the shipped configuration."""
    wait_until(lambda: len(watched.query("up == 1")) == 5, "five targets are up")


def test_every_panel_of_every_dashboard_has_data(watched: Watched) -> None:
    """Nobody looks at an empty plot and wonders."""
    missing = {
        (board, panel["title"], target["expr"])
        for board, panel in panels()
        for target in panel["targets"]
    }

    def all_there() -> bool:
        for entry in sorted(missing):
            samples = watched.query(quick(expression_of(entry[2])))
            if any(sample["value"][1] != "NaN" for sample in samples):
                missing.discard(entry)
        return not missing

    try:
        wait_until(all_there, "every panel has data")
    except AssertionError:
        pytest.fail(f"no data: {sorted(missing)}")


def test_every_recording_rule_has_data(watched: Watched) -> None:
    """And none fails in its evaluation."""
    text = (ROOT / "deploy" / "prometheus" / "rules" / "recording.yml").read_text()
    names = re.findall(r"record: (\S+)", text)
    wait_until(lambda: all(watched.query(name) for name in names), "every rule has data")
    groups = httpx.get(watched.prometheus + "/api/v1/rules", timeout=10).json()["data"]["groups"]
    errors = [
        rule["lastError"] for group in groups for rule in group["rules"] if "lastError" in rule
    ]
    assert errors == []


def test_the_engine_and_the_gateway_count_the_same_tokens(watched: Watched) -> None:
    """Two sides of one wire; the engine's warm-ups and overheads are a few per cent."""
    wait_until(lambda: watched.query("gateway:audio_tokens:rate1m > 0"), "tokens flow")
    (gateway,) = watched.query("sum(gateway_audio_tokens_total)")
    (engine,) = watched.query('sum({__name__="vllm:generation_tokens_total"})')
    assert 0.5 < float(gateway["value"][1]) / float(engine["value"][1]) <= 1.05


def test_an_alert_reaches_whoever_is_on_call(watched: Watched) -> None:
    """The engine dies: Prometheus sees it, Alertmanager sends it, a webhook gets it."""
    watched.engine.close()
    seen = set()

    def told() -> bool:
        try:
            alert = watched.alerts.get(timeout=1)
        except Empty:
            return False
        seen.add(alert["labels"]["alertname"])
        return {"UpstreamDown", "NoHealthyUpstream"} & seen != set()

    wait_until(told, "the webhook hears of it")
