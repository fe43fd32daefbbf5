"""Which changes of the posterior a probability above ½ tolerates.

Q = N(μ, diag σ²) holds a set A with probability at least p. It moves to Q' = N(μ', diag σ'²), with
Δ ≥ ‖(μ' − μ)/σ‖₂ and E ≥ ‖log σ' − log σ‖₂. Each test below, where it says yes, proves
Q'(A) > ½, for every set A and all changes up to Δ and E. With q = Φ⁻¹(p):

    kept scale   Δ < q                                       E = 0; a half-space attains it
    mean first   Δ < q − Φ⁻¹(p*), kl(½‖p*) = κ(E)            the mean moves, then the scale
    divergence   ½Δ² + κ(E) < kl(½‖p)                        data processing
    Rényi        the same with the divergences of order λ    ahead where E is large
    joint        both at once, by duality and a quadrature   the best for E < ½ log 2

Source: mathematics.md 8.2, with the proofs.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import special
from torch import Tensor

__all__ = ["required_probability", "scale_cost", "tolerates"]

ORDERS = (1.02, 1.05, 1.1, 1.2, 1.35, 1.6, 2.0, 3.0, 5.0, 9.0)  # λ
TILTS = (-0.2, -0.1, 0.0, 0.1, 0.2)  # log t = Δq − ½Δ² + aΔ
CELLS = 24  # of the variance along the shift
REACH, NODES = 12.0, 769  # of the trapezoid rule
GAMMA = 144.0  # above it the rule's tail bound does not hold
INFLATION = 1e-6
ROWS = 64  # whose quadratures stay within the caches at once
HALVINGS = 40

Array = np.ndarray


def tolerates(shift: Tensor, scale: Tensor, p: Tensor) -> Tensor:
    """Whether Q'(A) > ½ is proved for every Q' within ``shift`` and ``scale``; [B] bool.

    Args:
        shift: Δ [B] float64, at least 0; NaN and infinity are not tolerated.
        scale: E [B] float64, likewise.
        p: [B] float64, at most Q(A).
    """
    delta, e, low = (t.detach().cpu().double().numpy() for t in (shift, scale, p))
    with np.errstate(all="ignore"):
        q = special.ndtri(low)
        possible = np.isfinite(delta) & np.isfinite(e) & (low > 0.5) & (low < 1.0) & (delta < q)
        proved = possible & ((e == 0) | _mean_first(delta, e, q))
        proved |= possible & (_divergence(delta, e, low) | _renyi(delta, e, low))
        (left,) = np.nonzero(possible & ~proved & (np.exp(2 * e) < 2))
        for at in range(0, len(left), ROWS):
            rows = left[at : at + ROWS]
            proved[rows] = _joint(delta[rows], e[rows], q[rows], low[rows])
    return torch.from_numpy(proved).to(shift.device)


def required_probability(shift: Tensor, scale: Tensor) -> Tensor:
    """A probability at which the change is tolerated, the least up to 1e-6 of 1 − p; [B] float64.

    1 where none below 1 − 1e-12 was found.
    """
    low = torch.full_like(shift, math.log(1e-12))  # log of 1 − p
    high = torch.full_like(shift, math.log(0.5))
    found = tolerates(shift, scale, 1.0 - low.exp())
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        proved = tolerates(shift, scale, 1.0 - middle.exp())
        low, high = torch.where(proved, middle, low), torch.where(proved, high, middle)
    return torch.where(found, 1.0 - low.exp(), 1.0)


def _kappa(e: Array) -> Array:
    """κ(E) = ½(e^{2E} − 1 − 2E) ≥ KL of the changed scale to the original."""
    return 0.5 * np.where(e < 1e-4, 2 * e**2 * (1 + e), np.expm1(2 * e) - 2 * e)


def _mean_first(delta: Array, e: Array, q: Array) -> Array:
    return delta < q - _scale_cost(e)


def _scale_cost(e: Array) -> Array:
    """Φ⁻¹(p*) with kl(½‖p*) = κ(E)."""
    return special.ndtri(0.5 * (1 + np.sqrt(-np.expm1(-2 * _kappa(e)))))


def scale_cost(scale: Tensor) -> Tensor:
    """What a change of log σ by at most E takes off the quantile, paid at level ½; any shape."""
    return torch.from_numpy(_scale_cost(scale.cpu().numpy())).to(scale.device)


def _divergence(delta: Array, e: Array, p: Array) -> Array:
    return 0.5 * delta**2 + _kappa(e) < -0.5 * np.log(4 * p * (1 - p))


def _renyi(delta: Array, e: Array, p: Array) -> Array:
    """In units of the order λ; ``left`` = λ − (λ−1)e^{2E} must be above 0."""
    proved = np.zeros(delta.shape, dtype=bool)
    for order in ORDERS:
        left = order - (order - 1) * np.exp(2 * e)
        moved = 0.5 * order * delta**2 / left - e - np.log(left) / (2 * (order - 1))
        kept = p ** (1 - order) + (1 - p) ** (1 - order)
        proved |= (left > 0) & (moved < (np.log(kept) - order * math.log(2)) / (order - 1))
    return proved


def _joint(delta: Array, e: Array, q: Array, p: Array) -> Array:
    """For some t, for every variance v along the shift: ∫φ √(E[w²] − 2kE[w] + k²) < t(2p − 1).

    w is the ratio of densities of the scale, k(g) = t exp(−Δg − ½Δ²) that of the shift. Cells of v
    take the largest second and the least first moment, so that the sum bounds the integral of each
    v in them. As E → 0 the integrand becomes φ|w − k| with a kink, which the rule may cut off.
    """
    delta, e, q, p = (a[:, None, None] for a in (delta, e, q, p))  # [b, cells, nodes]
    g, step = np.linspace(-REACH, REACH, NODES, retstep=True)
    weight = np.exp(-0.5 * g**2) * (step / math.sqrt(2 * math.pi))
    low, high = np.exp(-2 * e), np.exp(2 * e)
    edges = low * np.exp(4 * e * np.linspace(0, 1, CELLS + 1)[None, :, None])
    v0, v1 = edges[:, :-1], edges[:, 1:]
    f_low, f_high = low / (2 - low), high / (2 - high)
    chord = f_low + (v1 - low) * ((f_high - f_low) / np.maximum(high - low, 1e-300))
    gamma = np.maximum(chord, f_low)
    whole = np.exp(-e - 0.5 * np.log(2 - high))  # C
    square = whole * _moment(g**2, np.clip(g**2, v0 / (2 - v0), gamma))
    first = np.minimum(_moment(g**2, v0), _moment(g**2, v1))
    spread = 2 * gamma / (1 + gamma)
    tail = np.sqrt(whole * spread) * gamma**-0.25 * 2 * special.ndtr(-REACH / np.sqrt(spread))
    far = special.ndtr(delta - REACH) + special.ndtr(-delta - REACH)
    # step²/8 of the slope's jump where k = w, 2φ|k' − w'| ≤ 0.8(Δ + |1 − 1/v|)√(1/v), twice
    kink = 0.2 * step**2 * (delta + high - 1) * np.exp(e)
    proved = np.zeros(len(delta), dtype=bool)
    for tilt in TILTS:
        t = np.exp(delta * q - 0.5 * delta**2 + tilt * delta)
        k = t * np.exp(-delta * g - 0.5 * delta**2)
        inside = np.sqrt(np.maximum(square - 2 * k * first + k**2, 0.0)) @ weight
        bound = inside * (1 + INFLATION) + INFLATION + (tail + t * far + kink)[:, :, 0]
        proved |= (bound.max(1) < (t * (2 * p - 1))[:, 0, 0]) & (gamma.max((1, 2)) <= GAMMA)
    return proved


def _moment(a: Array, v: Array) -> Array:
    """ρ(a; v) = v^(−½) exp(½a(1 − 1/v)), the conditional mean of w at g² = a."""
    return np.exp(0.5 * a * (1 - 1 / v)) / np.sqrt(v)
