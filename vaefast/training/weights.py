"""Checks of the numbers that objectives are made with."""

from __future__ import annotations

import math

from vaefast import checks

__all__ = ["check_positive", "check_share", "check_weight"]


def check_weight(value: float, name: str = "beta") -> float:
    """A weight of a term of the loss: finite, at least 0."""
    if not 0.0 <= checks.number(value, name) < math.inf:
        raise ValueError(f"{name} must be at least 0 and finite, got {value:g}")
    return float(value)


def check_positive(value: float, name: str) -> float:
    """Finite, above 0."""
    if not 0.0 < checks.number(value, name) < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value:g}")
    return float(value)


def check_share(value: float, name: str) -> float:
    """Within [0, 1]."""
    if not 0.0 <= checks.number(value, name) <= 1.0:
        raise ValueError(f"{name} must be in [0, 1], got {value:g}")
    return float(value)
