"""F with F Fᵀ = W₁W₁ᵀ, which stands for W₁ where only norms and inner products are wanted.

It is made once per call, in double, by the library: it holds no row of a batch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast.kernels.common.mlp import input_cotangent, product
from vaefast.kernels.common.network import ROW_PAD, Net, of

__all__ = ["factor_rows", "factor_size", "first_factor", "packed_factor"]


@triton.jit
def factor_rows(
    p_r, p_w, p_up, i_c, o_c, NET: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Rows i_c = o_c.. of Fᵀm [BLOCK_M, BLOCK_N], after :func:`pull_to_first`.

    p_r is from :func:`packed_factor` where the network is wider in than behind its first layer;
    else F = W₁ and its transpose is in the pack.
    """
    if of(NET, "widths", 0) > of(NET, "widths", 1):
        S_OUT: tl.constexpr = 1 if PRECISION == "ieee" else factor_size(NET)
        S_IN: tl.constexpr = factor_size(NET) if PRECISION == "ieee" else 1
        a = product(
            p_r, p_up + of(NET, "post", 1), i_c, NET, S_OUT, S_IN, of(NET, "widths", 1),
            BLOCK_K, BLOCK_N, PRECISION, TYPE, o_c,
        )  # fmt: skip
    else:
        a = input_cotangent(p_w, p_up, i_c, NET, BLOCK_K, BLOCK_N, PRECISION, TYPE)
    return a


def packed_factor(weight: Tensor, net: Net, precision: str) -> tuple[Tensor, Tensor]:
    """Fᵀ, upper triangular, padded with zeros, in the weights' dtype and in bf16 beside float32.

    For "ieee" F itself, as :func:`product` wants it. An element each where D ≤ H₁ and the pack
    holds W₁'s transpose already.
    """
    H, D = weight.shape
    if D <= H:
        return weight.new_empty(1), weight.new_empty(1, dtype=half_of(weight.dtype))
    full = weight.new_zeros((factor_size(net), factor_size(net)))
    factor = first_factor(weight)
    full[:H, :H] = factor if precision == "ieee" else factor.mT
    return full, full.to(half_of(weight.dtype))


@triton.constexpr_function
def factor_size(net):
    """Rows and columns of the padded F."""
    return -(-net.widths[1] // ROW_PAD) * ROW_PAD


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
