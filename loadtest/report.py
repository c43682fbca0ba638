"""A sweep as one HTML page: what was found, four plots, and every figure in a table.

The plots are inline SVG, so the page can be sent to somebody as it is.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import matplotlib as mpl
from matplotlib.figure import Figure

from loadtest.sweep import Level, knee

BLUE, GREY = "#1f6feb", "#8a8f98"
PERCENTILE_COLOURS = {"p50": BLUE, "p95": "#d97706", "p99": "#b42318"}
LOAD = attrgetter("load")
SIZE_INCHES = (7.2, 3.8)
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c2024; background: #fff }}
.plots {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem }}
figure {{ margin: 0 }} svg {{ max-width: 100%; height: auto }}
.scroll {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }}
th, td {{ padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e2e5e9 }}
th {{ text-align: right; white-space: nowrap }}
td:first-child, th:first-child, td:nth-child(2), th:nth-child(2) {{ text-align: left }}
</style></head><body>
<h1>{title}</h1>
<p>{when}</p>
<ul>{findings}</ul>
<div class="plots">{plots}</div>
<h2>All figures</h2>
<div class="scroll">{table}</div>
</body></html>
"""


def findings(levels: Sequence[Level]) -> list[str]:
    """What the sweep says, in sentences."""
    said = []
    by_target = {
        target: [level for level in levels if (level.target, level.kind) == (target, "concurrency")]
        for target in ("gateway", "direct")
    }
    for target, measured in by_target.items():
        found = knee(measured)
        if found is None:
            continue
        best = max(level.audio_seconds_per_second for level in measured)
        said.append(
            f"{target}: best {best:.2f} audio seconds a second; the knee is at "
            f"{found.load:g} requests at once ({found.audio_seconds_per_second:.2f} audio s/s, "
            f"first audio p95 {found.first_audio_p95_seconds:.2f} s)"
        )
    ratio = ratio_at_saturation(levels)
    if ratio is not None:
        said.append(f"gateway to direct at saturation: {ratio:.2%}")
    overload = [level for level in levels if level.kind == "offered"]
    if overload:
        best = max(level.goodput for level in overload)
        last = overload[-1]
        said.append(
            f"best goodput {best:.2f} audio s/s; with {last.load:.1f} offered it is "
            f"{last.goodput:.2f} ({last.goodput / best if best else 0:.0%} of the best), "
            f"{last.refused} requests refused, {last.failed} failed"
        )
    return said


def ratio_at_saturation(levels: Sequence[Level]) -> float | None:
    """Throughput through the gateway to that without it, over all levels from the knee on."""
    direct = {
        level.load: level.audio_seconds_per_second for level in levels if level.target == "direct"
    }
    found = knee([level for level in levels if level.target == "direct"])
    if found is None:
        return None
    beyond = [
        level
        for level in levels
        if level.target == "gateway" and level.kind == "concurrency" and level.load >= found.load
    ]
    with_it = sum(level.audio_seconds_per_second for level in beyond)
    without = sum(direct[level.load] for level in beyond if level.load in direct)
    return with_it / without if without else None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot: what it is called, how it looks, its x and y values."""

    name: str
    colour: str
    style: str
    levels: Sequence[Level]
    value: Callable[[Level], float]


def _plot(
    title: str, y_label: str, lines: Sequence[Line], *, x_label: str, marks: Sequence[float] = ()
) -> str:
    """One figure as inline SVG; with `marks` (concurrencies) on a scale of powers of two."""
    mpl.rcParams["svg.fonttype"] = "none"
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    for line in lines:
        axes.plot(
            [level.load for level in line.levels],
            [line.value(level) for level in line.levels],
            line.style,
            color=line.colour,
            label=line.name,
            markersize=4,
        )
    if marks:
        axes.set_xscale("log", base=2)
        axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(visible=True, color="#e2e5e9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return f"<figure>{text[text.index('<svg') :]}</figure>"


def plots(levels: Sequence[Level]) -> list[str]:
    """The plots of a sweep."""
    steps = [level for level in levels if level.kind == "concurrency"]
    through = [level for level in steps if level.target == "gateway"]
    direct = [level for level in steps if level.target == "direct"]
    offered = [level for level in levels if level.kind == "offered"]
    marks = sorted({level.load for level in steps})

    def percentiles(stem: str, names: Sequence[str]) -> list[Line]:
        return [
            Line(name, PERCENTILE_COLOURS[name], "o-", through, attrgetter(stem.format(name)))
            for name in names
        ]

    rate = attrgetter("audio_seconds_per_second")
    throughput = [Line("gateway", BLUE, "o-", through, rate)]
    if direct:
        throughput.append(Line("direct", GREY, "o--", direct, rate))
    first = percentiles("first_audio_{}_seconds", ["p50", "p95", "p99"])
    factor = percentiles("real_time_factor_{}", ["p50", "p95"])
    goodput = [
        Line("offered", GREY, "--", [o for o in offered if o.load <= 2 * rate(o)], LOAD),
        Line("goodput", BLUE, "o-", offered, attrgetter("goodput")),
    ]
    at_once = "requests at once"
    drawn = [
        _plot("Throughput", "audio seconds / s", throughput, x_label=at_once, marks=marks),
        _plot("Time to first audio", "seconds", first, x_label=at_once, marks=marks),
        _plot("Real-time factor", "processing / audio time", factor, x_label=at_once, marks=marks),
    ]
    if offered:
        drawn.append(
            _plot(
                "Goodput against offered load",
                "audio seconds / s",
                goodput,
                x_label="offered, audio seconds / s",
            )
        )
    return drawn


COLUMNS: dict[str, Callable[[Level], str]] = {
    "target": lambda level: level.target,
    "kind": lambda level: level.kind,
    "load": lambda level: f"{level.load:.4g}",
    "audio s/s": lambda level: f"{level.audio_seconds_per_second:.2f}",
    "goodput": lambda level: f"{level.goodput:.2f}",
    "requests/s": lambda level: f"{level.requests_per_second:.2f}",
    "first audio p50": lambda level: f"{level.first_audio_p50_seconds:.3f}",
    "p95": lambda level: f"{level.first_audio_p95_seconds:.3f}",
    "p99": lambda level: f"{level.first_audio_p99_seconds:.3f}",
    "RTF p50": lambda level: f"{level.real_time_factor_p50:.3f}",
    "RTF p95": lambda level: f"{level.real_time_factor_p95:.3f}",
    "underrun p95": lambda level: f"{level.underrun_p95_seconds:.3f}",
    "complete": lambda level: str(level.complete),
    "refused": lambda level: str(level.refused),
    "failed": lambda level: str(level.failed),
}


def render(title: str, when: str, levels: Sequence[Level]) -> str:
    """The page."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in COLUMNS)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(show(level))}</td>" for show in COLUMNS.values())
        + "</tr>" for level in levels
    )  # fmt: skip
    return PAGE.format(
        title=html.escape(title),
        when=html.escape(when),
        findings="".join(f"<li>{html.escape(line)}</li>" for line in findings(levels)),
        plots="".join(plots(levels)),
        table=f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>",
    )
