"""The passes through an MLP that the kernels share.

A program owns a tile of BLOCK_N rows (latents, inputs or samples). Features run down and rows run
across, so that a matrix unit's long side lies along a layer's outputs and a tile may be narrow:

    v [BLOCK_M, BLOCK_N] = W [BLOCK_M, BLOCK_K] · h [BLOCK_K, BLOCK_N] + ...

Activations, slopes and cotangents pass through the tile's scratch in global memory, which the
second-level cache holds; nothing but one product's operands stays in registers between layers.
Every sum over k runs in ascending order in blocks that depend on the precision only.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vaefast.backends import interpreted
from vaefast.kernels.activations import activate, through
from vaefast.kernels.network import COLUMN_PAD, of

COLUMN_BLOCK = tl.constexpr(COLUMN_PAD)
WIDEN = tl.constexpr(interpreted())  # whose tl.dot multiplies the bits of bf16 as integers


@triton.jit
def operands(p_full, p_half, p_scratch, PRECISION: tl.constexpr):
    """Weights and scratch in the type that the products of this precision take."""
    if PRECISION == "bf16":
        p_w = p_half
        p_h = p_scratch.to(tl.pointer_type(tl.bfloat16), bitcast=True)
    else:
        p_w = p_full
        p_h = p_scratch
    return p_w, p_h


@triton.jit
def product(
    p_w, p_h, i_out, NET: tl.constexpr, INPUTS: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr, PRECISION: tl.constexpr, TYPE: tl.constexpr, begin=0,
):  # fmt: skip
    """Rows i_out of W h [BLOCK_M, BLOCK_N] in TYPE, for h [K, BLOCK_N], K = widths[INPUTS].

    These rows of W are zero before column ``begin``, a multiple of BLOCK_K.
    """
    K: tl.constexpr = of(NET, "widths", INPUTS)
    STRIDE: tl.constexpr = of(NET, "columns", INPUTS)
    EXACTNESS: tl.constexpr = "tf32" if PRECISION == "bf16" else PRECISION
    i_k = tl.arange(0, BLOCK_K)
    i_n = tl.arange(0, BLOCK_N)
    p_w += i_out[:, None] * STRIDE + i_k[None, :]  # [BLOCK_M, BLOCK_K]
    p_h += i_k[:, None] + i_n[None, :] * of(NET, "features")  # [BLOCK_K, BLOCK_N]
    total = tl.zeros([i_out.shape[0], BLOCK_N], dtype=TYPE)
    for o_k in range(begin, K, BLOCK_K):
        w = tl.load(p_w + o_k)
        h = tl.load(p_h + o_k)
        if WIDEN:
            w, h = w.to(TYPE), h.to(TYPE)
        total = tl.dot(w, h, total, input_precision=EXACTNESS, out_dtype=TYPE)
    return total


@triton.jit
def layer_tile(
    p_full, p_w, p_h, i_out, NET: tl.constexpr, LAYER: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Outputs i_out of a layer and their slopes, both [BLOCK_M, BLOCK_N]."""
    TYPE: tl.constexpr = p_full.dtype.element_ty
    v = product(
        p_w + of(NET, "weight", LAYER), p_h + of(NET, "post", LAYER),
        i_out, NET, LAYER, BLOCK_K, BLOCK_N, PRECISION, TYPE,
    )  # fmt: skip
    v += tl.load(p_full + of(NET, "bias", LAYER) + i_out)[:, None]
    OUT: tl.constexpr = of(NET, "widths", LAYER + 1)
    return activate(v, i_out, OUT, of(NET, "activations", LAYER), of(NET, "parameters", LAYER))


@triton.jit
def put(p_h, at, i_row, v, NET: tl.constexpr):
    """Store v [rows, BLOCK_N] as features ``at + i_row`` of a tile's scratch."""
    i_n = tl.arange(0, v.shape[1])
    a_h = at + i_row[:, None] + i_n[None, :] * of(NET, "features")
    tl.store(p_h + a_h, v.to(p_h.dtype.element_ty))


@triton.jit
def take_rows(p_z, s_z, p_h, i_n, N, NET: tl.constexpr):
    """Rows i_n of z become the first layer's inputs; 0 [BLOCK_N], NaN where a row is not finite."""
    IN: tl.constexpr = of(NET, "widths", 0)
    BLOCK_N: tl.constexpr = i_n.shape[0]
    flaw = tl.zeros([BLOCK_N], dtype=p_z.dtype.element_ty)
    for o in range(0, IN, COLUMN_BLOCK):
        i_in = o + tl.arange(0, COLUMN_BLOCK)
        m = (i_in < IN)[:, None] & (i_n < N)[None, :]
        z = tl.load(p_z + i_n[None, :] * s_z + i_in[:, None], mask=m, other=0.0)
        flaw += tl.sum(0.0 * z, axis=0)
        put(p_h, of(NET, "post", 0), i_in, z, NET)
    tl.debug_barrier()
    return flaw


@triton.jit
def flaw_of(p_row, m_n, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """0 [BLOCK_N], NaN where a row of WIDTH elements from p_row [BLOCK_N] is not finite."""
    flaw = tl.zeros(m_n.shape, dtype=p_row.dtype.element_ty)
    for o in range(0, WIDTH, BLOCK):
        i = o + tl.arange(0, BLOCK)
        m = (i < WIDTH)[:, None] & m_n[None, :]
        flaw += tl.sum(0.0 * tl.load(p_row[None, :] + i[:, None], mask=m, other=0.0), axis=0)
    return flaw


@triton.jit
def forward_hidden(
    p_full, p_w, p_h, NET: tl.constexpr, SLOPES: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All layers but the last: scratch gets their outputs and, where asked, their slopes."""
    for layer in tl.static_range(of(NET, "depth") - 1):
        for o in tl.range(0, of(NET, "widths", layer + 1), BLOCK_M, disable_licm=True):
            i_out = o + tl.arange(0, BLOCK_M)
            y, slope = layer_tile(p_full, p_w, p_h, i_out, NET, layer, BLOCK_K, BLOCK_N, PRECISION)
            put(p_h, of(NET, "post", layer + 1), i_out, y, NET)
            if SLOPES:
                put(p_h, of(NET, "slope", layer), i_out, slope, NET)
        tl.debug_barrier()


@triton.jit
def pull_to_first(
    p_w, p_up, p_slope, i_slope, S_SLOPE: tl.constexpr, NET: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """From the cotangent of the last layer's pre-activations to the first's, through scratch.

    A layer's cotangent lies in p_up where its output lay. Slopes are those of columns i_slope
    [BLOCK_N] of a tile with S_SLOPE columns: several cotangents may share a row's slopes.
    """
    for layer in tl.static_range(of(NET, "depth") - 1, 0, -1):
        pull_layer(
            p_w, p_up, p_slope, i_slope, S_SLOPE, NET, layer,
            BLOCK_M, BLOCK_K, BLOCK_N, PRECISION, TYPE,
        )  # fmt: skip
        tl.debug_barrier()


@triton.jit
def pull_layer(
    p_w, p_up, p_slope, i_slope, S_SLOPE: tl.constexpr, NET: tl.constexpr, LAYER: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
    TYPE: tl.constexpr,
):  # fmt: skip
    """The cotangent of layer LAYER − 1's pre-activations from that of layer LAYER's."""
    IN: tl.constexpr = of(NET, "widths", LAYER)
    for o in tl.range(0, IN, BLOCK_M, disable_licm=True):
        i_in = o + tl.arange(0, BLOCK_M)
        up = product(
            p_w + of(NET, "turned", LAYER), p_up + of(NET, "post", LAYER + 1),
            i_in, NET, LAYER + 1, BLOCK_K, BLOCK_N, PRECISION, TYPE,
        )  # fmt: skip
        a_slope = of(NET, "slope", LAYER - 1) + i_in[:, None] + i_slope[None, :] * S_SLOPE
        slope = tl.load(p_slope + a_slope).to(TYPE)
        up = through(up, slope, i_in, IN, of(NET, "activations", LAYER - 1))
        put(p_up, of(NET, "post", LAYER), i_in, up, NET)


@triton.jit
def input_cotangent(
    p_w, p_up, i_in, NET: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Rows i_in of the network's input cotangent, after :func:`pull_to_first`."""
    return product(
        p_w + of(NET, "turned", 0), p_up + of(NET, "post", 1),
        i_in, NET, 1, BLOCK_K, BLOCK_N, PRECISION, TYPE,
    )  # fmt: skip
