"""One pool of decoded latents, re-weighted for many posteriors: upper bounds of their misses.

z ~ N(0, P) in whitened coordinates, decoded at μ + σ⊙z, and only the misses kept. For a target
N(m, I), P ≻ I, the weighted indicator X = 1_miss · N(z; m, I)/N(z; 0, P) lies in [0, c] and has the
target's probability of a miss as its mean.

Source: mathematics.md 8.6 (P); Maurer, Pontil, "Empirical Bernstein bounds", COLT 2009.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import special
from torch import Tensor

__all__ = ["Pool", "Spread", "level_of"]

SHARE = 0.5  # κ: of the ellipsoid's variance along its axes
SLACK = 1.1  # of the pool's variance over the target's, in all other directions
NEWTON = 6  # steps
ENTRIES = 1 << 17  # of anchors × misses at once, within the caches


@dataclass(frozen=True)
class Spread:
    """P = U diag(κa²) Uᵀ + 1.1 I, whose draws cover every posterior of an ellipsoid.

    Args:
        factor: [d, d] float64, a factor of P: z = factor @ η.
        inverse: [d, d], P⁻¹.
        log_det: log |P|.
        beyond: [d, d], (P − I)⁻¹.
    """

    factor: Tensor
    inverse: Tensor
    log_det: float
    beyond: Tensor

    @classmethod
    def along(cls, axes: Tensor, lengths: Tensor) -> Spread:
        """For unit ``axes`` [d, k] of lengths a [k]."""
        eye = torch.eye(len(axes), dtype=torch.float64, device="cpu")
        rest = (axes * (SHARE * lengths.square())) @ axes.mT + (SLACK - 1.0) * eye
        factor = torch.linalg.cholesky(rest + eye)
        log_det = 2.0 * float(factor.diagonal().log().sum())
        inverse = torch.cholesky_inverse(factor)
        return cls(factor, inverse, log_det, torch.cholesky_inverse(torch.linalg.cholesky(rest)))


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

    def miss_bounds(self, means: Tensor, level: float, *, copies: float = 1.0) -> Tensor:
        """Upper bounds [n] of the misses' probability under N(means, I).

        Args:
            means: [n, d] float64.
            level: L = log(4·anchors/α); all of them hold at once.
            copies: as if each draw had been made so often; with another than 1 no bound.
        """
        first, second = torch.zeros_like(means[:, 0]), torch.zeros_like(means[:, 0])
        chunk = max(1, ENTRIES // max(len(self.misses), 1))
        for at in range(0, len(means), chunk):
            part = slice(at, at + chunk)
            weight = self._log_weights(means[part]).exp_()
            first[part] = weight.sum(1)
            second[part] = torch.linalg.vector_norm(weight, dim=1).square_()
        n = self.samples * copies
        return _bounds(first * copies, second * copies, self._ceiling(means), n, level)

    @cached_property
    def _own(self) -> Tensor:
        """Of log N(z; m, I)/N(z; 0, P) what no mean changes, [1, misses]."""
        z = self.misses
        size = 0.5 * ((z @ self.spread.inverse) * z).sum(1) - 0.5 * z.square().sum(1)
        return (size + 0.5 * self.spread.log_det).unsqueeze(0)

    def _log_weights(self, means: Tensor) -> Tensor:
        """log N(z; m, I)/N(z; 0, P) of each miss, [n, misses]."""
        weight = torch.addmm(self._own, means, self.misses.mT)
        return weight.sub_(0.5 * means.square().sum(1, keepdim=True))

    def _ceiling(self, means: Tensor) -> Tensor:
        """c [n], the most that a weight can be: √|P| exp(½ mᵀ(P − I)⁻¹m)."""
        exponent = ((means @ self.spread.beyond) * means).sum(1)
        return (0.5 * exponent + 0.5 * self.spread.log_det).exp()


def _bounds(first: Tensor, second: Tensor, ceiling: Tensor, n: float, level: float) -> Tensor:
    """The smaller of Maurer's and Pontil's and of Chernoff's bound of a mean, at least 0, ≤ 1."""
    mean = first / n
    variance = ((second - n * mean.square()) / (n - 1)).clamp(min=0.0)
    empirical = mean + (2.0 * variance * level / n).sqrt() + 7.0 * ceiling * level / (3.0 * (n - 1))
    chernoff = ceiling * _upper_inverse(mean / ceiling, level / n)
    return torch.minimum(empirical, chernoff).nan_to_num(1.0).clamp(max=1.0)


def _upper_inverse(p: Tensor, budget: float) -> Tensor:
    """A q ≥ p with kl(p‖q) ≥ budget, the least up to rounding.

    kl is convex in q, so Newton's steps from above stay above. They start at the least of what
    kl ≥ (q − p)²/2q, kl ≥ 2(q − p)² and kl ≥ p log p + (1 − p) log((1 − p)/(1 − q)) allow.
    """
    own = p.clamp(0.0, 1.0 - 1e-15).numpy()  # of few anchors, where torch's calls cost more
    left = 1.0 - own
    far = 1.0 - left * np.exp((special.xlogy(own, own) - budget) / left)
    near = np.minimum(budget + np.sqrt(budget * (2.0 * own + budget)), np.sqrt(0.5 * budget))
    q = np.minimum(np.minimum(own + near, far), 1.0 - 1e-15)
    entropy = special.xlogy(own, own) + special.xlogy(left, left) - budget
    with np.errstate(all="ignore"):
        for _ in range(NEWTON):
            over = entropy - special.xlogy(own, q) - special.xlogy(left, 1.0 - q)
            step = np.maximum(over, 0.0) * q * (1.0 - q) / (q - own)
            q = np.where(q > own, np.maximum(q - step, own), q)
    return torch.from_numpy(np.minimum(q * (1.0 + 1e-10) + 1e-15, 1.0))


def level_of(anchors: int, alpha: float) -> float:
    """L at which the bounds of so many anchors, two each, hold together."""
    return math.log(4.0 * anchors / alpha)
