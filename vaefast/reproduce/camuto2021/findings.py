"""What holds and what does not, in sentences made from the numbers alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from vaefast.reproduce.camuto2021.measure import Measured
from vaefast.reproduce.camuto2021.run import Reproduction
from vaefast.reproduce.sentences import joined

__all__ = ["TERMS", "findings", "rank"]

BOUNDS = {"first_order": "published", "whitened": "whitened"}
Number = Callable[[Measured], float]
TERMS: dict[str, tuple[Number, int]] = {  # with the sign of the claim
    "min σ": (lambda m: float(np.nanmean(m.std)), 1),
    "‖J_μ‖_F": (lambda m: float(np.nanmean(m.jacobian)), -1),
    "the bound": (lambda m: float(np.nanmean(m.first_order)), 1),
    "the attack's margin": (lambda m: _median(m.attacked), 1),
}


def findings(found: Reproduction) -> list[str]:
    """The paragraph, a sentence each; the published claims and their verdicts come last."""
    above = {key: _above(found, key) for key in BOUNDS}
    with_beta = {name: _with_beta(found, number) for name, (number, _) in TERMS.items()}
    falls = [rank(m.attacked, m.degradation) for m in found.models]
    said = [found.note] if found.note else []
    said += [_said_above(found, key, *above[key]) for key in BOUNDS]
    said += [
        _abstained(found),
        f"Over the models, Spearman's correlation of β with {_listed(with_beta)}.",
        "Within a model, that of the attack's margin with the degradation of likelihood is "
        f"{_span(falls)}.",
    ]
    return [*said, _claims(above["first_order"], with_beta, falls)]


def rank(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation where both are finite; NaN of fewer than three or of constants."""
    good = np.isfinite(a) & np.isfinite(b)
    if good.sum() < 3 or len({*a[good]}) < 2 or len({*b[good]}) < 2:
        return math.nan
    return float(stats.spearmanr(a[good], b[good]).statistic)


def _median(values: np.ndarray) -> float:
    """Where no attack broke half of the points it is infinite."""
    kept = values[~np.isnan(values)]
    return float(np.median(kept)) if len(kept) else math.nan


def _with_beta(found: Reproduction, number: Number) -> float:
    return rank(
        np.array([m.plan.beta for m in found.models]), np.array([number(m) for m in found.models])
    )


def _above(found: Reproduction, key: str) -> tuple[int, int, float]:
    """At how many points the bound lies above the attack's margin, of how many, and their ratio."""
    ratios = np.concatenate(
        [getattr(m, key)[m.known] / m.attacked[m.known] for m in found.models] or [np.empty(0)]
    )
    middle = float(np.median(ratios)) if len(ratios) else math.nan
    return int((ratios > 1.0).sum()), len(ratios), middle


def _said_above(found: Reproduction, key: str, count: int, total: int, ratio: float) -> str:
    return (
        f"The {BOUNDS[key]} bound lies above the margin that an attack leaves at {count} of "
        f"{total} points; its median share of that margin is {ratio:.2f}."
    )


def _abstained(found: Reproduction) -> str:
    none = sum(int((m.first_order == 0).sum()) for m in found.models)
    unbroken = sum(int(np.isinf(m.attacked).sum()) for m in found.models)
    total = sum(len(m.attacked) for m in found.models)
    return (
        f"Of {total} points {none} have no bound (P at the point itself is not above ½) and "
        f"{unbroken} were not broken by any attack; they are left out."
    )


def _listed(found: dict[str, float]) -> str:
    return joined([f"{name}: {value:.2f}" for name, value in found.items()])


def _span(values: list[float]) -> str:
    known = [value for value in values if not math.isnan(value)]
    return f"{min(known):.2f} to {max(known):.2f}" if known else "unknown"


def _claims(above: tuple[int, int, float], with_beta: dict[str, float], falls: list[float]) -> str:
    moved = [sign * with_beta[name] > 0.5 for name, (_, sign) in TERMS.items()]
    trend = "holds" if all(moved) else "holds in part" if any(moved) else "does not hold"
    known = [value for value in falls if not math.isnan(value)]
    fewer = "undecided" if not known else "holds" if max(known) < 0 else "holds in part"
    if known and min(known) >= 0:
        fewer = "does not hold"
    lower = "undecided" if not above[1] else "holds" if not above[0] else "does not hold"
    return (
        "Of the published claims: the bound is below the estimated margin at every point: "
        f"{lower}; a larger β has a larger min σ, a smaller ‖J_μ‖_F and larger margins: {trend}; "
        f"likelihood degrades less where the margin is larger: {fewer}."
    )
