"""Weights of the sum rule: Σ v_k lies in the ellipsoid of Σ Q_k/w_k, for v_k v_kᵀ ≼ Q_k.

Any w_k > 0 with Σ w_k = 1 are sound (Cauchy–Schwarz); what is chosen here is the size alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast.functional.eigenvalues import eigenvalue

__all__ = ["least_sum", "weighted"]

STEPS = 5
POWERS = 4  # of power iterations a step, from the last one's vector
FLOOR = 1e-9  # of a weight
TINY = 1e-150  # in place of a size of 0


def weighted(parts: list[Tensor], sizes: list[Tensor]) -> Tensor:
    """Σ Q/w [..., n, n] with w ∝ √size, whose λ_max is at most (Σ √λ)² where sizes are the λ."""
    if len(parts) == 1:
        return parts[0]
    over = [1.0 / weight[..., None, None] for weight in _shares(sizes)]
    result = parts[0] * over[0]
    for part, times_ in zip(parts[1:], over[1:], strict=True):
        result.addcmul_(part, times_)
    return result


def least_sum(parts: list[Tensor]) -> Tensor:
    """Σ Q/w [..., n, n] with the least λ_max among three choices of w, each row on its own.

    w ∝ √λ_max(Q_k); equal; and, from the first, five steps on λ_max, which is convex in w: with v
    the leading eigenvector, λ_max falls along −∂/∂log w_k = vᵀQ_k v/w_k until these are ∝ w_k, and
    a step goes half the way, in log w, to w ∝ √(vᵀQ_k v), where for this v they are.
    """
    if len(parts) == 1:
        return parts[0]
    sizes = [eigenvalue(part) for part in parts]
    first = weighted(parts, sizes)
    equal = weighted(parts, [torch.ones_like(parts[0][..., 0, 0]) for _ in parts])
    best, size = first, eigenvalue(first)
    for other in (equal, _stepped(parts, sizes, first)):
        own = eigenvalue(other)
        best = torch.where((own < size)[..., None, None], other, best)
        size = torch.minimum(own, size)
    return best


def _stepped(parts: list[Tensor], sizes: list[Tensor], total: Tensor) -> Tensor:
    v = total.diagonal(dim1=-2, dim2=-1).sqrt()
    for _ in range(STEPS):
        for _ in range(POWERS):
            v = _product(total, v / (v.norm(dim=-1, keepdim=True) + TINY))
        along = v / (v.norm(dim=-1, keepdim=True) + TINY)
        seen = [(along * _product(part, along)).sum(-1) for part in parts]
        sizes = [(a * b.clamp(min=0.0)).sqrt() for a, b in zip(sizes, seen, strict=True)]
        total = weighted(parts, sizes)
    return total


def _product(Q: Tensor, v: Tensor) -> Tensor:
    return (Q @ v.unsqueeze(-1)).squeeze(-1)


def _shares(sizes: list[Tensor]) -> list[Tensor]:
    """w ∝ √size, none of them 0."""
    roots = [size.clamp(min=0.0).sqrt() for size in sizes]
    total = sum(roots[1:], roots[0])
    roots = [root + FLOOR * total + TINY for root in roots]
    total = sum(roots[1:], roots[0])
    return [root / total for root in roots]
