"""F with F Fᵀ = W₁W₁ᵀ, which stands for W₁ where only norms and inner products are wanted.

It is made once per call, in double, by the library: it holds no row of a batch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast.kernels.mlp import product
from vaefast.kernels.network import COLUMN_PAD, ROW_PAD, Net, of

__all__ = ["factor_rows", "factor_size", "first_factor", "packed_factor"]


@triton.jit
def factor_rows(
    p_r, p_w, p_up, i_c, o_c, NET: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Rows i_c = o_c.. of Fᵀm [BLOCK_M, BLOCK_N], after :func:`pull_to_first`.

    p_r holds Fᵀ, upper triangular, where the network is wider in than behind its first layer;
    else F = W₁ and its transpose is in the pack.
    """
    if of(NET, "widths", 0) > of(NET, "widths", 1):
        a = product(
            p_r, p_up + of(NET, "post", 1), i_c, NET, 1, BLOCK_K, BLOCK_N, PRECISION, TYPE, o_c
        )
    else:
        a = product(
            p_w + of(NET, "turned", 0), p_up + of(NET, "post", 1),
            i_c, NET, 1, BLOCK_K, BLOCK_N, PRECISION, TYPE,
        )  # fmt: skip
    return a


def packed_factor(weight: Tensor, net: Net) -> tuple[Tensor, Tensor]:
    """Fᵀ padded with zeros in the weights' dtype, and in bf16 beside float32.

    An element each where D ≤ H₁ and the pack holds W₁'s transpose already.
    """
    H, D = weight.shape
    if D <= H:
        return weight.new_empty(1), weight.new_empty(1, dtype=half_of(weight.dtype))
    rows, columns = factor_size(net)
    full = weight.new_zeros((rows, columns))
    full[:H, :H] = first_factor(weight).mT
    return full, full.to(half_of(weight.dtype))


def factor_size(net: Net) -> tuple[int, int]:
    """Rows and columns of the padded Fᵀ."""
    H = net.widths[1]
    return -(-H // ROW_PAD) * ROW_PAD, -(-H // COLUMN_PAD) * COLUMN_PAD


def half_of(dtype: torch.dtype) -> torch.dtype:
    """What bf16 products take; float64 has no such thing."""
    return torch.bfloat16 if dtype == torch.float32 else dtype


def first_factor(weight: Tensor) -> Tensor:
    """Lower triangular F [H, H] of W₁ [H, D], D > H: NaN where W₁ is not finite.

    For float32 by Cholesky's method in double, whose backward error is far below a float's
    round-off, unless W₁ is too close to low rank for it; then, and for float64, where W₁W₁ᵀ
    would square the condition number, from Wᵀ = Q Fᵀ.
    """
    finite = weight.isfinite().all()
    W = torch.where(finite, weight, 0.0).double()
    info: Tensor | int = 1
    if weight.dtype == torch.float32:
        F, info = torch.linalg.cholesky_ex(W @ W.mT)
    if info:
        F = torch.linalg.qr(W.mT, mode="r").R.mT
    return torch.where(finite, F.to(weight.dtype), torch.nan).tril()
