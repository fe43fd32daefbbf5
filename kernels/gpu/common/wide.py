"""The forward pass for tiles of many rows: rows run down and features across.

    v [BLOCK_N, BLOCK_M] = h [BLOCK_N, BLOCK_K] · Wᵀ [BLOCK_K, BLOCK_M]

As ``mlp.py`` turned by a quarter. A wide product is then as cheap as the units
allow: FMA units read a row's inputs as broadcasts and the weights, from the transposed matrix, as
whole lines of shared memory; matrix units take both operands with k running fastest, which tf32
demands; and a sum over features stays within a thread but for its last steps. A layer ends with a
narrower block, so that a width like 784 is not rounded up to a multiple of BLOCK_M.

``i_n`` [BLOCK_N] are a tile's rows in its scratch, from :func:`rows_in_scratch`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vaefast.kernels.common.activations import activate
from vaefast.kernels.common.mlp import WIDEN
from vaefast.kernels.common.network import of

NARROWEST = tl.constexpr(16)  # the fewest columns of a matrix instruction


@triton.constexpr_function
def rest_of(width, block, least):
    """Columns of the block behind the last whole one: a power of two, 0 where none is left."""
    rest = width % block
    return max(triton.next_power_of_2(rest), least) if rest else 0


@triton.jit
def rows_in_scratch(number, BLOCK_N: tl.constexpr):
    """0 to BLOCK_N − 1, in a form that the compiler computes anew for every ``number`` >= 0.

    Else it keeps what follows from it, an address for each element, in registers across tiles,
    layers and blocks, and spills. Numbers are below 2²⁸, which it does not know.
    """
    return tl.arange(0, BLOCK_N) + (number >> 28)


@triton.jit
def wide_product(
    p_full, p_w, p_h, i_n, i_out, NET: tl.constexpr, LAYER: tl.constexpr,
    BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Columns i_out of h Wᵀ [BLOCK_N, BLOCK_M] for the layer's inputs in scratch."""
    TYPE: tl.constexpr = p_full.dtype.element_ty
    EXACTNESS: tl.constexpr = "tf32" if PRECISION == "bf16" else PRECISION
    i_k = tl.arange(0, BLOCK_K)
    if PRECISION == "ieee":
        STRIDE: tl.constexpr = of(NET, "columns", LAYER + 1)
        p_w = p_full + of(NET, "turned", LAYER) + i_k[:, None] * STRIDE + i_out[None, :]
    else:
        STRIDE: tl.constexpr = 1
        p_w += of(NET, "weight", LAYER) + i_k[:, None]
        p_w += i_out[None, :] * of(NET, "columns", LAYER)
    p_h += of(NET, "post", LAYER) + i_n[:, None] * of(NET, "features") + i_k[None, :]
    total = tl.zeros([i_n.shape[0], i_out.shape[0]], dtype=TYPE)
    for o_k in range(0, of(NET, "widths", LAYER), BLOCK_K):
        h = tl.load(p_h + o_k)
        w = tl.load(p_w + o_k * STRIDE)
        if WIDEN:
            h, w = h.to(TYPE), w.to(TYPE)
        total = tl.dot(h, w, total, input_precision=EXACTNESS, out_dtype=TYPE)
    return total


@triton.jit
def wide_layer(
    p_full, p_w, p_h, i_n, i_out, NET: tl.constexpr, LAYER: tl.constexpr,
    BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Outputs i_out of a layer [BLOCK_N, BLOCK_M]."""
    v = wide_product(p_full, p_w, p_h, i_n, i_out, NET, LAYER, BLOCK_K, PRECISION)
    v += tl.load(p_full + of(NET, "bias", LAYER) + i_out)[None, :]
    OUT: tl.constexpr = of(NET, "widths", LAYER + 1)
    ACT: tl.constexpr = of(NET, "activations", LAYER)
    y, _ = activate(tl.trans(v), i_out, OUT, ACT, of(NET, "parameters", LAYER))
    return tl.trans(y)


@triton.jit
def put_wide(p_h, i_n, i_feature, v, NET: tl.constexpr):
    """Store v [BLOCK_N, features] as features i_feature of a tile's scratch."""
    a_h = i_n[:, None] * of(NET, "features") + i_feature[None, :]
    tl.store(p_h + a_h, v.to(p_h.dtype.element_ty))


@triton.jit
def wide_hidden(
    p_full, p_w, p_h, tile, NET: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All layers but the last, through scratch."""
    for layer in tl.static_range(of(NET, "depth") - 1):
        _hidden_layer(p_full, p_w, p_h, tile, NET, layer, BLOCK_M, BLOCK_K, BLOCK_N, PRECISION)
        tl.debug_barrier()


@triton.jit
def _hidden_layer(
    p_full, p_w, p_h, tile, NET: tl.constexpr, LAYER: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    OUT: tl.constexpr = of(NET, "widths", LAYER + 1)
    AT: tl.constexpr = of(NET, "post", LAYER + 1)
    WHOLE: tl.constexpr = OUT // BLOCK_M * BLOCK_M
    REST: tl.constexpr = rest_of(OUT, BLOCK_M, BLOCK_K)  # the next layer reads whole blocks of k
    for o in range(0, WHOLE, BLOCK_M):
        i_n = rows_in_scratch(tile + o, BLOCK_N)
        i_out = o + tl.arange(0, BLOCK_M)
        y = wide_layer(p_full, p_w, p_h, i_n, i_out, NET, LAYER, BLOCK_K, PRECISION)
        put_wide(p_h, i_n, AT + i_out, y, NET)
    if REST:
        i_n = rows_in_scratch(tile + WHOLE, BLOCK_N)
        i_out = WHOLE + tl.arange(0, REST)
        y = wide_layer(p_full, p_w, p_h, i_n, i_out, NET, LAYER, BLOCK_K, PRECISION)
        put_wide(p_h, i_n, AT + i_out, y, NET)
