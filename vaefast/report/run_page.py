"""The report of a run: one HTML file that needs nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from torch import Tensor

from vaefast.audit.progress import human
from vaefast.report.images import Picture, Strip, data_uri
from vaefast.report.run_charts import class_chart, class_name, curve
from vaefast.report.run_numbers import EXAMPLES, Failure, Measured, RunNumbers, scan
from vaefast.report.run_words import Cost, RunFacts, findings, sound, tiles
from vaefast.report.summary import versions
from vaefast.report.tables import StageRow
from vaefast.report.words import number
from vaefast.runtime.durable import write_whole

__all__ = ["write_run_report"]

TEMPLATES = ("run.html.j2", "parts.html.j2")
LISTED = 40  # rows of a table
Read = Callable[[int], "Tensor | str"]


def write_run_report(
    table: str | os.PathLike[str],
    out: str | os.PathLike[str],
    facts: RunFacts,
    *,
    read: Read | None = None,
) -> RunNumbers:
    """Write the page of a run.

    Args:
        table: of all its rows, as ``vaefast.jobs.merge_shards`` writes it. It is read once, in
            memory that does not grow with it.
        out: the HTML file; an old one is replaced.
        facts: what the table does not say.
        read: gives an input [*event] by its index, in the box, or why it cannot be read; None
            where the data are not at hand. It is called for the inputs that are shown.

    Returns:
        The numbers of the page.

    Raises:
        OSError: the page cannot be written, or the table read.
    """
    numbers = scan(table)
    write_whole(Path(out), _render(numbers, facts, read).encode())
    return numbers


def _render(numbers: RunNumbers, facts: RunFacts, read: Read | None) -> str:
    folder = files("vaefast.report")
    sources = {name: (folder / name).read_text(encoding="utf-8") for name in TEMPLATES}
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=DictLoader(sources),
    )
    charts = [chart for chart in (curve(numbers, facts), class_chart(numbers, facts)) if chart]
    worst = _worst(numbers, facts, read)
    return environment.get_template("run.html.j2").render(
        style=(folder / "report.css").read_text(encoding="utf-8"),
        facts=facts,
        numbers=numbers,
        certified=sound(facts),
        radii=", ".join(f"{r:g}" for r in facts.r),
        tiles=tiles(numbers, facts),
        findings=findings(numbers, facts),
        charts=charts,
        worst=worst,
        pictures=any(picture.uri for picture in worst.pictures),
        without=_without_pictures(numbers, facts, read, worst),
        value_rows=_value_rows(numbers),
        class_rows=_class_rows(numbers, facts),
        failure_rows=_failure_rows(numbers.failures),
        note_rows=_failure_rows(numbers.notes),
        stage_rows=_stage_rows(facts.cost),
        hours=number(facts.cost.hours_per_million) if facts.cost else "",
        rate=human(facts.cost.rate) if facts.cost and facts.cost.rate else "",
        settings=_settings(facts),
        versions=versions(),
    )


def _worst(numbers: RunNumbers, facts: RunFacts, read: Read | None) -> Strip:
    """The worst inputs with their pictures, or without where there are none."""
    pictures = []
    for one in numbers.worst:
        image = read(one.index) if read is not None and facts.images else "no picture"
        uri = "" if isinstance(image, str) else data_uri(_unit(image, facts.box))
        said = f"input {one.index}: {number(one.value)}"
        if one.label is not None and one.label >= 0:
            name = class_name(one.label, facts.classes)
            said += f", {name}" if facts.classes else f", class {name}"
        pictures.append(Picture(uri, said, said))
    return Strip(_ranked(numbers), pictures)


def _unit(image: Tensor, box: tuple[float, float]) -> Tensor:
    low, high = box
    bounded = abs(low) != float("inf") and abs(high) != float("inf")
    return (image - low) / (high - low) if bounded else image


def _without_pictures(numbers: RunNumbers, facts: RunFacts, read: Read | None, worst: Strip) -> str:
    """Why there are no pictures, "" where there are some."""
    if not numbers.worst or any(picture.uri for picture in worst.pictures):
        return ""
    if not facts.images:
        return "The inputs are no images."
    why = "the data were not at hand when this page was written"
    if read is not None:
        found = read(numbers.worst[0].index)
        why = found if isinstance(found, str) else why
    return f"There are no pictures: {why}."


def _ranked(numbers: RunNumbers) -> str:
    column = numbers.columns.get(numbers.ranked)
    if column is None:
        return ""
    name = {"p_lower": "lower bound of the probability"}.get(column.name, column.name)
    return name + (f" at r = {column.r}" if column.r else "")


def _value_rows(numbers: RunNumbers) -> list[list[str]]:
    """Quartiles of every column of numbers."""
    return [
        [_title(column), *(number(_quantile(column, q)) for q in (0.0, 0.25, 0.5, 0.75, 1.0))]
        for column in numbers.columns.values()
        if column.spread.count
    ]


def _title(column: Measured) -> str:
    return column.name.replace("_", " ") + (f", r = {column.r}" if column.r else "")


def _quantile(column: Measured, q: float) -> float | None:
    found = column.spread.quantile(q)
    return None if found is None or abs(found) == float("inf") else found


def _class_rows(numbers: RunNumbers, facts: RunFacts) -> list[list[str]]:
    """Each class's inputs and quartiles, of the column that inputs are ranked by."""
    column = numbers.columns.get(numbers.ranked)
    if column is None:
        return []
    rows = []
    for label, spread in sorted(column.classes.items())[:LISTED]:
        cells = [number(spread.quantile(q)) for q in (0.25, 0.5, 0.75)]
        rows.append([class_name(label, facts.classes), str(spread.count), *cells])
    return rows


def _failure_rows(failures: list[Failure]) -> list[list[str]]:
    return [
        [
            failure.reason,
            str(failure.count),
            ", ".join(map(str, failure.first)) + (", …" if failure.count > EXAMPLES else ""),
        ]
        for failure in failures[:LISTED]
    ]


def _stage_rows(cost: Cost | None) -> list[StageRow]:
    if cost is None or not cost.seconds:
        return []
    total, longest = sum(cost.seconds.values()), max(cost.seconds.values())
    return [
        StageRow(
            name=name,
            seconds=f"{seconds:.1f} s",
            share=seconds / max(longest, 1e-9),
            inputs=f"{100 * seconds / max(total, 1e-9):.1f} %",
            work=f"{human(cost.rows / max(seconds, 1e-9))} inputs/s",
        )
        for name, seconds in sorted(cost.seconds.items(), key=lambda item: -item[1])
    ]


def _settings(facts: RunFacts) -> dict[str, Any]:
    """Plain words of every setting."""
    found = {}
    for name, value in facts.settings.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key}={item}" for key, item in value.items()) or "–"
        elif isinstance(value, list | tuple):
            value = ", ".join(map(str, value)) or "–"
        found[name] = "–" if value is None else value
    return found
