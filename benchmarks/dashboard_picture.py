"""Draw the panels of the Grafana dashboard as one picture, from the data of a Prometheus server.

    python -m benchmarks.dashboard_picture [--prometheus URL] [--minutes M] [--out PNG]

Each panel has the position given in `k8s/monitoring/dashboard.json` and shows the results of its own expressions in its
own unit. Grafana is not needed.
"""

import argparse
import io
import json
import math
import re
import time
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from PIL import Image

from benchmarks.prometheus import Prometheus, QueryRefused, Series

matplotlib.use("Agg")

DASHBOARD = Path(__file__).resolve().parents[1] / "k8s" / "monitoring" / "dashboard.json"

_COLUMNS, _WIDTH_INCHES, _ROW_INCHES, _DPI = 24, 16.0, 0.3, 100
_POINTS = 200
_BACKGROUND, _PANEL, _TEXT, _GRID = "#111217", "#181b1f", "#ccccdc", "#2c3038"
# Grafana's classic palette and colour names.
_PALETTE = (
    "#73bf69",
    "#f2cc0c",
    "#8ab8ff",
    "#ff780a",
    "#f2495c",
    "#5794f2",
    "#b877d9",
    "#96d98d",
    "#ffb357",
    "#c4162a",
)
_COLOURS = {"green": "#73bf69", "yellow": "#fade2a", "orange": "#ff9830", "red": "#f2495c", "transparent": _TEXT}

Panel: TypeAlias = dict[str, Any]


class Board:
    """The dashboard's panels with the data of one Prometheus server.

    Args:
        minutes: the time shown, up to `until`, Unix seconds.
        scrape_seconds: how often it reads its targets.
    """

    def __init__(self, prometheus: Prometheus, minutes: float, until: float, scrape_seconds: float) -> None:
        self._prometheus = prometheus
        self._scrape_seconds = scrape_seconds
        self._minutes = minutes
        self._start, self._end = until - 60 * minutes, until

    def draw(self, panels: list[Panel]) -> Figure:
        """Draw all panels and the titles of rows."""
        rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
        figure = Figure(figsize=(_WIDTH_INCHES, rows * _ROW_INCHES), dpi=_DPI, facecolor=_BACKGROUND)
        for panel in panels:
            place = panel["gridPos"]
            left, width = place["x"] / _COLUMNS, place["w"] / _COLUMNS
            bottom, height = 1 - (place["y"] + place["h"]) / rows, place["h"] / rows
            if panel["type"] == "row":
                figure.text(left + 0.006, bottom + 0.35 * height, panel["title"], color="white", size=13, weight="bold")
                continue
            gap = 0.003
            axes = figure.add_axes((left + gap, bottom + gap / 2, width - 2 * gap, height - gap), facecolor=_PANEL)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color(_GRID)
            axes.set_title(panel["title"], color=_TEXT, size=10, loc="left", x=0.02, y=0.89, weight="bold")
            if panel["type"] == "stat":
                _draw_numbers(axes, panel, self._answers(panel))
            else:
                self._draw_graph(axes, width * _WIDTH_INCHES, panel)
        return figure

    def _draw_graph(self, axes: Axes, width_inches: float, panel: Panel) -> None:
        series = self._answers(panel)
        # Series that are always zero next to others that are not would only lengthen the legend.
        shown = {legend: each for legend, each in series.items() if np.nan_to_num(each.values).any()} or series
        columns = max(1, int(width_inches / (0.45 + 0.075 * max(map(len, shown), default=1))))
        legend_height = 0.075 * math.ceil(len(shown) / columns)
        left = 0.65 / width_inches
        plot = axes.inset_axes((left, 0.16 + legend_height, 0.97 - left, 0.68 - legend_height), facecolor=_PANEL)
        self._mark_time(plot)
        _plot(plot, panel["fieldConfig"]["defaults"], shown)
        axes.legend(
            *plot.get_legend_handles_labels(),
            loc="lower left",
            ncols=columns,
            fontsize=7.5,
            frameon=False,
            labelcolor=_TEXT,
            handlelength=1.2,
            columnspacing=1.2,
            labelspacing=0.25,
        )

    def _answers(self, panel: Panel) -> dict[str, Series]:
        """The panel's series, keyed by legend."""
        answers = {}
        step = (self._end - self._start) / _POINTS
        for target in panel["targets"]:
            expression = fill_in(target["expr"], self._minutes, self._scrape_seconds)
            # A number panel shows the latest value; its own query covers the whole time range.
            start = self._end if panel["type"] == "stat" else self._start
            for series in self._prometheus.query_range(expression, start, self._end, step):
                answers[_legend(target["legendFormat"], series.labels)] = series
        return answers

    def _mark_time(self, axes: Axes) -> None:
        """Label the time axis with up to six whole minutes, in local time."""
        axes.set_xlim(self._start, self._end)
        step = 60 * math.ceil((self._end - self._start) / 360)
        marks = np.arange(math.ceil(self._start / step) * step, self._end, step)
        axes.set_xticks(marks, [time.strftime("%H:%M", time.localtime(mark)) for mark in marks])


def _plot(axes: Axes, defaults: dict[str, Any], series: dict[str, Series]) -> None:
    stacked = defaults["custom"].get("stacking", {}).get("mode") == "normal"
    top = 0.0
    floor: dict[float, float] = {}
    for (legend, each), colour in zip(sorted(series.items()), _PALETTE * 3, strict=False):
        values = each.values
        if stacked:
            below = np.array([floor.get(at, 0.0) for at in each.times])
            values = below + np.nan_to_num(values)
            floor.update(zip(each.times.tolist(), values.tolist(), strict=True))
            axes.fill_between(each.times, below, values, color=colour, alpha=0.45, linewidth=0)
        axes.plot(each.times, values, color=colour, linewidth=1.2, label=legend)
        top = max(top, float(np.nanmax(values, initial=0.0)))
    steps = [step for step in defaults.get("thresholds", {}).get("steps", []) if step["value"] is not None]
    top = 1.08 * max(top, min((step["value"] for step in steps), default=0.0)) or 1.0
    for step in steps:
        if step["value"] <= top:
            axes.axhline(step["value"], color=_COLOURS[step["color"]], linewidth=1, linestyle=(0, (5, 4)))
    axes.set_ylim(0, top)
    bytes_step = 2.0 ** math.ceil(math.log2(top / 4))
    axes.yaxis.set_major_locator(MultipleLocator(bytes_step) if defaults["unit"] == "bytes" else MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value, defaults["unit"])))
    axes.grid(color=_GRID, linewidth=0.7)
    axes.tick_params(colors=_TEXT, labelsize=8, length=0)
    axes.spines[:].set_visible(False)


def _draw_numbers(axes: Axes, panel: Panel, series: dict[str, Series]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    for index, (legend, each) in enumerate(sorted(series.items())):
        value = each.values[-1]
        height = 0.84 - 0.84 * (index + 0.5) / len(series)
        reached = [step for step in defaults["thresholds"]["steps"] if step["value"] is None or value >= step["value"]]
        colour = _COLOURS[reached[-1]["color"]]
        axes.text(0.04, height, legend, color=_TEXT, size=10, va="center")
        axes.text(0.96, height, text(value, defaults["unit"]), color=colour, size=20, va="center", ha="right")


def fill_in(expression: str, minutes: float, scrape_seconds: float) -> str:
    """Replace the variables of an expression as Grafana does, with all gateways selected and the given minutes
    shown."""
    seconds = {"$__rate_interval": 4 * scrape_seconds, "$__range": 60 * minutes}
    for variable, value in seconds.items():
        expression = expression.replace(variable, f"{round(1000 * value)}ms")
    return expression.replace("$namespace", ".*").replace("$instance", ".*")


def text(value: float, unit: str) -> str:
    """Format a value in one of Grafana's units."""
    match unit:
        case "s":
            return f"{1000 * value:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
        case "percentunit":
            return f"{100 * value:.3g} %" if abs(value) < 10 else f"{100 * value:,.0f} %"
        case "bytes":
            for prefix in ("", "Ki", "Mi"):
                if abs(value) < 1024:
                    return f"{value:.3g} {prefix}B"
                value /= 1024
            return f"{value:.3g} GiB"
        case "reqps" | "ops" | "cps":
            return f"{value:.3g}/s"
        case "short" | "none":
            return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    raise ValueError(f"unknown unit {unit}; add its format to this function")


def _legend(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), template)


def main() -> None:
    """Query Prometheus and draw."""
    parser = argparse.ArgumentParser(description="The dashboard's panels as a picture, from a Prometheus's data.")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL")
    parser.add_argument("--minutes", type=float, default=5.0, help="length of the time range")
    parser.add_argument(
        "--until", type=float, default=time.time(), metavar="UNIX_SECONDS", help="end of the time range (default: now)"
    )
    parser.add_argument("--scrape-seconds", type=float, default=5.0, help="how often Prometheus reads its targets")
    parser.add_argument("--out", type=Path, default=Path("dashboard.png"))
    arguments = parser.parse_args()
    prometheus = Prometheus(arguments.prometheus)
    board = Board(prometheus, arguments.minutes, arguments.until, arguments.scrape_seconds)
    drawn = io.BytesIO()
    try:
        board.draw(json.loads(DASHBOARD.read_text())["panels"]).savefig(drawn, format="png")
    except (OSError, QueryRefused) as error:
        parser.exit(1, f"the Prometheus at {arguments.prometheus} does not answer: {error}\n")
    # A small palette reduces the file to a third.
    Image.open(drawn).convert("RGB").quantize(128).save(arguments.out, optimize=True)
    print(f"{arguments.out}: {arguments.out.stat().st_size >> 10} KiB")


if __name__ == "__main__":
    main()
