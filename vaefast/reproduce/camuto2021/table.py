"""The numbers as a table: one row an input of a model."""

from __future__ import annotations

from collections.abc import Iterator

from vaefast.reproduce.camuto2021.measure import Measured
from vaefast.reproduce.camuto2021.run import Reproduction
from vaefast.reproduce.numbers import csv_text, number

__all__ = ["as_csv"]

KEYS = ("std", "jacobian", "p_lower", "first_order", "whitened", "attacked", "degradation")
COLUMNS = ("data", "model", "beta", "validation_loss", "input", *KEYS)


def as_csv(found: Reproduction) -> str:
    """Header and rows; the same bytes for the same numbers."""
    return csv_text(COLUMNS, (row for model in found.models for row in _rows(found.data, model)))


def _rows(data: str, model: Measured) -> Iterator[list[str]]:
    for index in range(len(model.std)):
        yield [
            *(data, model.plan.name, f"{model.plan.beta:g}", number(model.loss), str(index)),
            *(number(float(getattr(model, key)[index])) for key in KEYS),
        ]
