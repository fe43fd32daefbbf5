"""Statements about several things at once: radii from one set of draws, and lists of inputs.

Of S distances ‖Δ‖ that were drawn at an input, F is the law and F̂(r) = k/S the share within r.
Which lower bound of F(r) holds depends on where r came from:

    m radii fixed before the draws   BetaInv(α/m; k, S − k + 1) at each         simultaneous_bounds
    r = ‖Δ‖_(k), k fixed before      BetaInv(α; k, S − k + 1)                   order_statistics
    any r, chosen after a look       F̂(r) − √(ln(1/α)/(2S))                     band

Of n inputs, those that a test rejects by Holm's procedure are all right with probability 1 − α.
Source: mathematics.md 8.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import special
from torch import Tensor

from vaefast import checks
from vaefast.certify.probability import check_alpha, clopper_pearson, lower_bound

__all__ = [
    "OrderStatistics",
    "band",
    "band_width",
    "binomial_p_values",
    "holm",
    "order_statistics",
    "simultaneous_bounds",
]


class OrderStatistics(NamedTuple):
    """Radii that are order statistics, and what each is known to hold.

    Args:
        r: [B, m] float64; infinite where that many draws were not finite.
        p_lower: [m] float64, at most F(r) of each input, for all m together.
    """

    r: Tensor
    p_lower: Tensor


def simultaneous_bounds(hits: Tensor, samples: int, alpha: float) -> Tensor:
    """Lower bounds of P(‖Δ‖ ≤ r) at m radii from the same draws, all right together.

        BetaInv(alpha/m; k, S − k + 1), and 0 for k = 0

    The radii have to be fixed before the draws; of those that are not, :func:`band`.

    Args:
        hits: [B, m] int64, draws within each radius, 0 to ``samples``.
        samples: S.
        alpha: in (0, 1), per input, of the statement about all of its m radii.

    Returns:
        [B, m] float64.

    Raises:
        TypeError: hits or samples are no whole numbers.
        ValueError: another shape, hits outside of 0 to ``samples``, ``alpha`` outside (0, 1).

    Source: Clopper, Pearson 1934; Bonferroni; mathematics.md 8.1. Tip: radii are cheap. At alpha =
    0.001, where all draws stay near, sixteen take 1.4 times the draws of one for the same bound.
    """
    checks.tensor(hits, "hits")
    if hits.ndim != 2:
        raise ValueError(f"hits must be [B, m], got {list(hits.shape)}")
    check_alpha(alpha)
    return clopper_pearson(hits, samples, alpha / max(1, hits.shape[1]))


def order_statistics(distances: Tensor, rank: int | Sequence[int], alpha: float) -> OrderStatistics:
    """Radii that are the k-th smallest of an input's own draws, with what F is there at least.

        r = ‖Δ‖_(k),  P(F(r) < BetaInv(alpha/m; k, S − k + 1)) ≤ alpha/m

    F(‖Δ‖_(k)) is Beta(k, S − k + 1) or larger whatever the law. The ranks have to be fixed before
    the draws: one that is chosen by a look at them, so that r has a wanted size, says nothing.

    Args:
        distances: [B, S], of the draws; NaN counts as infinite.
        rank: k, or m of them, 1 to S.
        alpha: in (0, 1), per input, of the statement about all m ranks.

    Returns:
        :class:`OrderStatistics`.

    Raises:
        TypeError: a rank that is no whole number.
        ValueError: another shape, a rank outside of 1 to S, ``alpha`` outside (0, 1).

    Source: Wilks 1941; mathematics.md 8.1. Tip: of another rank per input, that its ball needs,
    :func:`distance`.
    """
    ordered = _ordered(distances)
    samples = ordered.shape[1]
    ranks = [checks.count(k, "rank") for k in ([rank] if isinstance(rank, int) else rank)]
    if not ranks or max(ranks) > samples:
        raise ValueError(f"rank must be 1 to the {samples} draws, got {ranks}")
    at = torch.tensor(ranks, dtype=torch.int64, device=ordered.device)
    level = check_alpha(alpha) / len(ranks)
    return OrderStatistics(ordered[:, at - 1], lower_bound(at, samples, level))


def band_width(samples: int, alpha: float) -> float:
    """√(ln(1/alpha)/(2S)): how far F may lie below F̂, at all r at once, with confidence 1 − alpha.

    Raises:
        TypeError: ``samples`` is no whole number.
        ValueError: ``samples`` < 1, or ``alpha`` outside (0, ½], for which this constant is proved.

    Source: Dvoretzky, Kiefer, Wolfowitz 1956; Massart, "The tight constant in the
    Dvoretzky–Kiefer–Wolfowitz inequality", Annals of Probability 1990 (one-sided: alpha ≤ ½).
    """
    checks.count(samples, "samples")
    if check_alpha(alpha) > 0.5:
        raise ValueError(f"alpha of a band must be at most 1/2, got {alpha:g}")
    return math.sqrt(math.log(1.0 / alpha) / (2.0 * samples))


def band(
    distances: Tensor,
    r: float | Tensor,
    alpha: float,
    *,
    ranks: Tensor | None = None,
    samples: int | None = None,
) -> Tensor:
    """Lower bounds of P(‖Δ‖ ≤ r) at any radii, chosen in any way after a look at the draws.

        F(r) ≥ F̂(r) − √(ln(1/alpha)/(2S)) for all r at once, with probability 1 − alpha per input

    Args:
        distances: [B, S] of the draws, or [B, G] order statistics of them, ascending, whose ranks
            are given; F̂ is then the largest of these ranks that r shows. NaN counts as infinite.
        r: float, [m] (the same at each input) or [B, m]; NaN shows nothing.
        alpha: in (0, ½], per input, of the statement about all r.
        ranks: [G] int64, ascending, 1 to ``samples``.
        samples: S, with ``ranks``.

    Returns:
        [B, m] float64, 0 where nothing is shown; m = 1 for a float.

    Raises:
        TypeError: ranks or samples that are no whole numbers.
        ValueError: another shape; ``ranks`` without ``samples``, or outside of 1 to ``samples``;
            ``alpha`` outside (0, ½].

    Source: as of :func:`band_width`. Tip: of a thousand draws and alpha = 0.001 the band is .059
    wide, so that F is shown to be .941 at most; a radius fixed beforehand is shown .993.
    """
    ordered = _ordered(distances)
    rows, held = ordered.shape
    ranks, samples = _ranks(ranks, samples, held, ordered)
    width = band_width(samples, alpha)
    radius = torch.as_tensor(r, dtype=torch.float64, device=ordered.device)
    radius = radius.expand(rows, 1) if radius.ndim == 0 else radius
    radius = radius.expand(rows, -1) if radius.ndim == 1 else radius
    if radius.ndim != 2 or len(radius) != rows:
        raise ValueError(
            f"r must be a float, [m] or [B, m] with B = {rows}, got {list(radius.shape)}"
        )
    within = torch.searchsorted(ordered, radius.contiguous().nan_to_num(-1.0), right=True)
    share = torch.cat([ranks.new_zeros(1), ranks])[within].double() / samples
    return (share - width).clamp(min=0.0).masked_fill(radius.isnan(), 0.0)


def binomial_p_values(hits: Tensor, samples: int, p: Tensor) -> Tensor:
    """How likely as many hits are where the probability is only p: P(Bin(S, p) ≥ k).

    It is at most α with probability at most α where the probability of a hit is p or below: small
    values are evidence that it is above p.

    Args:
        hits: k, [B] or [B, m] int64, 0 to ``samples``.
        samples: S.
        p: like ``hits``, in [0, 1]; where it is NaN nothing is shown, and the value is 1.

    Returns:
        Like ``hits``, float64.

    Raises:
        TypeError: hits or samples are no whole numbers.
        ValueError: other shapes, hits outside of 0 to ``samples``, p outside of [0, 1].

    Source: mathematics.md 8.1. Tip: p is :func:`required_at` of the radius of a ball.
    """
    k = _whole(hits, "hits")
    checks.count(samples, "samples")
    checks.tensor(p, "p")
    if hits.shape != p.shape:
        raise ValueError(f"p must be {list(hits.shape)}, like hits, got {list(p.shape)}")
    null = p.detach().cpu().double().numpy()
    if k.size and (k.min() < 0 or k.max() > samples):
        raise ValueError(
            f"hits must be between 0 and samples = {samples}, got values from {k.min()} to "
            f"{k.max()}"
        )
    if bool(((null < 0) | (null > 1)).any()):
        raise ValueError("p must lie in [0, 1]")
    tail = special.betainc(np.maximum(k, 1), samples - np.maximum(k, 1) + 1, null)
    tail = np.where((k == 0) | np.isnan(null), 1.0, tail)
    return torch.from_numpy(tail).to(hits.device)


def holm(p_values: Tensor, alpha: float) -> Tensor:
    """Which of n null hypotheses are rejected, none of them wrongly with probability 1 − alpha.

        in ascending order, p_(i) ≤ alpha/(n − i + 1) for this i and all before it

    The p-values may depend on each other in any way. It rejects what Bonferroni's alpha/n does, and
    more where much is rejected.

    Args:
        p_values: [n]; NaN is not rejected, and counts.
        alpha: in (0, 1), of the whole list.

    Returns:
        [n] bool.

    Raises:
        ValueError: another shape, ``alpha`` outside (0, 1).

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 1979.
    """
    checks.tensor(p_values, "p_values")
    if p_values.ndim != 1:
        raise ValueError(f"p_values must be [n], got {list(p_values.shape)}")
    check_alpha(alpha)
    ordered, order = p_values.double().nan_to_num(1.0).sort()
    left = torch.arange(len(ordered), 0, -1, device=ordered.device)
    kept = (ordered * left <= alpha).long().cumprod(0).bool()
    return torch.empty_like(kept).index_copy_(0, order, kept)


def _ordered(distances: Tensor) -> Tensor:
    """Ascending in float64; NaN last, as infinity."""
    checks.tensor(distances, "distances")
    if distances.ndim != 2 or not distances.shape[1]:
        raise ValueError(
            f"distances must be [B, S] with S of at least 1, got {list(distances.shape)}"
        )
    found = distances.double()
    return found.masked_fill(found.isnan(), torch.inf).sort(dim=1).values


def _ranks(
    ranks: Tensor | None, samples: int | None, held: int, like: Tensor
) -> tuple[Tensor, int]:
    if (ranks is None) != (samples is None):
        raise ValueError("ranks and samples go together: both, or neither of whole draws")
    if ranks is None or samples is None:
        return torch.arange(1, held + 1, device=like.device), held
    at = _whole(ranks, "ranks")
    if at.shape != (held,) or at[0] < 1 or at[-1] > samples or bool((np.diff(at) <= 0).any()):
        raise ValueError(
            f"ranks must be {held} ascending numbers from 1 to samples = {samples}, one of each "
            "column of distances"
        )
    return ranks.to(like.device), samples


def _whole(value: Tensor, name: str) -> np.ndarray:
    checks.tensor(value, name)
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(
            f"{name} must be int64, got {checks.short(value.dtype)}; pass {name}.long()"
        )
    found: np.ndarray = value.detach().cpu().numpy()
    return found
