"""The report's plots: matplotlib draws, the page's style sheet colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

__all__ = ["Line", "band_plot", "class_plot", "radius_plot", "scatter_plot"]

# every colour is a placeholder that becomes a CSS variable, so that one plot suits light and dark
INK, SOFT, RULE = "#010101", "#020202", "#030303"
SERIES = ("#040404", "#050505", "#060606")
VARIABLES = {INK: "--ink", SOFT: "--soft", RULE: "--rule"} | {
    color: f"--series-{k}" for k, color in enumerate(SERIES, 1)
}
LETTERS = 36  # of names below an axis that stand side by side
FEW = 6  # points whose places are labelled each
MARKERS = ("o", "s", "^")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vaefast",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


@dataclass(frozen=True)
class Line:
    """A curve with the band around it; the page writes the label."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def radius_plot(
    name: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    percent: bool = False,
    bounded: bool = True,
) -> str:
    """Curves over attack radii, their intervals as error bars; y runs from 0, to 1 if bounded."""

    def draw(axes: Axes) -> None:
        for k, line in enumerate(lines):
            error = [np.subtract(line.y, line.low), np.subtract(line.high, line.y)]
            axes.errorbar(
                line.x,
                line.y,
                yerr=np.maximum(error, 0),
                color=SERIES[k],
                marker=MARKERS[k],
                linestyle=DASHES[k],
                capsize=2.5,
                elinewidth=1,
            )
        axes.set(xlabel=x_label, ylabel=y_label)
        if len(lines[0].x) <= FEW:
            axes.set_xticks(list(lines[0].x))
        axes.set_ylim(*((-0.02, 1.04) if bounded else (0, None)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        if percent:
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")

    return _svg(name, draw)


def band_plot(
    name: str, lines: Sequence[Line], *, x_label: str, y_label: str, log: bool = False
) -> str:
    """Curves with shaded bands."""

    def draw(axes: Axes) -> None:
        for k, line in enumerate(lines):
            axes.plot(line.x, line.y, color=SERIES[k], linestyle=DASHES[k])
            axes.fill_between(line.x, line.low, line.high, color=SERIES[k], alpha=0.16, lw=0)
        if log:
            _log_scale(axes)
        axes.set(xlabel=x_label, ylabel=y_label)
        if all(float(value).is_integer() for value in lines[0].x):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))

    return _svg(name, draw)


def scatter_plot(
    name: str, x: np.ndarray, y: np.ndarray, *, x_label: str, y_label: str, log: bool = False
) -> str:
    """One translucent dot per input."""

    def draw(axes: Axes) -> None:
        axes.scatter(x, y, s=20, color=SERIES[0], alpha=0.55, linewidth=0)
        if log:
            _log_scale(axes)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.set_xlim(left=0)

    return _svg(name, draw)


def class_plot(
    name: str, labels: Sequence[str], lines: Sequence[Line], *, x_label: str, y_label: str
) -> str:
    """A dot per class with the range around it, one row of dots per line; y runs from 0."""

    def draw(axes: Axes) -> None:
        for k, line in enumerate(lines):
            error = [np.subtract(line.y, line.low), np.subtract(line.high, line.y)]
            axes.errorbar(
                np.asarray(line.x) + 0.22 * (k - (len(lines) - 1) / 2),
                line.y,
                yerr=np.maximum(error, 0),
                color=SERIES[k],
                marker=MARKERS[k],
                linestyle="none",
                capsize=2.5,
                elinewidth=1.4,
            )
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.set_xticks(range(len(labels)), labels)
        if sum(map(len, labels)) > LETTERS:
            axes.tick_params(axis="x", labelrotation=60)
        axes.set_ylim(bottom=0)

    return _svg(name, draw)


def _log_scale(axes: Axes) -> None:
    """A logarithmic y axis with labels at 1, 2, 5 where it spans less than two decades.

    Without positive data the axis stays linear.
    """
    if not np.isfinite(axes.dataLim.minposy):
        return
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    steps = (1.0, 2.0, 5.0) if high < 100 * low else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(_plain)
    axes.yaxis.set_minor_formatter(lambda *_: "")


def _plain(value: float, _: float = 0.0) -> str:
    return f"{value:g}"


def _svg(name: str, draw: Callable[[Axes], None]) -> str:
    """What ``draw`` puts on the axes, as inline SVG."""
    with mpl.rc_context({**mpl.rcParamsDefault, **STYLE, "backend": "agg"}):
        figure = Figure(figsize=(5.2, 3.5), layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return themed(buffer.getvalue(), name)


def themed(svg: str, name: str) -> str:
    """Inline SVG: CSS variables for colours, the page's font, ids that are unique on the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (xmlns(:xlink)?|width|height|version)="[^"]*"', "", svg, count=5)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\1{name}-", svg).replace("xlink:href", "href")
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    return svg.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
