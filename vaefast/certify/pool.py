"""One pool of decoded latents, re-weighted for many posteriors: upper bounds of their misses.

z ~ N(0, P) in whitened coordinates, decoded at μ + σ⊙z, and only the misses kept. For a target
N(m, D) with P ≻ D the weighted indicator X = 1_miss · N(z; m, D)/N(z; 0, P) lies in [0, c] and has
the target's probability of a miss as its mean.

Source: mathematics.md 8.6 (P); Maurer, Pontil, "Empirical Bernstein bounds", COLT 2009.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special
from torch import Tensor

__all__ = ["Pool", "Spread", "level_of"]

SHARE = 0.5  # κ: of the ellipsoid's variance along its axes
SLACK = 1.1  # of the pool's variance over the target's, in all other directions
HALVINGS = 26
ENTRIES = 1 << 23  # of anchors × misses at once


@dataclass(frozen=True)
class Spread:
    """P = U diag(κa²) Uᵀ + s²I, whose draws cover every posterior of an ellipsoid.

    Args:
        factor: [d, d] float64, a factor of P: z = factor @ η.
        inverse: [d, d], P⁻¹.
        log_det: log |P|.
    """

    factor: Tensor
    inverse: Tensor
    log_det: float

    @classmethod
    def along(cls, axes: Tensor, lengths: Tensor, widest: float = 1.0) -> Spread:
        """For unit ``axes`` [d, k] of lengths a [k]; ``widest``: the targets' largest scale."""
        d = len(axes)
        cover = (axes * (SHARE * lengths.square())) @ axes.mT
        cover = cover + SLACK * widest**2 * torch.eye(d, dtype=torch.float64, device="cpu")
        factor = torch.linalg.cholesky(cover)
        log_det = 2.0 * float(factor.diagonal().log().sum())
        return cls(factor, torch.cholesky_inverse(factor), log_det)


@dataclass(frozen=True)
class Pool:
    """Draws of one input and what became of them.

    Args:
        spread: what they were drawn from.
        misses: [n, d] float64, the z whose reconstruction left r.
        samples: N, how many were drawn.
    """

    spread: Spread
    misses: Tensor
    samples: int

    def miss_bounds(
        self, means: Tensor, log_scale: Tensor, level: float, *, copies: float = 1.0
    ) -> Tensor:
        """Upper bounds [n] of the misses' probability under N(means, diag e^{2·log_scale}).

        Args:
            means: [n, d] float64.
            log_scale: [d] float64, of all targets.
            level: L = log(4·anchors/α); all of them hold at once.
            copies: as if each draw had been made so often; with another than 1 no bound.
        """
        ceiling = self._ceiling(means, log_scale)
        first, second = torch.zeros_like(ceiling), torch.zeros_like(ceiling)
        chunk = max(1, ENTRIES // max(len(self.misses), 1))
        for at in range(0, len(means), chunk):
            part = slice(at, at + chunk)
            weight = self._log_weights(means[part], log_scale).exp_()
            first[part] = weight.sum(1)
            second[part] = weight.square_().sum(1)
        n = self.samples * copies
        return _bounds(first * copies, second * copies, ceiling, n, level)

    def _log_weights(self, means: Tensor, log_scale: Tensor) -> Tensor:
        """log N(z; m, D)/N(z; 0, P) of each miss, [n, misses]."""
        z, precision = self.misses, (-2.0 * log_scale).exp()
        own = 0.5 * ((z @ self.spread.inverse) * z).sum(1) - 0.5 * (z.square() @ precision)
        shift = -0.5 * (means.square() @ precision) - log_scale.sum() + 0.5 * self.spread.log_det
        return torch.addmm(own.unsqueeze(0), means * precision, z.mT) + shift.unsqueeze(1)

    def _ceiling(self, means: Tensor, log_scale: Tensor) -> Tensor:
        """c [n], the most that a weight can be: √(|P|/|D|) exp(½ mᵀ(P − D)⁻¹m)."""
        cover = self.spread.factor @ self.spread.factor.mT
        rest = cover - torch.diag((2.0 * log_scale).exp())
        factor, failed = torch.linalg.cholesky_ex(rest)
        if bool(failed):  # the pool is too narrow for this scale and says nothing
            return torch.full_like(means[:, 0], torch.inf)
        exponent = 0.5 * (means.mT * torch.cholesky_solve(means.mT, factor)).sum(0)
        return (exponent + 0.5 * self.spread.log_det - log_scale.sum()).exp()


def _bounds(first: Tensor, second: Tensor, ceiling: Tensor, n: float, level: float) -> Tensor:
    """The smaller of Maurer's and Pontil's and of Chernoff's bound of a mean, at least 0, ≤ 1."""
    mean = first / n
    variance = ((second - n * mean.square()) / (n - 1)).clamp(min=0.0)
    empirical = mean + (2.0 * variance * level / n).sqrt() + 7.0 * ceiling * level / (3.0 * (n - 1))
    chernoff = ceiling * _upper_inverse(mean / ceiling, level / n)
    return torch.minimum(empirical, chernoff).nan_to_num(1.0).clamp(max=1.0)


def _upper_inverse(p: Tensor, budget: float) -> Tensor:
    """The largest q ≥ p with kl(p‖q) ≤ budget, rounded up; kl ≥ (q − p)²/2q says where to look."""
    low = p.clamp(0.0, 1.0).numpy()  # of few anchors at a time, where torch's calls cost more
    own, other = low, 1.0 - low
    high = np.minimum(low + budget + np.sqrt(budget * (2.0 * low + budget)), 1.0)
    entropy = special.xlogy(own, own) + special.xlogy(other, other)
    for _ in range(HALVINGS):
        q = 0.5 * (low + high)
        within = entropy - special.xlogy(own, q) - special.xlogy(other, 1.0 - q) <= budget
        low, high = np.where(within, q, low), np.where(within, high, q)
    return torch.from_numpy(high)


def level_of(anchors: int, alpha: float) -> float:
    """L at which the bounds of so many anchors, two each, hold together."""
    return math.log(4.0 * anchors / alpha)
