"""The mass that a support set of latents keeps while q(z|x) moves: lower bounds.

An ellipsoid {z : Σ g_i² (v_iᵀ w)² ≤ c²}, w = (z − μ)/σ, under N(m, I) in whitened latents has the
mass P(Σ g_i² (η_i + m_i)² ≤ c²), a weighted sum of non-central χ². Ruben's series writes it as a
mixture of χ² distributions whose weights are not negative, so that each partial sum is a lower
bound.

Source: Ruben, "Probability content of regions under spherical normal distributions, IV", Annals of
Mathematical Statistics 33, 1962.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import special
from torch import Tensor

__all__ = ["ellipsoid_mass", "moved_mass", "padding"]

TERMS = 4000
REST = 1e-10  # of a partial sum
HALVINGS = 60


def ellipsoid_mass(weights: np.ndarray, shifts: np.ndarray, limit: float) -> float:
    """A lower bound of P(Σ w_i (η_i + m_i)² ≤ limit) for η ~ N(0, I), short by 1e-9 at most.

    Shorter where the weights differ by factors of thousands.

    Args:
        weights: w [d], above 0.
        shifts: m_i² [d].
        limit: above 0.
    """
    least = weights.min()
    share = least / weights
    rest, d, x = 1.0 - share, len(weights), limit / least
    terms = min(TERMS, int(x / 2 + 8 * np.sqrt(x + 25)) + 50)  # later ones have no mass below x
    k = np.arange(1, terms + 1)[:, None]
    g = 0.5 * (rest**k + k * shifts * share * rest ** (k - 1)).sum(1)
    first = np.exp(-0.5 * shifts.sum()) * np.sqrt(share.prod())
    c = np.zeros(terms + 1)
    c[0] = first
    for j in range(1, terms + 1):
        c[j] = np.dot(g[:j][::-1], c[:j]) / j
    return float(np.dot(c, special.chdtr(d + 2 * np.arange(terms + 1), x)) * (1.0 - REST))


def moved_mass(weights: np.ndarray, limit: float, shift: float, caps: np.ndarray) -> float:
    """The least mass under N(m, I) while ‖m‖₂ ≤ shift and |m_i| ≤ caps_i along the axes.

    ∂P/∂(m_i²/2) = P(X + w_i χ²_2 ≤ limit) − P(X ≤ limit): at every m the axis of the largest weight
    loses most, so the worst m fills that axis to its cap, then the next one.
    """
    order = np.argsort(-weights, kind="stable")
    left, shifts = shift**2, np.zeros_like(weights)
    for i in order:
        shifts[i] = min(left, caps[i] ** 2)
        left -= shifts[i]
    return ellipsoid_mass(weights, shifts, limit)


def padding(width: Tensor, std: Tensor, mass: Tensor) -> Tensor:
    """ξ such that [lo − ξ, hi + ξ] holds N(μ, s²) with this mass for all lo ≤ μ ≤ hi, s ≤ std.

    The mass is least where μ is an end and s is largest.

    Args:
        width: hi − lo, any shape, float64.
        std: the largest.
        mass: at least ½, below 1.
    """
    reach = torch.special.ndtri(mass)  # of one side alone, with an end in the middle of it
    low, high = reach.clamp(min=0.0), torch.special.ndtri(0.5 + 0.5 * mass) + 1e-9
    width = width / std
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        enough = torch.special.ndtr(middle) - torch.special.ndtr(-middle - width) >= mass
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return std * high * (1.0 + 1e-12)
