"""One pool of decoded latents, re-weighted for many posteriors: upper bounds of their misses.

z ~ λN(0, I) + (1 − λ)N(0, P) in whitened coordinates, decoded at μ + σ⊙z, and only the misses
kept. For a target N(m, I), P ≻ I, the weighted indicator X = 1_miss · N(z; m, I)/density(z) lies in
[0, c] and has the target's probability of a miss as its mean.

Source: mathematics.md 8.6 (P); Maurer, Pontil, "Empirical Bernstein bounds", COLT 2009.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from scipy import special
from torch import Tensor

__all__ = ["Levels", "Pool", "Spread"]

NEAR = 0.5  # λ
SHARE = 0.5  # κ: of the ellipsoid's variance along its axes
SLACK = 1.1  # of the pool's variance over the target's, in all other directions
NEWTON = 6  # steps
SPLITS = (0.0, 0.25, 0.5, 0.75, 0.9)
ENTRIES = 1 << 17  # of anchors × misses at once, within the caches


class Levels(NamedTuple):
    """L = log(4n/α) at which two bounds each of n anchors hold together; half of α for the origin.

    All ellipsoids have the origin, and what is known there decides the most.
    """

    origin: float
    other: float

    @classmethod
    def of(cls, anchors: int, alpha: float) -> Levels:
        """For so many anchors beside the origin."""
        return cls(math.log(4.0 / (0.5 * alpha)), math.log(4.0 * anchors / (0.5 * alpha)))


@dataclass(frozen=True)
class Spread:
    """P = U diag(κa²) Uᵀ + 1.1 I, whose draws cover every posterior of an ellipsoid.

    Args:
        factor: [d, d] float64, a factor of P.
        inverse: [d, d], P⁻¹.
        log_det: log |P|.
        beyond: [d, d], (I − P⁻¹)⁻¹.
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
        beyond = eye + torch.cholesky_inverse(torch.linalg.cholesky(rest))
        return cls(factor, torch.cholesky_inverse(factor), log_det, beyond)

    def draws(self, eta: Tensor) -> Tensor:
        """z [n, d] of η [n, d + 1] ~ N(0, I), whose last entry says of which of the two z is."""
        wide = eta[:, :-1] @ self.factor.mT
        return torch.where(eta[:, -1:] > special.ndtri(NEAR), wide, eta[:, :-1])


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

    def miss_bounds(self, means: Tensor, levels: Levels, *, copies: float = 1.0) -> Tensor:
        """Upper bounds [n] of the misses' probability under N(means, I); all hold at once.

        Args:
            means: [n, d] float64.
            levels: of the union of the anchors.
            copies: as if each draw had been made so often; with another than 1 no bound.
        """
        first, second = torch.zeros_like(means[:, 0]), torch.zeros_like(means[:, 0])
        chunk = max(1, ENTRIES // max(len(self.misses), 1))
        for at in range(0, len(means), chunk):
            part = slice(at, at + chunk)
            weight = self._log_weights(means[part]).exp_()
            first[part] = weight.sum(1)
            second[part] = torch.linalg.vector_norm(weight, dim=1).square_()
        level = torch.where((means == 0.0).all(1), levels.origin, levels.other)
        n = self.samples * copies
        return _bounds(first * copies, second * copies, self._ceiling(means), n, level)

    @cached_property
    def _own(self) -> Tensor:
        """Of the logarithm of a weight what no mean changes, [1, misses]."""
        z = self.misses
        wide = 0.5 * (z.square().sum(1) - ((z @ self.spread.inverse) * z).sum(1))
        wide = wide - 0.5 * self.spread.log_det
        odds = math.log(1.0 / NEAR - 1.0)
        return -math.log(NEAR) - torch.nn.functional.softplus(wide + odds).unsqueeze(0)

    def _log_weights(self, means: Tensor) -> Tensor:
        """The logarithm of the weight of each miss, [n, misses]."""
        weight = torch.addmm(self._own, means, self.misses.mT)
        return weight.sub_(0.5 * means.square().sum(1, keepdim=True))

    def _ceiling(self, means: Tensor) -> Tensor:
        """c [n], no weight is more.

        λA + (1−λ)B ≥ (λA/s)^s ((1−λ)B/(1−s))^(1−s), over which a weight has its peak at a known z.
        """
        far = 0.5 * ((means @ self.spread.beyond) * means).sum(1)
        near, found = 0.5 * means.square().sum(1), []
        for s in SPLITS:
            split = special.rel_entr(s, NEAR) + special.rel_entr(1.0 - s, 1.0 - NEAR)
            found.append(far / (1.0 - s) - near + 0.5 * (1.0 - s) * self.spread.log_det + split)
        least = torch.stack(found).amin(0).exp()
        return torch.where((means == 0.0).all(1), 1.0 / NEAR, least)


def _bounds(first: Tensor, second: Tensor, ceiling: Tensor, n: float, level: Tensor) -> Tensor:
    """The smaller of Maurer's and Pontil's and of Chernoff's bound of a mean, at least 0, ≤ 1."""
    mean = first / n
    variance = ((second - n * mean.square()) / (n - 1)).clamp(min=0.0)
    empirical = mean + (2.0 * variance * level / n).sqrt() + 7.0 * ceiling * level / (3.0 * (n - 1))
    chernoff = ceiling * _upper_inverse(mean / ceiling, level / n)
    return torch.minimum(empirical, chernoff).nan_to_num(1.0).clamp(max=1.0)


def _upper_inverse(p: Tensor, divergence: Tensor) -> Tensor:
    """A q ≥ p with kl(p‖q) ≥ divergence, the least up to rounding.

    kl is convex in q, so Newton's steps from above stay above. They start at the least of what
    kl ≥ (q − p)²/2q, kl ≥ 2(q − p)² and kl ≥ p log p + (1 − p) log((1 − p)/(1 − q)) allow.
    """
    budget = divergence.numpy()
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
