"""An upper bound of symmetric matrices' largest eigenvalues in plain PyTorch, by squaring."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaefast.functional.eigenvalues import SQUARINGS, bound_of

if TYPE_CHECKING:
    from vaefast.ops.eigenvalue_bound import Call

__all__ = ["eigenvalue_bound"]


def eigenvalue_bound(call: Call) -> Tensor:
    """λ_max(A) ≤ ‖A^n‖_F^(1/n), n = 2^SQUARINGS, a little inflated: [B] float64.

    Scaling by powers of two, which is exact, keeps the squares in range.
    """
    A = call.A
    non_finite = (0.0 * A).sum((1, 2))  # NaN for NaN and ±inf, else 0
    exponent = A.new_zeros(len(A))  # of the scales so far, in units of the n-th power's
    for square in range(SQUARINGS + 1):
        e = torch.frexp(A.abs().sum((1, 2)).clamp(max=2.0**1000)).exponent
        half = e // 2  # at a time, for 2^1030 is no float64
        for part in (half, e - half):
            A = torch.ldexp(A, -part[:, None, None])
        exponent = exponent + e * 2.0**-square
        if square < SQUARINGS:
            A = A @ A.mT
    return bound_of(exponent, A.square().sum((1, 2)) + non_finite, A.shape[-1])
