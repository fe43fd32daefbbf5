"""An upper bound of symmetric matrices' largest eigenvalues, for a certificate on a GPU.

Repeated squaring needs matrix products only, where a batched eigensolver takes far longer. One
program squares one matrix at a time, in float64, between two places of its scratch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl
from torch import Tensor

from vaefast.functional.eigenvalues import SQUARINGS, bound_of
from vaefast.kernels.common.launch import PROGRAMS_PER_PROCESSOR, device_of, processors
from vaefast.kernels.proof.aot import Variant

if TYPE_CHECKING:
    from vaefast.ops.eigenvalue_bound import Call

__all__ = ["eigenvalue_bound"]

PROGRAMS = 4 * PROGRAMS_PER_PROCESSOR  # a processor; they are small
STAGES = 1


@triton.jit
def _eigenvalue_bound_kernel(
    p_exponent, p_square, p_A, p_scratch, B,
    d: tl.constexpr, SIZE: tl.constexpr, SQUARES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    p_scratch += tl.program_id(0) * 2 * SIZE * SIZE
    for i_b in range(tl.program_id(0), B, tl.num_programs(0)):
        total = _take(p_A + (tl.zeros([1, 1], tl.int64) + i_b) * d * d, p_scratch, d, SIZE, BLOCK)
        exponent = total * 0.0
        weight = exponent + 1.0
        for square in range(0, SQUARES):
            p_from = p_scratch + square % 2 * SIZE * SIZE
            p_to = p_scratch + (square + 1) % 2 * SIZE * SIZE
            e, scale = _scale_of(total)
            exponent += e * weight
            weight *= 0.5
            total = _square(p_to, p_from, scale, SIZE, BLOCK)
        e, scale = _scale_of(total)
        tl.store(p_exponent + i_b, exponent + e * weight)
        last = _norm(p_scratch + SQUARES % 2 * SIZE * SIZE, scale, SIZE, BLOCK)
        tl.store(p_square + i_b, last)
        tl.debug_barrier()


@triton.jit
def _take(p_A, p_to, d: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Copy a matrix padded with zeros; Σ|a|."""
    total = tl.sum(tl.zeros([BLOCK], tl.float64), axis=0)
    for o_i in range(0, SIZE, BLOCK):
        i = o_i + tl.arange(0, BLOCK)[:, None]
        for o_j in range(0, SIZE, BLOCK):
            j = o_j + tl.arange(0, BLOCK)[None, :]
            a = tl.load(p_A + i * d + j, mask=(i < d) & (j < d), other=0.0)
            tl.store(p_to + i * SIZE + j, a)
            total += tl.sum(tl.sum(tl.abs(a), axis=1), axis=0)
    tl.debug_barrier()
    return total


@triton.jit
def _scale_of(total):
    """e with total ≤ 2^e, and 2^-e: from its bits, so that scaling by it is exact."""
    e = (total.to(tl.int64, bitcast=True) >> 52) - 1022
    e = tl.minimum(e, 1000)  # for sums that overflow
    return e.to(tl.float64), ((1023 - e) << 52).to(tl.float64, bitcast=True)


@triton.jit
def _square(p_to, p_from, scale, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """(scale · A)(scale · A)ᵀ, each element above the diagonal that below; Σ of their moduli."""
    k = tl.arange(0, BLOCK)
    total = scale * 0.0
    for o_i in range(0, SIZE, BLOCK):
        i = o_i + tl.arange(0, BLOCK)
        for o_j in range(0, o_i + BLOCK, BLOCK):
            j = o_j + tl.arange(0, BLOCK)
            a = tl.zeros([BLOCK, BLOCK], dtype=tl.float64)
            for o_k in range(0, SIZE, BLOCK):
                left = scale * tl.load(p_from + i[:, None] * SIZE + (o_k + k)[None, :])
                right = scale * tl.load(p_from + j[None, :] * SIZE + (o_k + k)[:, None])
                a = tl.dot(left, right, a, input_precision="ieee", out_dtype=tl.float64)
            tl.store(p_to + i[:, None] * SIZE + j[None, :], a)
            if o_i != o_j:
                tl.store(p_to + j[None, :] * SIZE + i[:, None], a)
            size = tl.sum(tl.sum(tl.abs(a), axis=1), axis=0)
            total += tl.where(o_i == o_j, size, 2.0 * size)
    tl.debug_barrier()
    return total


@triton.jit
def _norm(p_from, scale, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """‖scale · A‖_F²."""
    total = scale * 0.0
    for o_i in range(0, SIZE, BLOCK):
        i = o_i + tl.arange(0, BLOCK)[:, None]
        for o_j in range(0, SIZE, BLOCK):
            a = scale * tl.load(p_from + i * SIZE + o_j + tl.arange(0, BLOCK)[None, :])
            total += tl.sum(tl.sum(a * a, axis=1), axis=0)
    return total


def eigenvalue_bound(call: Call) -> Tensor:
    """Launch the kernel."""
    A = call.A
    B, d = A.shape[:2]
    exponent, square = A.new_empty((2, B)).unbind()
    if not B:
        return exponent
    block, size, warps = plan(d)
    programs = min(B, PROGRAMS * processors(A.device))
    scratch = A.new_empty((programs, 2, size, size))
    with device_of(A):
        _eigenvalue_bound_kernel[(programs,)](
            exponent, square, A.contiguous(), scratch, B,
            d=d, SIZE=size, SQUARES=SQUARINGS, BLOCK=block, num_warps=warps, num_stages=STAGES,
        )  # fmt: skip
    return bound_of(exponent, square, d)


def plan(d: int) -> tuple[int, int, int]:
    """Block size, padded size and warps: they follow the width only."""
    block = 16 if d <= 16 else 32
    warps = 1 if block == 16 else 4 if d <= block else 8
    return block, triton.cdiv(d, block) * block, warps


def variants():
    """Every form of the kernel that ``plan`` can choose, for ahead-of-time compilation."""
    types = dict.fromkeys(("p_exponent", "p_square", "p_A", "p_scratch"), "*fp64")
    for d in (1, 10, 32, 50, 128):
        block, size, warps = plan(d)
        constants = {"d": d, "SIZE": size, "SQUARES": SQUARINGS, "BLOCK": block}
        signature = {**types, "B": "i32"}
        yield Variant(f"d={d}", _eigenvalue_bound_kernel, signature, constants, warps, STAGES)
