"""The table of :mod:`vaefast.bench.generic` in docs/performance.md."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["GENERIC", "WITHIN", "generic_table"]

Row = dict[str, str]

GENERIC = Path("bench/results/generic.csv")
WITHIN = 1.1  # times the best loop
CASE = re.compile(r"(?P<call>\S+) B=(?P<rows>\d+) (?P<amount>\S+) ")
COLUMNS: dict[str, Callable[[str], bool]] = {
    "vaefast": lambda name: name == "vaefast",
    "vaefast, compiled": lambda name: name.startswith("vaefast,"),
    "eager": lambda name: name.startswith("eager") and "channels last" not in name,
    "eager, channels last": lambda name: name.startswith("eager, channels last"),
    "torch.compile": lambda name: name.startswith("torch.compile"),
}
HEAD = [
    f"| call | rows | amount | {' | '.join(COLUMNS)} | ours / best eager |",
    "|---|---:|---|" + (len(COLUMNS) + 1) * "---:|",
]


def generic_table(cases: Iterable[list[Row]]) -> list[str]:
    """One line a case; bold where ours is within 1.1 times the best of eager PyTorch."""
    named = [(CASE.match(rows[0]["case"]), rows) for rows in cases]
    lines = [(m["call"], int(m["rows"]), _line(m, rows)) for m, rows in named if m]
    return [*HEAD, *(line for *_, line in sorted(lines))]


def _line(case: re.Match[str], rows: list[Row]) -> str:
    found = {column: _fastest(rows, of) for column, of in COLUMNS.items()}
    ours = found["vaefast"] or math.nan
    best = min(us for us in (found["eager"], found["eager, channels last"]) if us)
    ratio = f"{ours / best:.2f}"
    ratio = f"**{ratio}**" if ours <= WITHIN * best else ratio
    cells = [f"`{case['call']}`", case["rows"], case["amount"], *map(_ms, found.values()), ratio]
    return f"| {' | '.join(cells)} |"


def _fastest(rows: list[Row], of: Callable[[str], bool]) -> float | None:
    """Microseconds, None where it was not measured."""
    return min((float(row["median_us"]) for row in rows if of(row["provider"])), default=None)


def _ms(us: float | None) -> str:
    return "" if us is None else f"{us / 1000:,.0f}" if us >= 1e5 else f"{us / 1000:.3g}"
