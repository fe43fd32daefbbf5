"""The grid as a table: one row a cell, means over the references with their standard errors."""

from __future__ import annotations

import math
from collections import Counter

from vaefast.reproduce.kuzina2022.cells import Cell
from vaefast.reproduce.kuzina2022.run import Reproduction
from vaefast.reproduce.numbers import csv_text, estimate, number

__all__ = ["METRICS", "as_csv", "found_by"]

METRICS = ("msssim", "same", "sampled")  # fields of a cell; the others are adversarial accuracy
COLUMNS = (
    *("data", "model", "radius", "attack", "defence"),
    *("msssim", "msssim_std_error", "accuracy", "accuracy_std_error"),
    *("accuracy_of_sample", "accuracy_of_sample_std_error"),
    *("accept_rate", "found_by", "references", "restarts", "failed"),
)


def as_csv(found: Reproduction) -> str:
    """Header and rows; the same bytes for the same numbers."""
    return csv_text(COLUMNS, (_row(found.data, cell) for cell in found.cells))


def found_by(cell: Cell) -> str:
    """``chain 4, published 6``: what found the points of an adaptive attack; "" of others."""
    counts = Counter(cell.facts.get("found_by", ()))
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _row(data: str, cell: Cell) -> list[str]:
    numbers = [estimate(cell.per_reference(metric)) for metric in METRICS]
    rate = cell.facts.get("accept_rate", math.nan)
    references, restarts = cell.msssim.shape
    return [
        *(data, cell.model, f"{cell.radius:g}", cell.attack, cell.defence),
        *(number(value) for pair in numbers for value in pair),
        *(number(rate), found_by(cell), str(references), str(restarts), str(cell.failed)),
    ]
