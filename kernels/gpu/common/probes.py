"""What the Jacobian ops share: one pass of a tile's inputs, then columns beside it.

A column is one vector of one input: column c of a tile belongs to its input c // K and is probe
c % K. Columns pass in chunks as wide as the kernel's tiles, without padding between inputs; the
slopes that they meet are read from their input's row of scratch. A program's scratch holds the
inputs' rows, then the columns'.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast.functional.rows import rows_of
from vaefast.kernels.common import launch
from vaefast.kernels.common.activations import through
from vaefast.kernels.common.launch import ON_AMD, Plan, most_programs
from vaefast.kernels.common.mlp import forward_hidden, layer_product, layer_tile, put, take_rows
from vaefast.kernels.common.network import Net, of

__all__ = [
    "blocks_of",
    "grid",
    "nonfinite_in",
    "nonfinite_of_probes",
    "plan",
    "primal",
    "probe_rows",
    "push_tile",
    "slopes_of",
]


@triton.jit
def primal(
    p_y, p_x, s_x, p_full, p_w, p_h, nonfinite, i_n, m_y, N, NET: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The inputs i_n [BLOCK_N] pass once; scratch keeps all layers' slopes and ``nonfinite``.

    Outputs are stored where m_y, if p_y is given. ``nonfinite`` is NaN for inputs whose results
    shall be NaN; inputs that are not finite are added to them.
    """
    LAST: tl.constexpr = of(NET, "depth") - 1
    HAS_SLOPE: tl.constexpr = of(NET, "activations", LAST) != "identity"
    D: tl.constexpr = of(NET, "widths", LAST + 1)
    nonfinite += take_rows(p_x, s_x, p_h, i_n, N, NET)
    a_nonfinite = of(NET, "post", LAST + 1) + tl.arange(0, BLOCK_N) * of(NET, "features")
    tl.store(p_h + a_nonfinite, nonfinite.to(p_h.dtype.element_ty))
    forward_hidden(p_full, p_w, p_h, NET, True, BLOCK_M, BLOCK_K, BLOCK_N, PRECISION)
    if HAS_SLOPE or p_y is not None:
        for o in tl.range(0, D, BLOCK_M, disable_licm=True):
            i_out = o + tl.arange(0, BLOCK_M)
            y, slope = layer_tile(p_full, p_w, p_h, i_out, NET, LAST, BLOCK_K, BLOCK_N, PRECISION)
            if HAS_SLOPE:
                put(p_h, of(NET, "slope", LAST), i_out, slope, NET)
            if p_y is not None:
                m = (i_out < D)[:, None] & m_y[None, :]
                tl.store(p_y + i_n[None, :] * D + i_out[:, None], y + nonfinite[None, :], mask=m)
    tl.debug_barrier()


@triton.jit
def nonfinite_in(p_h, i_row, NET: tl.constexpr, TYPE: tl.constexpr):
    """``nonfinite`` that ``primal`` left for rows i_row [BLOCK_N] of its scratch."""
    a_nonfinite = of(NET, "post", of(NET, "depth")) + i_row * of(NET, "features")
    return tl.load(p_h + a_nonfinite).to(TYPE)


@triton.jit
def slopes_of(p_h, i_row, i_out, NET: tl.constexpr, LAYER: tl.constexpr, TYPE: tl.constexpr):
    """Slopes of features i_out of a layer for the inputs in rows i_row, [BLOCK_M, BLOCK_N]."""
    a_slope = of(NET, "slope", LAYER) + i_out[:, None] + i_row[None, :] * of(NET, "features")
    return tl.load(p_h + a_slope).to(TYPE)


@triton.jit
def push_tile(
    p_w, p_h, p_up, i_row, i_out, NET: tl.constexpr, LAYER: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr, PRECISION: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Tangents of features i_out of a layer's outputs, from those of its inputs in p_up."""
    OUT: tl.constexpr = of(NET, "widths", LAYER + 1)
    t = layer_product(p_w, p_up, i_out, NET, LAYER, False, BLOCK_K, BLOCK_N, PRECISION, TYPE)
    slope = slopes_of(p_h, i_row, i_out, NET, LAYER, TYPE)
    return through(t, slope, i_out, OUT, of(NET, "activations", LAYER))


def plan(columns: int, dtype: torch.dtype, precision: str, tile: int, device: torch.device) -> Plan:
    """Block sizes for so many columns in all; ``tile`` pins them."""
    tile = launch.plan(columns, dtype, precision, tile, device).BLOCK_N
    return blocks_of(launch.kind_of(dtype, precision), tile)


def blocks_of(kind: str, tile: int, amd: bool = ON_AMD) -> Plan:
    """As ``launch.blocks_of``, with shorter blocks where registers would spill."""
    return launch.blocks_of(kind, tile, amd)


def nonfinite_of_probes(probes: Tensor) -> Tensor:
    """0, or NaN where probes are not finite: [] for [K, n], [B] for [B, K, n]."""
    if not probes.numel():
        return probes.new_zeros(probes.shape[:-2])
    return 0.0 * torch.linalg.vector_norm(probes, math.inf, dim=(-2, -1))


def probe_rows(probes: Tensor) -> Tensor:
    """[K, n] or [B·K, n] with contiguous rows."""
    return rows_of(probes.flatten(0, -2))


def grid(
    net: Net, blocks: Plan, rows: int, pieces: int, columns: int, like: Tensor, beside: int = 0
) -> tuple[Tensor, int]:
    """Scratch [programs, features · columns] of a launch and how many share a tile of rows.

    Args:
        pieces: that a tile's columns are cut into at most.
        columns: of scratch, those of a tile's inputs and those beside them.
        beside: elements that a program has besides.
    """
    tiles = triton.cdiv(rows, blocks.BLOCK_N)
    most = most_programs(net.features * columns + beside, like)
    parts = max(1, min(most // tiles, pieces))
    programs = min(tiles * parts, most)
    return like.new_empty((programs, net.features * columns)), parts
