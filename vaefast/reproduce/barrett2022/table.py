"""The numbers as a table: one row an input of a model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vaefast.reproduce.barrett2022.measure import Measured
from vaefast.reproduce.barrett2022.run import Reproduction
from vaefast.reproduce.numbers import csv_text, number

__all__ = ["as_csv"]

KEYS = (
    *("norm", "certified_fixed", "attacked_fixed", "certified_two", "attacked_two", "theorem"),
    "published",
)
INSIDE = ("fixed", "two", "damage")
COLUMNS = (
    *("data", "group", "level", "elbo", "squared_error", "a", "b", "c", "std_norm", "input"),
    *KEYS,
    *(f"inside_{name}" for name in INSIDE),
)


def as_csv(found: Reproduction) -> str:
    """Header and rows; the same bytes for the same numbers."""
    return csv_text(COLUMNS, (row for model in found.models for row in _rows(found.data, model)))


def _rows(data: str, model: Measured) -> Iterator[list[str]]:
    own = [number(float(value.mean())) for value in (model.elbo, model.error)]
    own += [number(float(value)) for value in model.constants]
    for index in range(len(model.norm)):
        yield [
            *(data, model.plan.group, f"{model.plan.level:g}", *own, str(index)),
            *(number(float(getattr(model, key)[index])) for key in KEYS),
            *(number(value) for value in _inside(model, index)),
        ]


def _inside(model: Measured, index: int) -> list[float]:
    """The least probabilities and the largest damage over the attacks within the radius."""
    if not len(model.inside_fixed):
        return [float("nan")] * len(INSIDE)
    worst = model.inside_fixed.min(0), model.inside_two.min(0), np.max(model.inside_damage, 0)
    return [float(value[index]) for value in worst]
