"""The plots of a run: how many inputs reach which radius, and which classes do."""

from __future__ import annotations

import numpy as np

from vaefast.report.charts import Chart
from vaefast.report.figures import SERIES, Line, band_plot, class_plot
from vaefast.report.run_numbers import Measured, RunNumbers
from vaefast.report.run_words import RunFacts, named, sound
from vaefast.report.words import number, percent

__all__ = ["class_chart", "class_name", "curve"]

POINTS = 400  # of a curve that are drawn
SHOWN = 24  # classes of a plot


def curve(numbers: RunNumbers, facts: RunFacts) -> Chart | None:
    """Share of the inputs against the radius, or against the probability; one curve per r."""
    name = "margin" if numbers.of("margin") else "p_lower"
    columns = [column for column in numbers.of(name) if column.spread.count]
    if not columns:
        return None
    shown = _ends(columns)
    lines = [_curve(column, named(column, facts), name) for column in shown]
    title, x_label, words = _curve_words(name, facts)
    svg = band_plot("curve", lines, x_label=x_label, y_label="share of inputs at or above")
    ends = [f"{named(column, facts)}: {_described(column)}" for column in shown]
    caption = f"{words}. {'; '.join(ends)}. Of {columns[0].spread.count} in all."
    if len(shown) < len(columns):
        caption += f" {len(shown)} of {len(columns)} r are shown."
    return Chart(title, svg, caption, tuple(line.label for line in lines))


def _curve_words(name: str, facts: RunFacts) -> tuple[str, str, str]:
    """Title, label of the axis and caption of the curve."""
    share = "Share of the inputs whose"
    if name == "p_lower":
        words = f"{share} lower bound is at least the value on the axis"
        return "Probability to stay within r", "lower bound of the probability", words
    if sound(facts):
        words = f"{share} certified radius is at least the one on the axis"
        return "Certified share against radius", f"radius ℓ2, {facts.scale}", words
    kind = facts.guarantee or "an upper limit, not a certificate"
    words = f"{share} margin is at least the value on the axis ({kind})"
    return "Share of inputs by margin", f"margin ℓ2, {facts.scale}", words


def _ends(columns: list[Measured]) -> list[Measured]:
    """At most as many as there are colours, the first and the last among them."""
    if len(columns) <= len(SERIES):
        return columns
    return [columns[round(k)] for k in np.linspace(0, len(columns) - 1, len(SERIES))]


def _curve(column: Measured, label: str, name: str) -> Line:
    """A step down after every value, thinned where there are many; infinity is left out."""
    values, share = column.spread.at_least()
    finite = np.isfinite(values)
    beyond = float(share[~finite].max(initial=0.0))
    values, share = values[finite], share[finite]
    keep = np.unique(np.linspace(0, max(0, len(values) - 1), POINTS).round().astype(int))
    values, share = values[keep[: len(values)]], share[keep[: len(values)]]
    after = np.append(share[1:], beyond)[: len(values)]
    start = 0.0 if name == "margin" or not len(values) else float(values[0])
    x = np.concatenate([[start], np.repeat(values, 2)])
    y = np.concatenate([[1.0], np.column_stack([share, after]).reshape(-1)])
    return Line(label, x.tolist(), y.tolist(), y.tolist(), y.tolist())


def _described(column: Measured) -> str:
    """A curve in words, for those who do not see it."""
    median, most = column.spread.quantile(0.5), column.spread.quantile(0.9)
    positive = 1.0 - column.zero / column.spread.count
    return (
        f"{percent(positive)} above 0, half at least {number(median)}, a tenth at least "
        f"{number(most)}"
    )


def class_chart(numbers: RunNumbers, facts: RunFacts) -> Chart | None:
    """Median and quartiles of every class."""
    columns = [c for c in numbers.columns.values() if c.classes]
    columns = [c for c in columns if c.name == columns[0].name] if columns else []
    if not columns:
        return None
    shown = _ends(columns)
    classes = sorted(shown[0].classes)[:SHOWN]
    lines = [_quartiles(column, classes, named(column, facts)) for column in shown]
    what = "probability, lower bound" if shown[0].name == "p_lower" else shown[0].name
    if shown[0].name == "margin":
        what = f"{'certified radius' if sound(facts) else 'margin'} ℓ2, {facts.scale}"
    names = [class_name(k, facts.classes) for k in classes]
    svg = class_plot("classes", names, lines, x_label="class", y_label=what)
    medians = dict(zip(names, lines[0].y, strict=True))
    low, high = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
    caption = (
        f"Median of each class, bars from quartile to quartile. The lowest is {low} with "
        f"{number(medians[low])}, the highest {high} with {number(medians[high])}."
    )
    if len(classes) < len(shown[0].classes):
        caption += f" The first {len(classes)} of {len(shown[0].classes)} classes are shown."
    legend = tuple(line.label for line in lines) if len(lines) > 1 else ()
    return Chart(f"{what.partition(' ℓ2')[0].capitalize()} by class", svg, caption, legend)


def _quartiles(column: Measured, classes: list[int], label: str) -> Line:
    rows = [
        [_finite(column.classes[k].quantile(q)) if k in column.classes else 0.0 for k in classes]
        for q in (0.25, 0.5, 0.75)
    ]
    return Line(label, list(range(len(classes))), rows[1], rows[0], rows[2])


def _finite(value: float | None) -> float:
    return float("nan") if value is None or not np.isfinite(value) else value


def class_name(label: int, names: tuple[str, ...]) -> str:
    return names[label] if 0 <= label < len(names) else str(label)
