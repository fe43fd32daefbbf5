"""What the sentences and the page both read off the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from vaefast.reproduce.barrett2022.measure import EVENTS, Measured
from vaefast.reproduce.barrett2022.settings import Settings

__all__ = ["Above", "above", "broken", "capped", "larger", "middle", "rank"]

LEVEL = 0.05  # of the sign test
ALPHA = 1e-3  # error probability of calling an input broken at one point, as in the search


class Above(NamedTuple):
    """Where a certified margin exceeds what an attack leaves.

    Args:
        exceeded, points: at how many, of how many.
        share: the median share of that margin that is certified, where an attack broke it.
    """

    exceeded: int
    points: int
    share: float


def above(models: Sequence[Measured], event: str) -> Above:
    """Of the event "fixed" or "two"; a point that no attack broke is none that a bound exceeds."""
    pairs = [(getattr(m, f"certified_{event}"), getattr(m, f"attacked_{event}")) for m in models]
    certified, attacked = (np.concatenate(values) for values in zip(*pairs, strict=True))
    ratios = certified[np.isfinite(attacked) & (attacked > 0)]
    ratios = ratios / attacked[np.isfinite(attacked) & (attacked > 0)]
    share = float(np.median(ratios)) if len(ratios) else math.nan
    return Above(int((certified > attacked).sum()), len(certified), share)


def rank(models: Sequence[Measured], number: Callable[[Measured], float]) -> float:
    """Spearman's correlation of the level and a number of each model; NaN of constants."""
    values = [number(model) for model in models]
    if len({*values}) < 2:
        return math.nan
    return float(stats.spearmanr([model.plan.level for model in models], values).statistic)


def middle(values: np.ndarray) -> float:
    """The median; infinite where no attack broke half of the points."""
    return float(np.median(values))


def capped(model: Measured, event: str, settings: Settings) -> np.ndarray:
    """Margins that an attack leaves [B]; what none broke counts as the end of the search."""
    found: np.ndarray = np.minimum(getattr(model, f"attacked_{event}"), settings.r_max)
    return found


def larger(one: np.ndarray, other: np.ndarray) -> int:
    """1 or −1 where most inputs' margins [B] are larger or smaller, by a sign test, else 0.

    Of infinite margins too, which no mean can compare; inputs with equal ones are left out.
    """
    above, below = int((one > other).sum()), int((one < other).sum())
    if above + below == 0 or stats.binomtest(above, above + below).pvalue > LEVEL:
        return 0
    return 1 if above > below else -1


def broken(model: Measured, event: str, settings: Settings) -> np.ndarray:
    """[A, B] bool: so few draws within r have a probability of at most α for P = ½."""
    assert event in EVENTS
    hits = np.rint(getattr(model, f"inside_{event}") * settings.samples)
    found: np.ndarray = special.bdtr(hits, settings.samples, 0.5) <= ALPHA
    return found
