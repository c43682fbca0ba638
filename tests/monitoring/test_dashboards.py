"""Grafana's dashboards: as their code says, readable, and of the type Grafana declares."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import promql_parser
import pytest

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "deploy" / "grafana"
NODE = Path(__file__).with_name("node")


def generator() -> ModuleType:
    """The module that makes the dashboards."""
    spec = importlib.util.spec_from_file_location("generate", GRAFANA / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def boards() -> dict[str, dict[str, Any]]:
    """The dashboards that Grafana gets."""
    return {path.name: json.loads(path.read_text()) for path in GRAFANA.glob("dashboards/*.json")}


def panels() -> list[tuple[str, dict[str, Any]]]:
    """Every panel with its dashboard's name."""
    return [
        (name, panel)
        for name, board in boards().items()
        for panel in board["panels"]
        if panel["type"] != "row"
    ]


def expression_of(text: str) -> str:
    """A query with Grafana's variables put in, as for all upstreams and surfaces."""
    return text.replace("$upstream", ".*").replace("$surface", ".*")


def test_the_files_are_what_the_code_says() -> None:
    """`python deploy/grafana/generate.py` was run after the last change."""
    module = generator()
    made = {name: module.render(board) for name, board in module.dashboards().items()}
    there = {path.name: path.read_text() for path in GRAFANA.glob("dashboards/*.json")}
    assert there == made


@pytest.mark.parametrize(
    ("board", "panel"),
    panels(),
    ids=lambda value: value["title"] if isinstance(value, dict) else "",
)
def test_a_panel_can_be_read_without_its_maker(board: str, panel: dict[str, Any]) -> None:
    """It says what it shows and how to read it, in a unit, with thresholds, from a real query."""
    assert board
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None
    assert panel["datasource"]["uid"] == "prometheus"
    assert panel["targets"]
    for target in panel["targets"]:
        promql_parser.parse(expression_of(target["expr"]))


def test_no_two_panels_lie_on_each_other() -> None:
    """Each has its own place in the 24 columns."""
    for board in boards().values():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {
                (place["x"] + x, place["y"] + y)
                for x in range(place["w"])
                for y in range(place["h"])
            }
            assert place["x"] + place["w"] <= 24
            assert not cells & taken, panel["title"]
            taken |= cells
        identities = [panel["id"] for panel in board["panels"]]
        assert len(set(identities)) == len(identities)


@pytest.mark.node
@pytest.mark.skipif(
    not (NODE / "node_modules" / ".installed").exists() or not shutil.which("node"),
    reason="needs Node and its packages: `scripts/install --system test`",
)
def test_the_dashboards_are_of_grafanas_own_type() -> None:
    """`tsc --strict` against @grafana/schema; a wrong word in a copy is found."""
    source = 'import type { Board } from "./check.js";\n' + "".join(
        f"export const board{number}: Board = {json.dumps(board)};\n"
        for number, board in enumerate(boards().values())
    )

    def compile_(text: str) -> subprocess.CompletedProcess[str]:
        folder = NODE / "boards.ts"
        folder.write_text(text)
        try:
            return subprocess.run(
                [NODE / "node_modules" / ".bin" / "tsc", "--project", NODE],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "PYTHON": sys.executable},
            )
        finally:
            folder.unlink()

    right = compile_(source)
    assert right.returncode == 0, right.stdout
    wrong = compile_(source.replace('"mode": "multi"', '"mode": "many"'))
    assert wrong.returncode != 0
    assert "many" in wrong.stdout
