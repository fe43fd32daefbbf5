"""An upper bound of symmetric matrices' largest eigenvalues in plain PyTorch, by squaring."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["SQUARINGS", "bound_of", "eigenvalue_bound", "inflation"]

SQUARINGS = 20


def eigenvalue_bound(A: Tensor) -> Tensor:
    """At least λ_max of each symmetric A [B, d, d] float64; NaN where A is not finite.

        λ_max(A) ≤ ‖A^n‖_F^(1/n),  n = 2^SQUARINGS

    For positive semidefinite A it is at most d^(1/2n) times λ_max, 3e-6 too large up to d = 128,
    and inflated by :func:`inflation`, which covers the rounding of the squares. Scaling by powers
    of two, which is exact, keeps them in range.

    Source: mathematics.md §9.
    """
    d = A.shape[-1]
    flaw = (0.0 * A).sum((1, 2))
    exponent = A.new_zeros(len(A))  # of the scales so far, in units of the n-th power's
    for square in range(SQUARINGS + 1):
        e = torch.frexp(A.abs().sum((1, 2)).clamp(max=2.0**1000)).exponent
        A = torch.ldexp(A, -e[:, None, None])
        exponent = exponent + e * 2.0**-square
        if square < SQUARINGS:
            A = A @ A.mT
    return bound_of(exponent, A.square().sum((1, 2)) + flaw, d)


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
