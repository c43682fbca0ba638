"""Prometheus' files: valid, tested alert by alert, and each alert leads to a page that helps."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.watching import GPU_METRICS

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
OPERATIONS = ROOT / "docs" / "operations.md"

needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="needs promtool (scripts/install --system)"
)


def promtool(*arguments: str | Path) -> None:
    """Run it; anything to say is a failure."""
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rules(file: str) -> list[dict[str, Any]]:
    """Every rule of a file."""
    groups = yaml.safe_load((PROMETHEUS / "rules" / file).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """Every alert rule."""
    return rules("alerts.yml")


@needs_promtool
def test_the_configuration_and_its_rules_are_valid() -> None:
    """What Prometheus would refuse at its start."""
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


@needs_promtool
def test_every_alert_fires_for_its_cause_and_no_other() -> None:
    """The unit tests beside the rules."""
    promtool("test", "rules", PROMETHEUS / "tests" / "alerts.yml")


@needs_promtool
def test_every_recorded_figure_is_what_it_says() -> None:
    """Worked out by hand from counters that grow evenly; each rule is among them."""
    path = PROMETHEUS / "tests" / "recording.yml"
    promtool("test", "rules", path)
    tested = path.read_text()
    assert [r["record"] for r in rules("recording.yml") if f"({r['record']}," not in tested] == []


@pytest.mark.parametrize("alert", [rule["alert"] for rule in alerts()])
def test_each_alert_has_its_unit_test(alert: str) -> None:
    """One where it fires, and one where it does not."""
    tests = yaml.safe_load((PROMETHEUS / "tests" / "alerts.yml").read_text())["tests"]
    fires = f'{{alertname="{alert}"}}'
    assert any(
        sample["labels"] == fires
        for test in tests
        for check in test.get("promql_expr_test", ())
        for sample in check["exp_samples"]
    )
    assert any(
        check == {"alertname": alert, "eval_time": "50m", "exp_alerts": []}
        for test in tests
        for check in test.get("alert_rule_test", ())
    )


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_each_alert_tells_what_to_do(rule: dict[str, Any]) -> None:
    """A summary, a description, and a section of the operations page that there is."""
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"]["summary"].endswith((".", "?"))
    assert rule["annotations"]["description"].endswith(".")
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert ROOT / page == OPERATIONS
    headings = re.findall(r"^#+ (.+)$", OPERATIONS.read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", text.lower()).replace(" ", "-") for text in headings}
    assert anchor in anchors


def test_the_names_in_rules_are_names_that_there_are() -> None:
    """A renamed metric must not leave a rule that never fires."""
    from gateway.telemetry.metrics import Metrics  # noqa: PLC0415

    known = {family.name for family in Metrics().registry.collect()}
    used: set[str] = set()
    for name in ("recording.yml", "alerts.yml"):
        text = (PROMETHEUS / "rules" / name).read_text()
        used |= set(re.findall(r"\bgateway_[a-z0-9_]+", text))
    used = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in used}
    assert used - {re.sub(r"_total$", "", name) for name in known} == set()


def test_the_gpus_figures_have_their_exporters_documented_names() -> None:
    """Of nvidia_gpu_exporter, in rules and dashboards alike."""
    documented = set(re.findall(r"^nvidia_smi_[a-z_]+", GPU_METRICS, re.MULTILINE))
    files = [PROMETHEUS / "rules" / "alerts.yml", PROMETHEUS.parent / "grafana" / "generate.py"]
    text = "".join(file.read_text() for file in files)
    used = {f"nvidia_smi_{name}" for name in re.findall(r"\bgpu\(\"([a-z_]+)\"\)", text)}
    used |= set(re.findall(r"nvidia_smi_[a-z_]+[a-z]", text))
    assert used == documented
