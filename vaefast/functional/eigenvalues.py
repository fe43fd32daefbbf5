"""What the backends of ``eigenvalue_bound`` share: the squarings, and the bound they end with."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["SQUARINGS", "bound_of", "inflation"]

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
