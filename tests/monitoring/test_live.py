"""Every panel, rule and alert at work: Prometheus watches a gateway under load."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import httpx
import pytest

from gateway import __version__
from loadtest.processes import (
    DEADLINE_SECONDS,
    answers,
    free_port,
    running_engine,
    running_serve,
    wait_until,
)
from tests.monitoring.test_dashboards import boards, expression_of, panels
from tests.monitoring.watching import (
    GPU_METRICS,
    QUEUE_PLACES,
    ROOT,
    SLOTS,
    WINDOW_SECONDS,
    Load,
    Watched,
    configure,
    quick,
    started,
    webhook,
)

AUDIO = "gateway_audio_seconds_total"

pytestmark = pytest.mark.skipif(
    not shutil.which("prometheus") or not shutil.which("prometheus-alertmanager"),
    reason="needs Prometheus and Alertmanager (scripts/install --system)",
)


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
            running_serve(
                upstreams=engine.address,
                probe_interval_seconds=0.5,
                max_in_flight=SLOTS,
                max_queued=QUEUE_PLACES,
                log_level="error",
            )
        )
        ports["engine"] = int(engine.address.rsplit(":", 1)[1])
        ports["gateway"] = int(serve.url.rsplit(":", 1)[1])
        configure(folder, ports)
        hook = webhook(ports["hook"], alerts)
        threading.Thread(target=hook.serve_forever, daemon=True).start()
        scope.callback(hook.server_close)
        scope.callback(hook.shutdown)
        (folder / "metrics").write_text(GPU_METRICS)
        started(
            scope,
            *(sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(ports["gpu"])),
            folder=folder, log=folder / "gpu.log",
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
        scope.callback(Load(serve.url, engine.address).stop)
        wait_until(lambda: answers(prometheus + "/-/ready"), "Prometheus is ready")
        yield Watched(prometheus, serve.url, alerts, engine_scope)


def test_every_target_is_up(watched: Watched) -> None:
    """The jobs of the shipped configuration."""
    wait_until(lambda: len(watched.query("up == 1")) == 5, "five targets are up")


def monitoring_check(watched: Watched, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The script that looks for what is empty or broken."""
    command = [sys.executable, ROOT / "scripts" / "monitoring_check", *arguments]
    window = ["--window", f"{WINDOW_SECONDS}s"]
    return subprocess.run(
        [*map(str, command), watched.prometheus, *window],
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_panel_variable_target_and_rule_has_data(watched: Watched) -> None:
    """Nobody looks at an empty plot and wonders."""
    done = monitoring_check(watched, "--wait-seconds", f"{DEADLINE_SECONDS:g}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_upstream_and_surface_can_be_looked_at_alone(watched: Watched) -> None:
    """A value chosen in Grafana, escaped as Grafana does it, leaves no panel empty."""
    for name, metric in (("upstream", "gateway_upstream_healthy"), ("surface", AUDIO)):
        values = {sample["metric"][name] for sample in watched.query(metric)}
        assert len(values) == {"upstream": 1, "surface": 2}[name]
        for value in values:
            escaped = re.sub(r"[$^*{}\[\]'+?.()|]", r"\\\\\g<0>", value)
            for _, panel in panels():
                for target in panel["targets"]:
                    if f"${name}" not in target["expr"]:
                        continue
                    chosen = target["expr"].replace(f"${name}", escaped)
                    query = quick(expression_of(chosen))
                    wait_until(partial(watched.query, query), f"{panel['title']} of {value}")


@pytest.mark.parametrize(
    "metric",
    [
        'gateway_rejections_total{reason="queue_full"}',
        "gateway_upstream_retries_total",
        "gateway_runaway_total",
        'gateway_requests_total{outcome="truncated"}',
    ],
)
def test_what_goes_wrong_is_seen_to_grow(watched: Watched, metric: str) -> None:
    """Panels that show 0 while all is well show more when it is not."""
    expression = f"sum(rate({metric}[{WINDOW_SECONDS}s])) > 0"
    wait_until(lambda: watched.query(expression), f"{metric} grows")


def marks(watched: Watched, name: str) -> list[str]:
    """Whether Grafana would mark something: an annotation's labels wherever its value reaches 1."""
    (expression,) = {
        annotation["expr"]
        for board in boards().values()
        for annotation in board["annotations"]["list"]
        if annotation["name"] == name
    }
    now = time.time()
    answer = httpx.get(
        watched.prometheus + "/api/v1/query_range",
        params={"query": expression_of(expression), "start": now - 120, "end": now, "step": 1},
        timeout=120,
    )
    return [
        json.dumps(series["metric"])
        for series in answer.json()["data"]["result"]
        if any(float(value) >= 1 for _, value in series["values"])
    ]


def test_a_start_is_marked_with_its_version(watched: Watched) -> None:
    """A change of the curves can be told from a deploy."""
    wait_until(lambda: marks(watched, "Deploys and starts"), "the start is marked")
    (mark,) = marks(watched, "Deploys and starts")
    assert f'"version": "{__version__}"' in mark
    assert marks(watched, "Ejections") == []


def test_the_engine_and_the_gateway_count_the_same_tokens(watched: Watched) -> None:
    """Two sides of one wire; the engine's warm-ups and overheads are a few per cent."""

    def share() -> float:
        (gateway,) = watched.query("sum(gateway_audio_tokens_total)")
        (engine,) = watched.query('sum({__name__="vllm:generation_tokens_total"})')
        return float(gateway["value"][1]) / float(engine["value"][1])

    # The two are scraped at different moments, and broken answers are counted by the engine alone.
    wait_until(lambda: 0.5 < share() <= 1.05, "they agree")


def test_an_alert_reaches_whoever_is_on_call(watched: Watched) -> None:
    """The engine dies: Prometheus sees it, Alertmanager sends it, a webhook gets it.

    The plots mark it as an ejection, and the check names what is down.
    """
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
    wait_until(lambda: marks(watched, "Ejections"), "the ejection is marked")
    wait_until(lambda: watched.query('up{job="engine"} == 0'), "Prometheus misses the engine")
    done = monitoring_check(watched)
    assert done.returncode == 1
    assert "target engine" in done.stdout
