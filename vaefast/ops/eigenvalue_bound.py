"""``eigenvalue_bound``: an upper bound of symmetric matrices' largest eigenvalues, by squaring."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import checks
from vaefast.ops._register import lazy, register
from vaefast.reference.eigenvalue_bound import eigenvalue_bound as reference

__all__ = ["eigenvalue_bound"]


class Call(NamedTuple):
    A: Tensor
    backend: str | None


def eigenvalue_bound(A: Tensor, *, backend: str | None = None) -> Tensor:
    """At least the largest eigenvalue of each symmetric matrix, hardly more if it is a Gram matrix.

        λ_max(A) ≤ ‖A^n‖_F^(1/n),  n = 2^20, inflated by what rounding can take off

    Equivalent to, but for the excess::

        torch.linalg.eigvalsh(A)[:, -1]

    For a positive semidefinite A it is at most d^(1/2n) times λ_max, 3e-6 too large up to d = 128.
    Squaring is matrix products only, where a GPU's batched eigensolver takes far longer; a CPU's
    does not, and there is no C++ backend. A matrix with NaN or infinity has the bound NaN.

    Args:
        A: [B, d, d] float64, symmetric.
        backend: as for every op, see :mod:`vaefast.ops`.

    Returns:
        [B] float64.

    Raises:
        TypeError: not a float64 tensor.
        ValueError: not square matrices.
        RuntimeError: A requires grad; the backend asked for by name cannot run here.

    Source: mathematics.md §9.
    """
    checks.tensor(A, "A")
    if A.ndim != 3 or A.shape[1] != A.shape[2]:
        raise ValueError(f"A must be [B, d, d], got {list(A.shape)}")
    if A.dtype != torch.float64:
        raise TypeError(f"A must be float64, got {checks.short(A.dtype)}; pass A.double()")
    return _op(Call(A, backend))


_op = register(
    Call,
    returns=Tensor,
    fake=lambda call: call.A.new_empty(call.A.shape[0]),
    reference=reference,
    triton=lazy("eigenvalue_bound"),
)
