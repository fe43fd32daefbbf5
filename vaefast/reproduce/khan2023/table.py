"""The numbers as a table: one row a model, means over the inputs with their standard errors."""

from __future__ import annotations

import numpy as np

from vaefast.reproduce.khan2023.measure import Measured
from vaefast.reproduce.khan2023.run import Reproduction
from vaefast.reproduce.numbers import csv_text, estimate, number

__all__ = ["as_csv"]

MEANS = ("entropy_max", "entropy_density", "sigma", "error", "along", "strongest")
COLUMNS = (
    *("data", "model", "beta", "validation_loss", "median_radius"),
    *(f"{name}{suffix}" for name in MEANS for suffix in ("", "_std_error")),
    *("curve_top_s1", "curve_top_s10", "curve_fifth_s10", "inputs", "attacked"),
)


def as_csv(found: Reproduction) -> str:
    """Header and rows; the same bytes for the same numbers."""
    return csv_text(COLUMNS, (_row(found.data, model) for model in found.models))


def _row(data: str, model: Measured) -> list[str]:
    one = int(np.abs(model.scales - 1.0).argmin())
    curves = model.curves[0, one], model.curves[0, -1], model.curves[-1, -1]
    return [
        *(data, model.plan.name, f"{model.plan.beta:g}", number(model.loss)),
        number(float(np.nanmedian(model.radius))),
        *(number(value) for name in MEANS for value in estimate(getattr(model, name))),
        *(number(float(value)) for value in curves),
        *(str(len(model.radius)), str(len(model.strongest))),
    ]
