"""``net_jvp`` in Triton: K tangents per input beside one pass, in one launch.

Tangents that all inputs share meet W₁ once, in a launch of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast.functional.rows import rows_of
from vaefast.kernels.common.activations import through
from vaefast.kernels.common.forms import ENCODERS, net_variants
from vaefast.kernels.common.launch import device_of, scratch
from vaefast.kernels.common.mlp import layer_product, operands, put, take_rows
from vaefast.kernels.common.network import net_of, of, unpack
from vaefast.kernels.common.probes import (
    blocks_of,
    grid,
    nonfinite_in,
    nonfinite_of_probes,
    plan,
    primal,
    probe_rows,
    push_tile,
    slopes_of,
)

if TYPE_CHECKING:
    from vaefast.ops.net_jvp import Call

__all__ = ["net_jvp"]

INTEGERS = ["B", "K", "parts", "s_x", "s_v"]
INPUTS = ["p_x", "p_v"]  # whose alignment must not choose a layout


@triton.jit(do_not_specialize=INTEGERS, do_not_specialize_on_alignment=INPUTS)
def _net_jvp_kernel(
    p_y, p_sq, p_out, p_x, p_v, p_first, p_nonfinite, p_full, p_half, p_scratch,
    B, K, parts, s_x, s_v,
    NET: tl.constexpr, SHARED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    TYPE: tl.constexpr = p_full.dtype.element_ty
    F: tl.constexpr = of(NET, "features")
    p_scratch += tl.program_id(0).to(tl.int64) * F * 2 * BLOCK_N
    p_w, p_h = operands(p_full, p_half, p_scratch, PRECISION)
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
                p_own = p_first + (o_c + i_c) % K * of(NET, "columns", 1)
            else:
                p_own = p_v + i_result * s_v + i_c * s_v
            _push_hidden(
                p_own, m_c, p_w, p_h, p_up, i_row, NET, SHARED,
                BLOCK_M, BLOCK_K, BLOCK_N, PRECISION, TYPE,
            )  # fmt: skip
            _push_last(
                p_sq, p_out, p_own, i_result, m_c, p_w, p_h, p_up, i_row, NET, SHARED,
                BLOCK_M, BLOCK_K, BLOCK_N, PRECISION, TYPE,
            )  # fmt: skip
            tl.debug_barrier()


@triton.jit
def _push_hidden(
    p_own, m_c, p_w, p_h, p_up, i_row, NET: tl.constexpr, SHARED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
    TYPE: tl.constexpr,
):  # fmt: skip
    """Tangents from p_own [BLOCK_N], or what W₁ made of them, to the last layer's inputs."""
    if not SHARED:
        _load_tangents(p_own, m_c, p_up, NET, 0, BLOCK_M)
    for layer in tl.static_range(of(NET, "depth") - 1):
        for o in tl.range(0, of(NET, "widths", layer + 1), BLOCK_M, disable_licm=True):
            i_out = o + tl.arange(0, BLOCK_M)
            if SHARED and layer == 0:
                t = _first_tile(p_own, p_h, i_row, i_out, NET, TYPE)
            else:
                t = push_tile(
                    p_w, p_h, p_up, i_row, i_out, NET, layer, BLOCK_K, BLOCK_N, PRECISION, TYPE
                )
            put(p_up, of(NET, "post", layer + 1), i_out, t, NET)
        tl.debug_barrier()


@triton.jit
def _push_last(
    p_sq, p_out, p_own, i_result, m_c, p_w, p_h, p_up, i_row, NET: tl.constexpr,
    SHARED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """The last layer of a chunk: squared norms, and the products where p_out is given."""
    LAST: tl.constexpr = of(NET, "depth") - 1
    d: tl.constexpr = of(NET, "widths", LAST + 1)
    nonfinite = nonfinite_in(p_h, i_row, NET, TYPE)
    square = nonfinite.to(tl.float64)  # [BLOCK_N]
    for o in tl.range(0, d, BLOCK_M, disable_licm=True):
        i_out = o + tl.arange(0, BLOCK_M)
        if SHARED and LAST == 0:
            t = _first_tile(p_own, p_h, i_row, i_out, NET, TYPE)
        else:
            t = push_tile(
                p_w, p_h, p_up, i_row, i_out, NET, LAST, BLOCK_K, BLOCK_N, PRECISION, TYPE
            )
        m = (i_out < d)[:, None] & m_c[None, :]
        t = tl.where(m, t, 0.0)
        square += tl.sum(t.to(tl.float64) * t.to(tl.float64), axis=0)
        if p_out is not None:
            a_out = tl.arange(0, BLOCK_N)[None, :] * d + i_out[:, None]
            tl.store(p_out + i_result * d + a_out, t + nonfinite[None, :], mask=m)
    tl.store(p_sq + i_result + tl.arange(0, BLOCK_N), square, mask=m_c)


@triton.jit
def _load_tangents(p_own, m_c, p_up, NET: tl.constexpr, LAYER: tl.constexpr, BLOCK: tl.constexpr):
    """Rows p_own [BLOCK_N] become the inputs' tangents in scratch."""
    D: tl.constexpr = of(NET, "widths", 0)
    for o in range(0, D, BLOCK):
        i_in = o + tl.arange(0, BLOCK)
        m = (i_in < D)[:, None] & m_c[None, :]
        put(p_up, 0, i_in, tl.load(p_own[None, :] + i_in[:, None], mask=m, other=0.0), NET)
    tl.debug_barrier()


@triton.jit
def _first_tile(p_own, p_h, i_row, i_out, NET: tl.constexpr, TYPE: tl.constexpr):
    """Tangents of the first layer's outputs, from W₁v in p_own."""
    slope = slopes_of(p_h, i_row, i_out, NET, 0, TYPE)
    t = tl.load(p_own[None, :] + i_out[:, None])
    return through(t, slope, i_out, of(NET, "widths", 1), of(NET, "activations", 0))


@triton.jit(do_not_specialize=["K", "s_v"], do_not_specialize_on_alignment=["p_v"])
def _first_product_kernel(
    p_first, p_v, p_full, p_half, p_scratch, K, s_v,
    NET: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """W₁v of each tangent, padded with zeros."""
    p_scratch += tl.program_id(0).to(tl.int64) * of(NET, "features") * BLOCK_N
    p_w, p_h = operands(p_full, p_half, p_scratch, PRECISION)
    TYPE: tl.constexpr = p_full.dtype.element_ty
    H: tl.constexpr = of(NET, "columns", 1)
    for tile in range(tl.program_id(0), tl.cdiv(K, BLOCK_N), tl.num_programs(0)):
        i_k = tile * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        take_rows(p_v, s_v, p_h, i_k, K, NET)
        for o in tl.range(0, H, BLOCK_M, disable_licm=True):
            i_out = o + tl.arange(0, BLOCK_M)
            t = layer_product(p_w, p_h, i_out, NET, 0, False, BLOCK_K, BLOCK_N, PRECISION, TYPE)
            a_first = i_k[None, :] * H + i_out[:, None]
            tl.store(p_first + a_first, t, mask=(i_k < K)[None, :] & (i_out < H)[:, None])
        tl.debug_barrier()


def net_jvp(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the kernels."""
    x, v, full, (weights, biases, layers, packed) = call.x, call.v, call.full, call.net
    net = net_of(weights, layers)
    B, K, d = len(x), v.shape[-2], net.widths[-1]
    y, sq = x.new_empty((B, d)), x.new_empty((B, K), dtype=torch.float64)
    products = x.new_empty((B, K if full else 0, d))
    if not B:
        return y, sq, products
    matrices = unpack(weights, biases, packed, net)
    blocks = plan(B * max(K, 1), x.dtype, call.precision, call.tile, x.device)
    shared, nonfinite = v.ndim == 2, nonfinite_of_probes(v)
    x, v = rows_of(x), probe_rows(v)
    pieces = triton.cdiv(min(B, blocks.BLOCK_N) * K, blocks.BLOCK_N)
    work, parts = grid(net, blocks, B, pieces, 2 * blocks.BLOCK_N, x)
    with device_of(x):
        first = _first_products(v, matrices, net, blocks) if shared else None
        _net_jvp_kernel[(len(work),)](
            y, sq, products if full else None, x, None if shared else v, first, nonfinite,
            *matrices, work, B, K, parts, x.stride(0), v.stride(0), NET=net, SHARED=shared,
            **blocks.options(),
        )  # fmt: skip
    return y, sq, products


def _first_products(v: Tensor, matrices, net, blocks) -> Tensor:
    first = v.new_empty((len(v), net.columns[1]))
    if len(v):
        work = scratch(net, blocks.BLOCK_N, len(v), v)
        _first_product_kernel[(len(work),)](
            first, v, *matrices, work, len(v), v.stride(0), NET=net, **blocks.options()
        )
    return first


KNOWN_SPILLS = {  # bytes of a thread; on sm_80 operands pass through registers
    ("shared probes 784-512-512-32 tf32 tile 32", "sm_80"): "8 bytes",
    ("shared probes 784-512-512-32 tf32 tile 64", "sm_80"): "16 bytes",
    ("own probes 784-512-512-32 tf32 tile 64", "sm_80"): "8 bytes",
    ("own probes 784-512-512-32 bf16 tile 32", "sm_80"): "8 bytes",
}


def variants():
    """Every form of the kernels that ``plan`` can choose, for ahead-of-time compilation."""
    yield from net_variants(
        _first_product_kernel, ENCODERS, prefix="first product ", blocks=blocks_of
    )
    for shared in (True, False):
        prefix, absent = ("shared probes ", "p_v") if shared else ("own probes ", "p_first")
        yield from net_variants(
            _net_jvp_kernel, ENCODERS, types={"p_sq": "*fp64"}, prefix=prefix,
            blocks=blocks_of, SHARED=shared, **{absent: None},
        )  # fmt: skip
