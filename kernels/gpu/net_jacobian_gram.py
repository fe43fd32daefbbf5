"""``net_jacobian_gram`` in Triton: S J Jᵀ S of a tile of inputs, in one launch.

With F Fᵀ = W₁W₁ᵀ, made once per call, J = M W₁ and A = Fᵀ Mᵀ S it is Aᵀ A. A group of columns is
the d unit vectors of as many inputs as fit, or of one; its A lies in scratch in full precision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast.functional.rows import rows_of
from vaefast.kernels.common import launch, probes
from vaefast.kernels.common.activations import through
from vaefast.kernels.common.first_factor import factor_rows, packed_factor
from vaefast.kernels.common.forms import ENCODERS, net_variants
from vaefast.kernels.common.launch import ON_AMD, WIDEST_TILE, Plan, device_of
from vaefast.kernels.common.mlp import nonfinite_of, operands, pull_layer, put
from vaefast.kernels.common.network import net_of, of, unpack
from vaefast.kernels.common.probes import grid, nonfinite_in, primal, slopes_of

if TYPE_CHECKING:
    from vaefast.ops.net_jacobian_gram import Call

__all__ = ["net_jacobian_gram"]

INTEGERS = ["B", "parts", "s_x", "s_inv_std"]
INPUTS = ["p_x", "p_inv_std"]  # whose alignment must not choose a layout


@triton.jit(do_not_specialize=INTEGERS, do_not_specialize_on_alignment=INPUTS)
def _net_jacobian_gram_kernel(
    p_out, p_x, p_inv_std, p_full, p_half, p_factor, p_factor_half, p_scratch, p_root,
    B, parts, s_x, s_inv_std,
    NET: tl.constexpr, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    TYPE: tl.constexpr = p_full.dtype.element_ty
    F: tl.constexpr = of(NET, "features")
    d: tl.constexpr = of(NET, "widths", of(NET, "depth"))
    INPUTS: tl.constexpr = inputs_of_group(NET, BLOCK_C)
    COLUMNS: tl.constexpr = INPUTS * of(NET, "widths", of(NET, "depth"))
    WIDTH: tl.constexpr = _root_columns(NET, BLOCK_C)
    S_COLUMN: tl.constexpr = 1 if PRECISION == "ieee" else _root_rows(NET)
    S_ROW: tl.constexpr = WIDTH if PRECISION == "ieee" else 1
    p_scratch += tl.program_id(0).to(tl.int64) * F * (BLOCK_N + BLOCK_C)
    p_root += tl.program_id(0).to(tl.int64) * _root_rows(NET) * WIDTH
    p_w, p_h = operands(p_full, p_half, p_scratch, PRECISION)
    p_r = p_factor_half if PRECISION == "bf16" else p_factor
    p_up = p_h + F * BLOCK_N
    for unit in range(tl.program_id(0), tl.cdiv(B, BLOCK_N) * parts, tl.num_programs(0)):
        first, part = unit // parts * BLOCK_N, unit % parts
        i_n = first + tl.arange(0, BLOCK_N).to(tl.int64)
        nonfinite = tl.zeros([BLOCK_N], dtype=TYPE)
        if p_inv_std is not None:
            nonfinite += nonfinite_of(p_inv_std + i_n * s_inv_std, i_n < B, d, BLOCK_M)
        primal(
            None, p_x, s_x, p_full, p_w, p_h, nonfinite, i_n, i_n < B, B, NET,
            BLOCK_M, BLOCK_K, BLOCK_N, PRECISION,
        )  # fmt: skip
        inputs = tl.minimum(B - first, BLOCK_N)
        for i_first in range(part * INPUTS, inputs, parts * INPUTS):  # row of the group's first
            for o_c in range(0, COLUMNS, BLOCK_C):
                i_c = o_c + tl.arange(0, BLOCK_C)
                m_c = (i_c < COLUMNS) & (i_first + i_c // d < inputs)
                i_row = tl.where(m_c, i_first + i_c // d, 0)
                _enter(p_full, p_h, p_up, i_row, i_c % d, NET, BLOCK_M, TYPE)
                for layer in tl.static_range(of(NET, "depth") - 2, 0, -1):
                    pull_layer(
                        p_w, p_up, p_h, i_row, F, NET, layer,
                        BLOCK_M, BLOCK_K, BLOCK_C, PRECISION, TYPE,
                    )  # fmt: skip
                    tl.debug_barrier()
                scale = tl.full([BLOCK_C], 1.0, TYPE)
                if p_inv_std is not None:
                    a_scale = (tl.zeros([BLOCK_C], tl.int64) + first + i_row) * s_inv_std
                    scale = tl.load(p_inv_std + a_scale + i_c % d)
                _store_roots(
                    p_root + i_c * S_COLUMN, S_ROW, scale, p_r, p_w, p_up, NET,
                    BLOCK_M, BLOCK_K, BLOCK_C, PRECISION, TYPE,
                )  # fmt: skip
                tl.debug_barrier()
            _square(
                p_out + (tl.zeros([1], tl.int64) + first) * d * d, p_root, p_h, i_first, inputs,
                S_COLUMN, S_ROW, NET, COLUMNS, BLOCK_K, BLOCK_C, PRECISION, TYPE,
            )  # fmt: skip
            tl.debug_barrier()


@triton.constexpr_function
def inputs_of_group(net, columns):
    """How many inputs have all their unit vectors among so many columns; at least one."""
    return max(1, columns // net.widths[-1])


@triton.constexpr_function
def _root_columns(net, block):
    """Columns of a group's A, padded."""
    return -(-inputs_of_group(net, block) * net.widths[-1] // block) * block


@triton.constexpr_function
def _root_rows(net):
    """Rows of A, padded; they run fastest, for FMA units its columns do."""
    return min(net.columns[:2])


@triton.jit
def _enter(
    p_full, p_h, p_up, i_row, i_unit, NET: tl.constexpr, BLOCK_M: tl.constexpr, TYPE: tl.constexpr
):
    """Unit vectors i_unit [BLOCK_C] of inputs i_row go into scratch: as the last layer's
    pre-activations' cotangent or, where there are layers before it, through its weights."""
    LAST: tl.constexpr = of(NET, "depth") - 1
    d: tl.constexpr = of(NET, "widths", LAST + 1)
    size = tl.full(i_unit.shape, 1.0, TYPE)
    source = i_unit
    if of(NET, "activations", LAST) != "identity":
        a_slope = of(NET, "slope", LAST) + i_unit + i_row * of(NET, "features")
        size = tl.load(p_h + a_slope).to(TYPE)
    if of(NET, "activations", LAST) == "maxmin":
        source = tl.where(size > 0, i_unit, i_unit ^ 1)  # a pair may have been exchanged
        size = tl.full(i_unit.shape, 1.0, TYPE)
    if LAST == 0:
        for o in tl.range(0, d, BLOCK_M, disable_licm=True):
            i_out = o + tl.arange(0, BLOCK_M)
            up = tl.where(i_out[:, None] == source[None, :], size[None, :], 0.0)
            put(p_up, of(NET, "post", 1), i_out, up, NET)
    else:
        _through_last(p_full, p_h, p_up, i_row, source, size, NET, LAST, BLOCK_M, TYPE)
    tl.debug_barrier()


@triton.jit
def _through_last(
    p_full, p_h, p_up, i_row, source, size, NET: tl.constexpr, LAST: tl.constexpr,
    BLOCK_M: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Rows ``source`` of the last layer's weights times ``size`` pass the activation before it."""
    IN: tl.constexpr = of(NET, "widths", LAST)
    p_row = p_full + of(NET, "weight", LAST) + source * of(NET, "columns", LAST)  # [BLOCK_C]
    for o in range(0, IN, BLOCK_M):
        i_in = o + tl.arange(0, BLOCK_M)
        up = size[None, :] * tl.load(p_row[None, :] + i_in[:, None])
        slope = slopes_of(p_h, i_row, i_in, NET, LAST - 1, TYPE)
        up = through(up, slope, i_in, IN, of(NET, "activations", LAST - 1))
        put(p_up, of(NET, "post", LAST), i_in, up, NET)


@triton.jit
def _store_roots(
    p_column, S_ROW: tl.constexpr, scale, p_r, p_w, p_up, NET: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """A chunk's columns of A go to p_column [BLOCK_C]."""
    for o in tl.range(0, _root_rows(NET), BLOCK_M, disable_licm=True):
        i_row = o + tl.arange(0, BLOCK_M)
        a = factor_rows(p_r, p_w, p_up, i_row, o, NET, BLOCK_K, BLOCK_C, PRECISION, TYPE)
        tl.store(p_column[None, :] + i_row[:, None] * S_ROW, a * scale[None, :])


@triton.jit
def _square(
    p_out, p_root, p_h, i_first, inputs, S_COLUMN: tl.constexpr, S_ROW: tl.constexpr,
    NET: tl.constexpr, COLUMNS: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Aᵀ A of a group's inputs, whose first is row i_first of the tile. p_out is the tile's.

    Entries (i, j) and (j, i) are one sum. Its products are at least tf32: it takes a tenth of the
    time, and rounding both sides alike leaves it positive semidefinite.
    """
    d: tl.constexpr = of(NET, "widths", of(NET, "depth"))
    EXACTNESS: tl.constexpr = "tf32" if PRECISION == "bf16" else PRECISION
    i_k = tl.arange(0, BLOCK_K)
    for o_i in range(0, COLUMNS, BLOCK_C):
        i = o_i + tl.arange(0, BLOCK_C)
        i_row = i_first + i // d
        m_i = (i < COLUMNS) & (i_row < inputs)
        nonfinite = nonfinite_in(p_h, tl.where(m_i, i_row, 0), NET, TYPE)
        for o_j in range(0, o_i + BLOCK_C, BLOCK_C):
            j = o_j + tl.arange(0, BLOCK_C)
            total = tl.zeros([BLOCK_C, BLOCK_C], dtype=TYPE)
            for o_k in range(0, _root_rows(NET), BLOCK_K):
                left = tl.load(p_root + i[:, None] * S_COLUMN + (o_k + i_k)[None, :] * S_ROW)
                right = tl.load(p_root + j[None, :] * S_COLUMN + (o_k + i_k)[:, None] * S_ROW)
                total = tl.dot(left, right, total, input_precision=EXACTNESS, out_dtype=TYPE)
            total += nonfinite[:, None]
            m = m_i[:, None] & ((i // d)[:, None] == (j // d)[None, :])
            below = (i % d)[:, None] >= (j % d)[None, :]
            p_matrix = p_out + i_row[:, None] * d * d
            tl.store(p_matrix + (i % d)[:, None] * d + (j % d)[None, :], total, mask=m & below)
            tl.store(p_matrix + (j % d)[None, :] * d + (i % d)[:, None], total, mask=m & below)


def net_jacobian_gram(call: Call) -> Tensor:
    """Launch the kernel."""
    x, inv_std, (weights, biases, layers, packed) = call.x, call.inv_std, call.net
    net = net_of(weights, layers)
    B, d = len(x), net.widths[-1]
    out = x.new_empty((B, d, d))
    if not B:
        return out
    matrices = unpack(weights, biases, packed, net)
    blocks, BLOCK_C = plan(B, x.dtype, call.precision, call.tile, x.device)
    factors = packed_factor(weights[0], net, blocks.PRECISION)
    x, inv_std = rows_of(x), None if inv_std is None else rows_of(inv_std)
    inputs = inputs_of_group(net, BLOCK_C)
    pieces = triton.cdiv(min(B, blocks.BLOCK_N), inputs)
    root = _root_columns(net, BLOCK_C) * _root_rows(net)
    work, parts = grid(net, blocks, B, pieces, blocks.BLOCK_N + BLOCK_C, x, root)
    roots = x.new_empty((len(work), root))
    with device_of(x):
        _net_jacobian_gram_kernel[(len(work),)](
            out, x, inv_std, *matrices, *factors, work, roots, B, parts, x.stride(0),
            0 if inv_std is None else inv_std.stride(0), NET=net, BLOCK_C=BLOCK_C,
            **blocks.options(),
        )  # fmt: skip
    return out


def plan(
    rows: int, dtype: torch.dtype, precision: str, tile: int, device: torch.device
) -> tuple[Plan, int]:
    """Block sizes for a batch, and how many columns pass together: always the most."""
    kind = launch.kind_of(dtype, precision)
    inputs = launch.plan(rows, dtype, precision, tile, device).BLOCK_N
    return blocks_of(kind, inputs)


def blocks_of(kind: str, tile: int, amd: bool = ON_AMD) -> tuple[Plan, int]:
    """The launch for "fp64" or a precision and a tile of inputs, and its columns."""
    columns = WIDEST_TILE[kind]
    blocks = probes.blocks_of(kind, columns, amd)
    return blocks._replace(BLOCK_N=tile, maxnreg=None), columns  # which here needs none, and fewer


def variants():
    """Every form of the kernel that ``plan`` can choose, for ahead-of-time compilation."""
    for kind, columns in WIDEST_TILE.items():
        forms = net_variants(
            _net_jacobian_gram_kernel,
            ENCODERS,
            blocks=lambda *how: blocks_of(*how)[0],
            BLOCK_C=columns,
        )
        yield from (v for v in forms if f" {kind} " in v.label)
