"""The tables of :mod:`vaefast.bench.sampler` in docs/performance.md."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable
from pathlib import Path

__all__ = ["SAMPLER", "sampler_table"]

Row = dict[str, str]

SAMPLER = Path("bench/results/sampler.csv")
CASE = re.compile(r"(?P<model>.+) B=(?P<rows>\d+) .*seed=(?P<seed>\d+) ")
HEAD = [
    "| decoder | rows | setting | seeds | seconds | effective draws/s | of z alone | median row "
    "| worst row | R-hat, worst |",
    "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|",
]


def sampler_table(rows: Iterable[Row]) -> list[str]:
    """One line a decoder and setting: medians over the seeds, of a row's worst all the seeds'."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if m := CASE.match(row["case"]):
            groups.setdefault((m["model"], m["rows"], row["provider"]), []).append(row)
    return [*HEAD, *(_line(*key, found) for key, found in groups.items())]


def _line(model: str, count: str, provider: str, rows: list[Row]) -> str:
    seconds, rate, alone, median = (
        statistics.median(float(row[name]) for row in rows)
        for name in ("seconds", "per_second", "per_second_z", "median_row")
    )
    worst = min(float(row["worst_row"]) for row in rows)
    r_hat = max(float(row["r_hat"]) for row in rows)
    cells = [model, count, provider, str(len(rows)), f"{seconds:.1f}", f"{rate:,.0f}"]
    cells += [f"{alone:,.0f}", f"{median:.0f}", f"{worst:.0f}", f"{r_hat:.3f}"]
    return f"| {' | '.join(cells)} |"
