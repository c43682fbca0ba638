"""What a dashboard is made of, and how it becomes Grafana's JSON (schema version 39 and later).

A panel is data; `dashboard` lays panels out from left to right and gives them their ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

DATA_SOURCE = {"type": "prometheus", "uid": "prometheus"}
COLUMNS = 24
GREEN, ORANGE, RED, BLUE, GREY = "green", "orange", "red", "blue", "#8a8f98"


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        expression: PromQL; may use $upstream and $surface.
        legend: Name of its series.
    """

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: What it shows.
        description: How to read it.
        queries: Where its data comes from.
        unit: Grafana's name of the unit.
        kind: timeseries, stat or bargauge.
        width: Of 24 columns.
        height: In Grafana's rows of 30 pixels.
        thresholds: Values from which a colour holds; the first one is the base.
        lines: Draw the thresholds into the plot.
        stack: Stack the series.
        maximum: End of the scale, or None.
    """

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    thresholds: Sequence[tuple[float | None, str]] = field(default=((None, GREEN),))
    lines: bool = False
    stack: bool = False
    maximum: float | None = None


@dataclass(frozen=True)
class Row:
    """A heading and the panels below it."""

    title: str
    panels: Sequence[Panel]


def _target(query: Query, number: int, *, instant: bool) -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + number),
        "datasource": DATA_SOURCE,
        "expr": query.expression,
        "legendFormat": query.legend,
        "range": not instant,
        "instant": instant,
    }


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "timeseries":
        return {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True,
                       "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }  # fmt: skip
    reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if panel.kind == "stat":
        return {
            "reduceOptions": reduce, "colorMode": "value", "graphMode": "area",
            "justifyMode": "auto", "orientation": "auto", "textMode": "auto", "wideLayout": True,
            "showPercentChange": False, "percentChangeColorMode": "standard",
        }  # fmt: skip
    return {
        "reduceOptions": reduce, "displayMode": "basic", "orientation": "horizontal",
        "showUnfilled": True, "valueMode": "color", "namePlacement": "auto", "sizing": "auto",
        "minVizHeight": 16, "minVizWidth": 8, "maxVizHeight": 300,
    }  # fmt: skip


def _custom(panel: Panel) -> dict[str, Any]:
    if panel.kind != "timeseries":
        return {}
    return {
        "drawStyle": "line",
        "lineWidth": 2,
        "fillOpacity": 20 if panel.stack else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if panel.lines else "off"},
        "axisPlacement": "auto",
    }


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    instant = panel.kind == "bargauge"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATA_SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "targets": [_target(q, n, instant=instant) for n, q in enumerate(panel.queries)],
        "options": _options(panel),
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                **({"max": panel.maximum} if panel.maximum is not None else {}),
                "color": {"mode": "palette-classic" if panel.kind == "timeseries"
                          else "thresholds"},
                "thresholds": {
                    "mode": "absolute",
                    "steps": [{"value": v, "color": c} for v, c in panel.thresholds],
                },
                "custom": _custom(panel),
            },
            "overrides": [],
        },
    }  # fmt: skip


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATA_SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
        "hide": 0,
        "skipUrlSync": False,
        "regex": "",
    }


def _annotation(name: str, colour: str, expression: str, title: str) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": DATA_SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "expr": expression,
        "titleFormat": title,
        "textFormat": "",
        "step": "15s",
        "useValueForTime": False,
    }


# Grafana marks the times at which an annotation's value is 1 or more, and no others.
ANNOTATIONS = [
    _annotation(
        "Deploys and starts",
        BLUE,
        "gateway_build_info * on (instance) group_left () "
        "(time() - gateway_start_time_seconds < bool 60)",
        "{{instance}} was started with version {{version}}",
    ),
    _annotation(
        "Ejections",
        RED,
        'max by (upstream) (gateway_upstream_healthy{upstream=~"$upstream"}) == bool 0',
        "{{upstream}} out",
    ),
]
VARIABLES = [
    _variable("upstream", "Upstream", "label_values(gateway_upstream_healthy, upstream)"),
    _variable("surface", "Surface", "label_values(gateway_requests_total, surface)"),
]


def dashboard(uid: str, title: str, description: str, rows: Sequence[Row]) -> dict[str, Any]:
    """A whole dashboard."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
                "panels": [],
            }
        )
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            panels.append(_panel(panel, len(panels) + 1, x, y))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["speech-gateway"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "templating": {"list": VARIABLES},
        "annotations": {"list": ANNOTATIONS},
        "links": [
            {
                "type": "dashboards", "title": "Speech gateway", "tags": ["speech-gateway"],
                "asDropdown": False, "includeVars": True, "keepTime": True, "targetBlank": False,
                "icon": "", "tooltip": "", "url": "",
            }
        ],
        "panels": panels,
    }  # fmt: skip
