"""What holds and what does not, in sentences made from the numbers alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from vaefast.reproduce.khan2023.measure import Measured
from vaefast.reproduce.khan2023.run import Reproduction
from vaefast.reproduce.sentences import difference, joined

__all__ = ["SCORES", "findings", "rank_correlation"]

PUBLISHED = -0.9  # Spearman's correlation of β with each score, at most
Number = Callable[[Measured], float]
SCORES: dict[str, Number] = {
    "the median λ_max": lambda m: float(np.nanmedian(m.radius)),
    "the mean entropy (over λ_max)": lambda m: float(np.nanmean(m.entropy_max)),
    "the mean entropy (over the trace)": lambda m: float(np.nanmean(m.entropy_density)),
}
DAMAGES: dict[str, Number] = {
    "the error at s = 10 along the top direction": lambda m: float(m.curves[0, -1]),
    "the damage of a step along the top direction": lambda m: float(np.nanmean(m.along)),
    "that of the strongest attack": lambda m: float(np.nanmean(m.strongest)),
}


def findings(found: Reproduction) -> list[str]:
    """The paragraph, a sentence each; the published claims and their verdicts come last."""
    scores = {name: rank_correlation(found.raised, number) for name, number in SCORES.items()}
    damages = {name: rank_correlation(found.raised, number) for name, number in DAMAGES.items()}
    said = [found.note] if found.note else []
    said += [
        f"Spearman's correlation of β with {_listed(scores)}.",
        f"With {_listed(damages)}.",
        _by_input(found.raised),
        _share(found),
    ]
    against, lowers = _mixup(found)
    return [*said, *against, _claims(scores, damages, lowers)]


def rank_correlation(models: Sequence[Measured], number: Number) -> float:
    """Spearman's, of β and a number of each model; NaN where it does not vary."""
    values = [number(model) for model in models]
    if len({*values}) < 2:
        return math.nan
    return float(stats.spearmanr([model.plan.beta for model in models], values).statistic)


def _listed(found: dict[str, float]) -> str:
    return joined([f"{name}: {value:.2f}" for name, value in found.items()])


def _by_input(models: Sequence[Measured]) -> str:
    """Within a model, whether the inputs with the larger scores are those that an attack moves."""
    each = [
        float(stats.spearmanr(m.radius[: len(m.strongest)], m.strongest, nan_policy="omit")[0])
        for m in models
    ]
    low, high = min(each), max(each)
    return (
        "Within one model, the correlation of an input's λ_max with the damage of the strongest "
        f"attack on it is {low:.2f} to {high:.2f}."
    )


def _share(found: Reproduction) -> str:
    shares = [float(np.nanmean(m.along) / np.nanmean(m.strongest)) for m in found.models]
    return (
        "A step along the top direction does "
        f"{100 * min(shares):.0f} to {100 * max(shares):.0f} % of the damage of the strongest "
        "attack of the same length."
    )


def _mixup(found: Reproduction) -> tuple[list[str], dict[str, bool]]:
    """Mixup beside β = 1, paired by input, and beside the β that is as robust."""
    mix, plain = found.mixup, found.plain
    lowers, parts = {}, []
    for name, key, digits in (
        ("λ_max", "radius", 3),
        ("the strongest attack's damage", "strongest", 2),
        ("the reconstruction's error", "error", 5),
    ):
        change = difference(name, getattr(mix, key), getattr(plain, key))
        lowers[key] = change.sign < 0
        verb = {1: "raises", 0: "does not change", -1: "lowers"}[change.sign]
        size = f" by {abs(change.mean):.{digits}f}" if change.sign else ""
        parts.append(f"{verb} {name}{size} (from {np.nanmean(getattr(plain, key)):.{digits}f})")
    said = [f"At β = 1 mixup {joined(parts)}."]
    as_robust = [m for m in found.raised if np.nanmean(m.strongest) <= np.nanmean(mix.strongest)]
    if not as_robust:
        said.append("No β of the grid reaches mixup's damage.")
        lowers["no β"] = True
    else:
        first = min(as_robust, key=lambda m: m.plan.beta)
        change = difference("error", mix.error, first.error)
        lowers["beats β"] = change.sign < 0
        verb = {1: "worse", 0: "no better", -1: "better"}[change.sign]
        said.append(
            f"The smallest β with a damage as small is {first.plan.beta:g}, whose reconstruction "
            f"mixup's is {verb} than (error {np.nanmean(mix.error):.5f} against "
            f"{np.nanmean(first.error):.5f})."
        )
    return said, lowers


def _claims(scores: dict[str, float], damages: dict[str, float], mixup: dict[str, bool]) -> str:
    def held(values: dict[str, float]) -> str:
        good = [value <= PUBLISHED for value in values.values()]
        return "holds" if all(good) else "holds in part" if any(good) else "does not hold"

    protects = mixup["radius"] and mixup["strongest"]
    better = "holds" if mixup.get("beats β") else "does not hold"
    better = "undecided, no β is" if mixup.get("no β") else better
    return (
        f"Of the published claims: scores fall with β (correlation at most {PUBLISHED:g}): "
        f"{held(scores)}; damage falls with β: {held(damages)}; mixup lowers λ_max and damage: "
        f"{'holds' if protects else 'does not hold'}; it reconstructs better than the β that is as "
        f"robust: {better}."
    )
