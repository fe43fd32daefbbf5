"""The aggregate numbers of an audit: plain values that summary.json and the page share."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from vaefast.audit.ordering import compared
from vaefast.audit.run import Audit, Outcome

__all__ = ["aggregate"]

NOT_AGGREGATED = {"index", "label", "failed", "predicted", "predicted_defended"} | {
    "clean_predicted_defended",
    "margin_abstain",
    "margin_empirical",
}
Numbers = dict[str, Any]


def aggregate(audit: Audit) -> Numbers:
    """Means, quartiles, accuracies and the rank correlation of margin and degradation.

    Failed rows are left out: of everything if the clean input failed, else of their attack only.
    """
    good = ~audit.values["failed"]
    numbers: Numbers = {
        "inputs": len(good),
        "failed": int((~good).sum()),
        "abstained": int(audit.values["margin_abstain"][good].sum()),
        "images": audit.images,
        "measure": audit.measure,
        "r": audit.r,
        "guarantee": str(audit.guarantee),
        "certified": _certified(audit, good),
        "form": audit.form,
        "certificate": None if audit.certificate is None else str(audit.certificate),
        "empirical": compared({name: v[good] for name, v in audit.values.items()}),
        "variance_explained": variance_explained(
            audit.x.flatten(1).double().cpu().numpy()[good],
            audit.values["reconstruction_error"][good],
        ),
        "clean": _summaries(audit.values, good),
        "attacks": {o.plan.name: _attack(audit, o, good) for o in audit.outcomes},
        "median_eigenvalues": _floats(np.median(audit.eigenvalues[good], axis=0))
        if good.any()
        else [],
    }
    if audit.has_labels:
        numbers["clean"] |= _accuracies(audit, audit.values, "clean_predicted_defended", good)
        numbers["clean"].pop("accuracy")  # 1 by its definition
    return numbers


def _certified(audit: Audit, good: np.ndarray) -> int:
    """Of how many inputs there is a certified margin, 0 among them."""
    certified = audit.values.get("margin_certified")
    return 0 if certified is None else int((good & ~np.isnan(certified)).sum())


def _attack(audit: Audit, outcome: Outcome, good: np.ndarray) -> Numbers:
    good = good & ~outcome.values["failed"]
    plan = outcome.plan
    rho, p_value = spearman(
        audit.values["margin_whitened"][good], outcome.values["likelihood_degradation"][good]
    )
    numbers: Numbers = {
        "attack": plan.attack,
        "norm": plan.norm,
        "eps": plan.eps,
        "radius": plan.radius,
        "failed": int(outcome.values["failed"].sum()),
        **_summaries(outcome.values, good),
        "spearman_margin_degradation": rho,
        "spearman_p_value": p_value,
    }
    if audit.has_labels:
        numbers |= _accuracies(audit, outcome.values, "predicted_defended", good)
    return numbers


def _accuracies(
    audit: Audit, values: dict[str, np.ndarray], defended: str, good: np.ndarray
) -> Numbers:
    """Shares of the inputs whose class is the one predicted for the clean input, and the label."""
    reference, label = audit.values["predicted"], audit.values["label"]
    return {
        "accuracy": share((values["predicted"] == reference)[good]),
        "accuracy_defended": share((values[defended] == reference)[good]),
        "label_accuracy": share((values["predicted"] == label)[good]),
        "label_accuracy_defended": share((values[defended] == label)[good]),
    }


def _summaries(values: dict[str, np.ndarray], good: np.ndarray) -> Numbers:
    found = {
        name: summary(column[good]) for name, column in values.items() if name not in NOT_AGGREGATED
    }
    if (certified := values.get("margin_certified")) is not None:
        found["margin_certified"] = summary(certified[good & ~np.isnan(certified)])
    return found


def summary(values: np.ndarray) -> Numbers | None:
    """Mean, its standard error and the quartiles; None of nothing."""
    if not len(values):
        return None
    with np.errstate(invalid="ignore"):  # infinite margins
        low, median, high = _floats(np.quantile(values, (0.25, 0.5, 0.75)))
        error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    mean = float(np.mean(values))
    return {"mean": mean, "std_error": error, "median": median, "q25": low, "q75": high}


def share(hits: np.ndarray) -> Numbers | None:
    """A share with its 95 % Clopper-Pearson interval; None of nothing."""
    if not len(hits):
        return None
    test = stats.binomtest(int(hits.sum()), len(hits))
    interval = test.proportion_ci(confidence_level=0.95, method="exact")
    return {"mean": float(hits.mean()), "interval": _floats([interval.low, interval.high])}


def spearman(a: np.ndarray, b: np.ndarray) -> tuple[float | None, float | None]:
    """Rank correlation and its p-value; None for under three pairs or a constant side."""
    if len(a) < 3 or len(np.unique(a)) == 1 or len(np.unique(b)) == 1:
        return None, None
    found = stats.spearmanr(a, b)
    return float(found.statistic), float(found.pvalue)


def variance_explained(x: np.ndarray, error: np.ndarray) -> float | None:
    """1 − Σ‖x − g(μ(x))‖² / Σ‖x − x̄‖², x̄ the mean image; None where the inputs do not vary.

    Args:
        x: [B, D] inputs.
        error: [B], ‖x − g(μ(x))‖₂.
    """
    spread = float(np.square(x - x.mean(axis=0)).sum()) if len(x) else 0.0
    return 1.0 - float(np.square(error).sum()) / spread if spread > 0 else None


def _floats(values: Any) -> list[float]:
    return [float(value) for value in values]
