"""Means with their errors, and tables of them as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Estimate", "csv_text", "estimate", "number", "plus_minus"]


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


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Header and rows; the same bytes for the same numbers."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return stream.getvalue()


def number(value: float) -> str:
    """Six digits; "" of NaN."""
    return "" if math.isnan(value) else f"{value:.6g}"


def plus_minus(value: Estimate, times: float, digits: int) -> str:
    """``0.712 ± 0.02``, mean and standard error."""
    if math.isnan(value.mean):
        return "–"
    mean = f"{times * value.mean:.{digits}f}"
    if math.isnan(value.std_error):
        return mean
    return f"{mean} ± {times * value.std_error:.{digits or 1}f}"
