"""Sentences that are made from numbers alone: how often something rises and falls, how far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

__all__ = ["Difference", "Metric", "difference", "joined", "sentence", "verdict"]

LEVEL = 0.95


class Metric(NamedTuple):
    """How a quantity is named and said.

    Args:
        noun: ``"MSSSIM"``.
        points: whether it is a share, said in percentage points.
        digits: after the decimal point, of one that is not.
    """

    noun: str
    points: bool = False
    digits: int = 3

    def said(self, value: float) -> str:
        """A difference in it."""
        if math.isnan(value):
            return "unknown"
        return f"{100 * value:.0f} points" if self.points else f"{value:.{self.digits}f}"

    def span(self, low: float, high: float) -> str:
        """``0.02 to 0.1``, or the one that both are."""
        ends = [self.said(value) for value in (low, high)]
        if ends[0] == ends[1]:
            return ends[0]
        return f"{ends[0].removesuffix(' points')} to {ends[1]}"


class Difference(NamedTuple):
    """A mean difference over the references, paired.

    Args:
        label: which cell.
        mean: the mean.
        error: half width of its 95 % interval (Student's t); NaN of fewer than two references.
    """

    label: str
    mean: float
    error: float

    @property
    def sign(self) -> int:
        """1 or −1 where the interval leaves out 0, else 0."""
        if math.isnan(self.error) or abs(self.mean) <= self.error:
            return 0
        return 1 if self.mean > 0 else -1


def difference(label: str, after: np.ndarray, before: np.ndarray) -> Difference:
    """Of two values per reference [B] each; references with a NaN are left out."""
    each = (after - before)[~np.isnan(after - before)]
    if len(each) < 2:
        return Difference(label, float(each.mean()) if len(each) else math.nan, math.nan)
    quantile = float(stats.t.ppf(0.5 + LEVEL / 2, len(each) - 1))
    return Difference(
        label, float(each.mean()), quantile * float(each.std(ddof=1)) / math.sqrt(len(each))
    )


def sentence(subject: str, metric: Metric, found: Sequence[Difference], where: str = "cell") -> str:
    """How often ``subject`` raises and lowers the metric, and by how much.

    ``HMC raises MSSSIM in 4 of 6 cells (by 0.02 to 0.1), lowers it in 1 (by 0.03) and shows no
    difference beyond the error in 1.``
    """
    name, total = metric.noun, f"{len(found)} {where}{'s' if len(found) > 1 else ''}"
    groups = {sign: [d for d in found if d.sign == sign] for sign in (1, -1, 0)}
    if len(groups[0]) == len(found):
        largest = max((abs(d.mean) for d in found if not math.isnan(d.mean)), default=math.nan)
        return (
            f"{subject} shows no difference in {name} beyond the error in any of {total} (at most "
            f"{metric.said(largest)})."
        )
    parts, noun, of = [], name, f" of {total}"
    for sign, verb in ((1, "raises"), (-1, "lowers")):
        if groups[sign]:
            sizes = [abs(d.mean) for d in groups[sign]]
            span = f"by {metric.span(min(sizes), max(sizes))}"
            cells = "" if sign > 0 or len(groups[sign]) == len(found) else _named(groups[sign])
            parts.append(f"{verb} {noun} in {len(groups[sign])}{of} ({span}{cells})")
            noun, of = "it", ""
    if groups[0]:
        parts.append(f"shows no difference beyond the error in {len(groups[0])}")
    return f"{subject} {joined(parts)}."


def verdict(found: Sequence[Difference]) -> str:
    """Of the claim that every difference is above 0.

    ``"holds"``, ``"holds in part"`` (none is below), ``"mixed"``, ``"does not hold"`` (none is
    above and some are below) or ``"undecided"``.
    """
    signs = [d.sign for d in found]
    if not signs or not any(signs):
        return "undecided"
    if all(sign > 0 for sign in signs):
        return "holds"
    if any(sign > 0 for sign in signs):
        return "mixed" if any(sign < 0 for sign in signs) else "holds in part"
    return "does not hold"


def _named(found: Sequence[Difference]) -> str:
    return f"; {', '.join(d.label for d in found)}"


def joined(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
