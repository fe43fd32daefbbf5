"""The grid as a table: one row a cell, means over the references with their standard errors."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from typing import NamedTuple

import numpy as np

from vaefast.reproduce.cells import Cell
from vaefast.reproduce.run import Reproduction

__all__ = ["METRICS", "Estimate", "as_csv", "estimate", "found_by"]

METRICS = ("msssim", "same")  # fields of a cell; "same" is adversarial accuracy
COLUMNS = (
    *("data", "model", "radius", "attack", "defence"),
    *("msssim", "msssim_std_error", "accuracy", "accuracy_std_error"),
    *("accept_rate", "found_by", "references", "restarts", "failed"),
)


class Estimate(NamedTuple):
    """A mean over references and its standard error, NaN where there are too few."""

    mean: float
    std_error: float


def estimate(values: np.ndarray) -> Estimate:
    """Of one value per reference [B]; those that are NaN are left out."""
    values = values[~np.isnan(values)]
    mean = float(values.mean()) if len(values) else math.nan
    error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return Estimate(mean, error)


def as_csv(found: Reproduction) -> str:
    """Header and rows; the same bytes for the same numbers."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for cell in found.cells:
        writer.writerow(_row(found.data, cell))
    return stream.getvalue()


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
        *(_number(value) for pair in numbers for value in pair),
        *(_number(rate), found_by(cell), str(references), str(restarts), str(cell.failed)),
    ]


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
