"""The table of :mod:`vaefast.bench.integrations` in docs/integrations.md."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["INTEGRATIONS", "integrations_table"]

Row = dict[str, str]

INTEGRATIONS = Path("bench/results/integrations.csv")
WITHIN = 1.05  # a difference that counts
HEAD = [
    "| whole attack or chain | work | ours, ms | the library's, ms | times as fast |",
    "|---|---|---:|---:|---:|",
]


def integrations_table(cases: Iterable[list[Row]]) -> list[str]:
    """One line a case, bold where ours is faster by what counts."""
    return [*HEAD, *(_line(rows) for rows in cases)]


def _line(rows: list[Row]) -> str:
    ours, theirs = (float(row["median_us"]) / 1000 for row in rows[:2])
    name, work = rows[0]["case"].removesuffix(" float32 cpu").split(" ", 1)
    if work.startswith(("linf", "l2")):
        norm, work = work.split(" ", 1)
        name = f"{name}, {norm}"
    gain = f"{theirs / ours:.2f}"
    gain = f"**{gain}**" if theirs > WITHIN * ours else gain
    return f"| {name} | {work} | {_ms(ours)} | {_ms(theirs)} | {gain} |"


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
