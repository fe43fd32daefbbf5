"""Estimates of a metric's trace and of ‖J‖₂ from products with random vectors, per row.

All of them see the Jacobian as an operator on its smaller side: rows for a map to the latents,
columns for the decoder.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy import special
from torch import Tensor

from vaefast.geometry.operators import Operator

__all__ = [
    "Estimate",
    "chi_square_factor",
    "hutchinson",
    "hutchpp",
    "power_iteration",
    "products_of",
    "xtrace",
]

ROUNDING = 1e-26  # of a vector's squared length: what projecting it twice leaves
TINY = 1e-14  # of the largest, what stands in for a 0 on a triangle's diagonal


class Estimate(NamedTuple):
    """Of tr(JJᵀ) = ‖J‖_F² at each of b points, float64.

    Args:
        value: [b].
        error: its standard error [b]; NaN where one probe does not tell it.
    """

    value: Tensor
    error: Tensor


def products_of(method: str, probes: int, size: int) -> int:
    """Products with J or Jᵀ that an estimate takes for K probes on a side of that size."""
    if method == "hutch++":
        sketch = min(probes // 3, size)
        return 3 * sketch + probes - probes // 3
    if method == "xtrace":
        return 3 * min(probes, size)
    return probes


def chi_square_factor(probes: int, confidence: float) -> float:
    """c with P(‖J‖_F² ≤ c·Σ_k‖Jv_k‖²) ≥ confidence for K Gaussian probes and any J.

        c = 1/χ²_{K,α},  α = 1 − confidence,  P(χ²_K ≤ χ²_{K,α}) = α

    Raises:
        ValueError: α > P(χ²_K ≤ K), where rank one is no longer the worst case.

    Source: mathematics.md 9; Székely, Bakirov 2003 for one probe; Roosta-Khorasani, Székely,
    Ascher 2015.
    """
    alpha, limit = 1.0 - confidence, float(special.chdtr(probes, probes))
    if not 0.0 < alpha <= limit:
        raise ValueError(
            f"upper_confidence must lie in [{1 - limit:.3f}, 1) with {probes} probes, "
            f"got {confidence:g}"
        )
    return 1.0 / float(2.0 * special.gammaincinv(0.5 * probes, alpha))


def hutchinson(op: Operator, probes: Tensor, *, without_replacement: bool = False) -> Estimate:
    """(1/K) Σ_k ‖Jᵀu_k‖² for probes [b, K, size] with E uuᵀ = I.

    Args:
        without_replacement: the probes are orthogonal: their number of the size is known, and by
            as much smaller is the variance (0 for all of them).

    Source: Hutchinson 1990; Girard 1989.
    """
    squares, count = op.squares(probes), probes.shape[1]
    left = 1.0 - count / op.size if without_replacement else 1.0
    return Estimate(squares.mean(1), _error_of_mean(squares) * max(left, 0.0) ** 0.5)


def hutchpp(op: Operator, probes: Tensor) -> Estimate:
    """Hutch++ from K Gaussian probes [b, K, size], K ≥ 3.

    A third of the probes sketches the range of JJᵀ, whose part of the trace is exact; the other
    probes estimate the rest. Exact when a third of K reaches the size.

    Source: Meyer, Musco, Musco, Woodruff, "Hutch++: optimal stochastic trace estimation", 2021.
    """
    third = probes.shape[1] // 3
    sketch, rest = probes[:, : min(third, op.size)], probes[:, third:].double()
    image = op.back(op.half(sketch)).double()
    basis = torch.linalg.qr(torch.nan_to_num(image).mT).Q  # [b, size, c]
    rest = rest - (rest @ basis) @ basis.mT
    exact = op.squares(basis.mT.to(probes.dtype)).sum(1)
    squares = op.squares(rest.to(probes.dtype))
    return Estimate(exact + squares.mean(1), _error_of_mean(squares))


def xtrace(op: Operator, probes: Tensor) -> Estimate:
    """XTrace from K Gaussian probes [b, K, size], 2 ≤ K; K above the size counts as the size.

    Each probe estimates what the range of all others leaves out; the mean over the probes is
    unbiased, their spread its error. With Q = orth(AΩ), A = JJᵀ, s_i the direction in Q that the
    i-th probe alone spans, o_i = ω_i − QQᵀω_i and v_i = o_i + Qs_i s_iᵀQᵀω_i::

        t_i = tr T − s_iᵀT s_i + (size − K + 1)·v_iᵀA v_i/‖v_i‖²,   T = (JᵀQ)ᵀ(JᵀQ)

    The directions of the v_i count and not their lengths. AQ is not needed: Aω_i is known.

    Source: Epperly, Tropp, Webber, "XTrace: making the most of every sample in stochastic trace
    estimation", SIAM J. Matrix Anal. Appl. 45, 2024.
    """
    probes = probes[:, : op.size]
    count, omega = probes.shape[1], probes.double()
    image = op.back(op.half(probes)).double()  # (AΩ)ᵀ [b, K, size]
    q, r = torch.linalg.qr(torch.nan_to_num(image).mT)
    pulled = op.half(q.mT.to(probes.dtype)).double()
    inner = pulled @ pulled.mT  # T [b, K, K]
    alone = _spanned_alone(r)  # s_i in columns
    w = q.mT @ omega.mT
    along = (alone * w).sum(1)  # s_iᵀQᵀω_i
    removed = (alone * (inner @ alone)).sum(1)
    outside = torch.linalg.vector_norm(omega.mT - q @ w, dim=1).square()
    own = (omega * image).sum(2) - 2.0 * (w * r).sum(1) + (w * (inner @ w)).sum(1)  # o_iᵀA o_i
    own = own.clamp(min=0.0).masked_fill(outside <= ROUNDING * omega.square().sum(2), 0.0)
    mixed = (alone * (r - inner @ w)).sum(1)  # s_iᵀQᵀA o_i
    quadratic = own + 2.0 * along * mixed + along.square() * removed
    length = (outside + along.square()).clamp(min=torch.finfo(torch.float64).tiny)
    left = (op.size - count + 1) * quadratic.clamp(min=0.0) / length
    each = inner.diagonal(dim1=1, dim2=2).sum(1, keepdim=True) - removed + left
    return Estimate(each.mean(1), _error_of_mean(each))


def power_iteration(op: Operator, start: Tensor, iterations: int) -> Tensor:
    """‖half(u)‖/‖u‖ [b] float64 after power steps on JJᵀ from start [b, 1, size]: at most ‖J‖₂."""
    u = start
    for _ in range(iterations):
        image = op.back(op.half(u)).double()
        length = torch.linalg.vector_norm(image, dim=2, keepdim=True)
        u = torch.where(length > 0, image / length, u.double()).to(start.dtype)
    length = torch.linalg.vector_norm(u.double(), dim=2)
    return (op.squares(u).sqrt() / length).squeeze(1)


def _spanned_alone(r: Tensor) -> Tensor:
    """Unit vectors [b, K, K], the i-th column orthogonal to all columns of R but the i-th."""
    diagonal = r.diagonal(dim1=1, dim2=2)
    largest = diagonal.abs().amax(1, keepdim=True)
    tiny = TINY * largest.masked_fill(largest == 0, 1.0)
    small = diagonal.abs() < tiny
    safe = r + torch.diag_embed(torch.where(small, tiny - diagonal, 0.0))
    unit = torch.eye(r.shape[1], dtype=r.dtype, device=r.device).expand_as(r)
    columns = torch.linalg.solve_triangular(safe.mT, unit, upper=False)
    return columns / torch.linalg.vector_norm(columns, dim=1, keepdim=True)


def _error_of_mean(samples: Tensor) -> Tensor:
    """Of independent samples [b, K]: [b], NaN for one."""
    count = samples.shape[1]
    if count < 2:
        return torch.full_like(samples[:, 0], torch.nan)
    return samples.std(1) / count**0.5
