"""Largest eigenvalues, rounded up; and what the backends of ``eigenvalue_bound`` share."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast.runtime import matrices

__all__ = ["SQUARINGS", "bound_of", "eigenvalue", "inflation"]

SQUARINGS = 20


def bound_of(exponent: Tensor, square: Tensor, d: int) -> Tensor:
    """The bound from Σ of the scales' exponents and ‖·‖_F² of the scaled n-th power, both [B]."""
    root = torch.exp2(exponent + 0.5**SQUARINGS * 0.5 * square.log2())
    smallest = torch.finfo(torch.float64).tiny  # below it rounding is absolute
    return torch.where(square == 0, 0.0, inflation(d) * root + smallest)


def inflation(d: int) -> float:
    """1 + more than the rounding in float64 can take off the bound.

    With u = 2^-53 an element of a square errs by at most d·u‖row‖‖column‖, the square as a whole
    by d·u‖A‖_F² ≤ d²u‖A‖₂². That counts half for the first square, half of it for the next: d²u
    in all. Twice that covers what is of the order u²; 2^-41 covers exponents of up to 2^10.
    """
    return 1.0 + 2.0 * d * d * 2.0**-53 + 2.0**-41


def eigenvalue(Q: Tensor) -> Tensor:
    """λ_max of positive semidefinite matrices [..., n, n], rounded up; NaN where one has NaN."""
    n = Q.shape[-1]
    flat = Q.reshape(-1, n, n)
    good = (flat - flat).sum((1, 2)) == 0
    clean = torch.where(good[:, None, None], flat, 0.0)
    if n == 1:
        top = clean[:, 0, 0]
    else:
        top = torch.cat(matrices.each(lambda part: torch.linalg.eigvalsh(part)[:, -1], clean))
    return torch.where(good, (1.0 + n * 1e-13) * top, torch.nan).reshape(Q.shape[:-2])
