"""``net_vjp`` in Triton: K cotangents per input beside one pass, in one launch.

Norms alone of a wide first layer go through its factor, ‖Jᵀu‖ = ‖Fᵀm‖ with m the cotangent of the
first pre-activations: decided by widths and dtype and never by the batch, as its bits differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast.functional.rows import rows_of
from vaefast.kernels.common.activations import through
from vaefast.kernels.common.first_factor import factor_rows, packed_factor
from vaefast.kernels.common.forms import ENCODERS, net_variants
from vaefast.kernels.common.launch import device_of
from vaefast.kernels.common.mlp import input_cotangent, operands, pull_to_first, put
from vaefast.kernels.common.network import Net, net_of, of, unpack
from vaefast.kernels.common.probes import (
    blocks_of,
    grid,
    nonfinite_in,
    nonfinite_of_probes,
    plan,
    primal,
    probe_rows,
    slopes_of,
)

if TYPE_CHECKING:
    from vaefast.ops.net_vjp import Call

__all__ = ["net_vjp"]

FACTOR_FROM = 4  # times wider than behind it, the first layer gives way to its factor

INTEGERS = ["B", "K", "parts", "s_x", "s_u"]
INPUTS = ["p_x", "p_u"]  # whose alignment must not choose a layout


@triton.jit(do_not_specialize=INTEGERS, do_not_specialize_on_alignment=INPUTS)
def _net_vjp_kernel(
    p_y, p_sq, p_out, p_x, p_u, p_nonfinite, p_full, p_half, p_factor, p_factor_half, p_scratch,
    B, K, parts, s_x, s_u,
    NET: tl.constexpr, SHARED: tl.constexpr, FACTOR: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    TYPE: tl.constexpr = p_full.dtype.element_ty
    F: tl.constexpr = of(NET, "features")
    p_scratch += tl.program_id(0).to(tl.int64) * F * 2 * BLOCK_N
    p_w, p_h = operands(p_full, p_half, p_scratch, PRECISION)
    p_r = p_factor_half if PRECISION == "bf16" else p_factor
    p_up = p_h + F * BLOCK_N
    for unit in range(tl.program_id(0), tl.cdiv(B, BLOCK_N) * parts, tl.num_programs(0)):
        first, part = unit // parts * BLOCK_N, unit % parts
        i_n = first + tl.arange(0, BLOCK_N).to(tl.int64)
        nonfinite = tl.load(p_nonfinite + (i_n * 0 if SHARED else i_n), mask=i_n < B, other=0.0)
        primal(
            p_y, p_x, s_x, p_full, p_w, p_h, nonfinite, i_n, (i_n < B) & (part == 0), B, NET,
            BLOCK_M, BLOCK_K, BLOCK_N, PRECISION,
        )  # fmt: skip
        columns = tl.minimum(B - first, BLOCK_N) * K
        for o_c in range(part * BLOCK_N, columns, parts * BLOCK_N):
            i_c = tl.arange(0, BLOCK_N)
            m_c = o_c + i_c < columns
            i_row = tl.where(m_c, (o_c + i_c) // K, 0)
            i_result = (tl.zeros([], dtype=tl.int64) + first) * K + o_c  # the chunk's first
            if SHARED:
                p_own = p_u + (o_c + i_c) % K * s_u
            else:
                p_own = p_u + i_result * s_u + i_c * s_u
            _load_cotangents(p_own, m_c, p_h, p_up, i_row, NET, BLOCK_M, TYPE)
            pull_to_first(p_w, p_up, p_h, i_row, F, NET, BLOCK_M, BLOCK_K, BLOCK_N, PRECISION, TYPE)
            _pull_last(
                p_sq, p_out, i_result, m_c, p_r, p_w, p_h, p_up, i_row, NET, FACTOR,
                BLOCK_M, BLOCK_K, BLOCK_N, PRECISION, TYPE,
            )  # fmt: skip
            tl.debug_barrier()


@triton.jit
def _load_cotangents(
    p_own, m_c, p_h, p_up, i_row, NET: tl.constexpr, BLOCK: tl.constexpr, TYPE: tl.constexpr
):
    """Rows p_own [BLOCK_N] go through the last activation into scratch."""
    LAST: tl.constexpr = of(NET, "depth") - 1
    d: tl.constexpr = of(NET, "widths", LAST + 1)
    for o in range(0, d, BLOCK):
        i_out = o + tl.arange(0, BLOCK)
        m = (i_out < d)[:, None] & m_c[None, :]
        u = tl.load(p_own[None, :] + i_out[:, None], mask=m, other=0.0)
        slope = slopes_of(p_h, i_row, i_out, NET, LAST, TYPE)
        u = through(u, slope, i_out, d, of(NET, "activations", LAST))
        put(p_up, of(NET, "post", LAST + 1), i_out, u, NET)
    tl.debug_barrier()


@triton.jit
def _pull_last(
    p_sq, p_out, i_result, m_c, p_r, p_w, p_h, p_up, i_row, NET: tl.constexpr, FACTOR: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
    TYPE: tl.constexpr,
):  # fmt: skip
    """The last product of a chunk: squared norms, and the products where p_out is given."""
    WIDTH: tl.constexpr = of(NET, "widths", 1 if FACTOR else 0)
    nonfinite = nonfinite_in(p_h, i_row, NET, TYPE)
    square = nonfinite.to(tl.float64)  # [BLOCK_N]
    for o in tl.range(0, WIDTH, BLOCK_M, disable_licm=True):
        i_in = o + tl.arange(0, BLOCK_M)
        if FACTOR:
            t = factor_rows(p_r, p_w, p_up, i_in, o, NET, BLOCK_K, BLOCK_N, PRECISION, TYPE)
        else:
            t = input_cotangent(p_w, p_up, i_in, NET, BLOCK_K, BLOCK_N, PRECISION, TYPE)
        m = (i_in < WIDTH)[:, None] & m_c[None, :]
        t = tl.where(m, t, 0.0)
        square += tl.sum(t.to(tl.float64) * t.to(tl.float64), axis=0)
        if p_out is not None:
            a_out = tl.arange(0, BLOCK_N)[None, :] * WIDTH + i_in[:, None]
            tl.store(p_out + i_result * WIDTH + a_out, t + nonfinite[None, :], mask=m)
    tl.store(p_sq + i_result + tl.arange(0, BLOCK_N), square, mask=m_c)


def net_vjp(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the kernel."""
    x, u, full, (weights, biases, layers, packed) = call.x, call.u, call.full, call.net
    net = net_of(weights, layers)
    B, K, d = len(x), u.shape[-2], net.widths[-1]
    y, sq = x.new_empty((B, d)), x.new_empty((B, K), dtype=torch.float64)
    products = x.new_empty((B, K if full else 0, x.shape[1]))
    if not B:
        return y, sq, products
    matrices = unpack(weights, biases, packed, net)
    by_factor = not full and by_its_factor(net, x.dtype)
    blocks = plan(B * max(K, 1), x.dtype, call.precision, call.tile, x.device)
    factors = packed_factor(weights[0], net, blocks.PRECISION) if by_factor else (None, None)
    shared, nonfinite = u.ndim == 2, nonfinite_of_probes(u)
    x, u = rows_of(x), probe_rows(u)
    pieces = triton.cdiv(min(B, blocks.BLOCK_N) * K, blocks.BLOCK_N)
    work, parts = grid(net, blocks, B, pieces, 2 * blocks.BLOCK_N, x)
    with device_of(x):
        _net_vjp_kernel[(len(work),)](
            y, sq, products if full else None, x, u, nonfinite, *matrices, *factors, work,
            B, K, parts, x.stride(0), u.stride(0), NET=net, SHARED=shared, FACTOR=by_factor,
            **blocks.options(),
        )  # fmt: skip
    return y, sq, products


def by_its_factor(net: Net, dtype: torch.dtype) -> bool:
    """Whether norms alone take the factor: float64 keeps every digit of its small directions."""
    return dtype == torch.float32 and net.widths[0] >= FACTOR_FROM * net.widths[1]


KNOWN_SPILLS = {  # bytes of a thread; on sm_80 operands pass through registers
    ("shared probes 784-512-512-32 tf32 tile 64", "sm_80"): "16 bytes",
    ("shared probes 784-512-512-32 bf16 tile 32", "sm_80"): "16 bytes",
    ("own probes 784-512-512-32 tf32 tile 32", "sm_80"): "8 bytes",
    ("own probes 784-512-512-32 tf32 tile 64", "sm_80"): "16 bytes",
}


def variants():
    """Every form of the kernel that ``plan`` can choose, for ahead-of-time compilation."""
    for shared in (True, False):
        prefix = "shared probes " if shared else "own probes "
        yield from net_variants(
            _net_vjp_kernel, ENCODERS, types={"p_sq": "*fp64"}, prefix=prefix,
            blocks=blocks_of, SHARED=shared, FACTOR=False,
            p_factor=None, p_factor_half=None,
        )  # fmt: skip
        by_factor = net_variants(
            _net_vjp_kernel, ENCODERS[2:], types={"p_sq": "*fp64", "p_factor_half": "*bf16"},
            prefix=prefix + "norms by factor ", blocks=blocks_of,
            SHARED=shared, FACTOR=True, p_out=None,
        )  # fmt: skip
        yield from (v for v in by_factor if "fp64" not in v.label)
