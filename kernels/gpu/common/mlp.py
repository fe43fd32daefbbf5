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

from vaefast.kernels.common.activations import activate, through
from vaefast.kernels.common.barrier import barrier
from vaefast.kernels.common.network import COLUMN_PAD, of
from vaefast.runtime.backends import interpreted

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


@triton.constexpr_function
def matrix_of(net, layer, back, precision):
    """(offset, S_OUT, S_IN) of a layer's matrix, or of its transpose for the way back.

    FMA units want the outputs to run fastest, matrix units the inputs.
    """
    by_inputs = precision != "ieee"
    if by_inputs != back:
        at, stride = net.weight[layer], net.columns[layer]
    else:
        at, stride = net.turned[layer], net.columns[layer + 1]
    return (at, stride, 1) if by_inputs else (at, 1, stride)


@triton.jit
def product(
    p_w, p_h, i_out, NET: tl.constexpr, S_OUT: tl.constexpr, S_IN: tl.constexpr, K: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr, TYPE: tl.constexpr,
    begin=0,
):  # fmt: skip
    """Rows i_out of W h [BLOCK_M, BLOCK_N] in TYPE, for h [K, BLOCK_N] in scratch.

    Entry (m, k) of W lies at p_w + m·S_OUT + k·S_IN; it is zero in these rows before column
    ``begin``, a multiple of BLOCK_K. Where outputs run fastest, the product is taken turned: a
    warp of FMA units then reads W in whole lines of shared memory and h as broadcasts.
    """
    EXACTNESS: tl.constexpr = "tf32" if PRECISION == "bf16" else PRECISION
    F: tl.constexpr = of(NET, "features")
    BLOCK_M: tl.constexpr = i_out.shape[0]
    TURNED: tl.constexpr = S_OUT == 1
    i_k = tl.arange(0, BLOCK_K)
    i_n = tl.arange(0, BLOCK_N)
    if TURNED:
        p_w += i_out[None, :] + i_k[:, None] * S_IN  # [BLOCK_K, BLOCK_M]
        p_h += i_n[:, None] * F + i_k[None, :]  # [BLOCK_N, BLOCK_K]
        total = tl.zeros([BLOCK_N, BLOCK_M], dtype=TYPE)
    else:
        p_w += i_out[:, None] * S_OUT + i_k[None, :] * S_IN  # [BLOCK_M, BLOCK_K]
        p_h += i_k[:, None] + i_n[None, :] * F  # [BLOCK_K, BLOCK_N]
        total = tl.zeros([BLOCK_M, BLOCK_N], dtype=TYPE)
    for o_k in range(begin, K, BLOCK_K):
        w = tl.load(p_w + o_k * S_IN)
        h = tl.load(p_h + o_k)
        if WIDEN:
            w, h = w.to(TYPE), h.to(TYPE)
        if TURNED:
            total = tl.dot(h, w, total, input_precision=EXACTNESS, out_dtype=TYPE)
        else:
            total = tl.dot(w, h, total, input_precision=EXACTNESS, out_dtype=TYPE)
    return tl.trans(total) if TURNED else total


@triton.jit
def layer_product(
    p_w, p_h, i_out, NET: tl.constexpr, LAYER: tl.constexpr, BACK: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Rows i_out of W h or, on the way BACK, of Wᵀ h, for a layer's inputs or cotangents h."""
    FROM: tl.constexpr = LAYER + 1 if BACK else LAYER
    AT: tl.constexpr = matrix_of(NET, LAYER, BACK, PRECISION)[0]
    S_OUT: tl.constexpr = matrix_of(NET, LAYER, BACK, PRECISION)[1]
    S_IN: tl.constexpr = matrix_of(NET, LAYER, BACK, PRECISION)[2]
    return product(
        p_w + AT, p_h + of(NET, "post", FROM), i_out, NET, S_OUT, S_IN, of(NET, "widths", FROM),
        BLOCK_K, BLOCK_N, PRECISION, TYPE,
    )  # fmt: skip


@triton.jit
def layer_tile(
    p_full, p_w, p_h, i_out, NET: tl.constexpr, LAYER: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Outputs i_out of a layer and their slopes, both [BLOCK_M, BLOCK_N]."""
    TYPE: tl.constexpr = p_full.dtype.element_ty
    v = layer_product(p_w, p_h, i_out, NET, LAYER, False, BLOCK_K, BLOCK_N, PRECISION, TYPE)
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
    nonfinite = tl.zeros([BLOCK_N], dtype=p_z.dtype.element_ty)
    for o in range(0, IN, COLUMN_BLOCK):
        i_in = o + tl.arange(0, COLUMN_BLOCK)
        m = (i_in < IN)[:, None] & (i_n < N)[None, :]
        z = tl.load(p_z + i_n[None, :] * s_z + i_in[:, None], mask=m, other=0.0)
        nonfinite += tl.sum(0.0 * z, axis=0)
        put(p_h, of(NET, "post", 0), i_in, z, NET)
    tl.debug_barrier()
    return nonfinite


@triton.jit
def nonfinite_of(p_row, m_n, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """0 [BLOCK_N], NaN where a row of WIDTH elements from p_row [BLOCK_N] is not finite."""
    nonfinite = tl.zeros(m_n.shape, dtype=p_row.dtype.element_ty)
    for o in range(0, WIDTH, BLOCK):
        i = o + tl.arange(0, BLOCK)
        m = (i < WIDTH)[:, None] & m_n[None, :]
        nonfinite += tl.sum(0.0 * tl.load(p_row[None, :] + i[:, None], mask=m, other=0.0), axis=0)
    return nonfinite


@triton.jit
def forward_hidden(
    p_full, p_w, p_h, NET: tl.constexpr, SLOPES: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
    p_barrier=None, rank=0, spread=1,
):  # fmt: skip
    """All layers but the last: scratch gets their outputs and, where asked, their slopes.

    Where a barrier is given, program ``rank`` of ``spread`` computes its share of them.
    """
    for layer in tl.static_range(of(NET, "depth") - 1):
        width = of(NET, "widths", layer + 1)
        for o in tl.range(rank * BLOCK_M, width, spread * BLOCK_M, disable_licm=True):
            i_out = o + tl.arange(0, BLOCK_M)
            y, slope = layer_tile(p_full, p_w, p_h, i_out, NET, layer, BLOCK_K, BLOCK_N, PRECISION)
            put(p_h, of(NET, "post", layer + 1), i_out, y, NET)
            if SLOPES:
                put(p_h, of(NET, "slope", layer), i_out, slope, NET)
        after_layer(p_barrier, spread)


@triton.jit
def after_layer(p_barrier, spread):
    """What a layer stored may be read: by this program or, with a barrier, by its group."""
    if p_barrier is None:
        tl.debug_barrier()
    else:
        barrier(p_barrier, spread)


@triton.jit
def pull_to_first(
    p_w, p_up, p_slope, i_slope, S_SLOPE: tl.constexpr, NET: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr, TYPE: tl.constexpr,
    p_barrier=None, rank=0, spread=1,
):  # fmt: skip
    """From the cotangent of the last layer's pre-activations to the first's, through scratch.

    A layer's cotangent lies in p_up where its output lay. Slopes are those of columns i_slope
    [BLOCK_N] of a tile with S_SLOPE columns: several cotangents may share a row's slopes. A barrier
    is as in :func:`forward_hidden`.
    """
    for layer in tl.static_range(of(NET, "depth") - 1, 0, -1):
        pull_layer(
            p_w, p_up, p_slope, i_slope, S_SLOPE, NET, layer,
            BLOCK_M, BLOCK_K, BLOCK_N, PRECISION, TYPE, rank, spread,
        )  # fmt: skip
        after_layer(p_barrier, spread)


@triton.jit
def pull_layer(
    p_w, p_up, p_slope, i_slope, S_SLOPE: tl.constexpr, NET: tl.constexpr, LAYER: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
    TYPE: tl.constexpr, rank=0, spread=1,
):  # fmt: skip
    """The cotangent of layer LAYER − 1's pre-activations from that of layer LAYER's."""
    IN: tl.constexpr = of(NET, "widths", LAYER)
    for o in tl.range(rank * BLOCK_M, IN, spread * BLOCK_M, disable_licm=True):
        i_in = o + tl.arange(0, BLOCK_M)
        up = layer_product(p_w, p_up, i_in, NET, LAYER, True, BLOCK_K, BLOCK_N, PRECISION, TYPE)
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
    return layer_product(p_w, p_up, i_in, NET, 0, True, BLOCK_K, BLOCK_N, PRECISION, TYPE)
