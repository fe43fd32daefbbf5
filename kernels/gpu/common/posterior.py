"""The energy of a tile of latents and its gradient: what HMC's kernels share."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast.kernels.common import launch
from vaefast.kernels.common.activations import through
from vaefast.kernels.common.barrier import BARRIER_STRIDE, barrier, barriers, spread_of
from vaefast.kernels.common.launch import Plan
from vaefast.kernels.common.likelihoods import constant_at, log_density, std_at
from vaefast.kernels.common.mlp import forward_hidden, layer_tile, operands, pull_to_first, put
from vaefast.kernels.common.network import Net, of
from vaefast.kernels.common.priors import prior_constant

WIDEST_TILE = {"fp64": 16, "ieee": 64, "tf32": 32, "bf16": 32}  # two precisions spill beyond


@triton.jit
def sum_of(high, low):
    """A launch's number in float64."""
    return tl.zeros([], dtype=tl.float64) + high + low


@triton.jit
def note_rows(p_rows, tile, rank, N, BLOCK_N: tl.constexpr):
    """The numbers of a tile's rows go to memory, for :func:`rows_of_tile` and :func:`own_rows`."""
    i_n = tl.arange(0, BLOCK_N)
    number = tile * BLOCK_N + i_n.to(tl.int64)
    tl.store(p_rows + i_n, number)
    tl.store(p_rows + BLOCK_N + i_n, number + rank.to(tl.int64) * N)
    tl.debug_barrier()


@triton.jit
def rows_of_tile(p_rows, N, BLOCK_N: tl.constexpr):
    """(i_n, i_n < N) [BLOCK_N], read anew at each use: no register keeps them across a product."""
    i_n = tl.load(p_rows + tl.arange(0, BLOCK_N))
    return i_n, i_n < N


@triton.jit
def own_rows(p_rows, BLOCK_N: tl.constexpr):
    """Where the tile's rows lie [BLOCK_N] in arrays of which each of its programs has a copy."""
    return tl.load(p_rows + BLOCK_N + tl.arange(0, BLOCK_N))


@triton.jit
def log_likelihood_vjp(
    p_full, p_half, p_scratch, p_terms, p_barrier, p_rows, p_x, p_std, s_x, s_std, c_std,
    chains, N, rank, spread,
    NET: tl.constexpr, LIKELIHOOD: tl.constexpr, ENERGY: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Both passes at the latents in scratch, but for the last product of the way back.

    Program ``rank`` of the ``spread`` programs of a tile computes its share of every layer.
    Row n belongs to image n // chains. Returns Σ log p [BLOCK_N] in float64, less the
    likelihood's constant; 0 where not ENERGY. What is left is :func:`input_cotangent`, which
    then gives −Jᵀ ∂log p/∂out.
    """
    p_w, p_h = operands(p_full, p_half, p_scratch, PRECISION)
    forward_hidden(
        p_full, p_w, p_h, NET, True, BLOCK_M, BLOCK_K, BLOCK_N, PRECISION, p_barrier, rank, spread
    )
    LAST: tl.constexpr = of(NET, "depth") - 1
    ACT: tl.constexpr = of(NET, "activations", LAST)
    D: tl.constexpr = of(NET, "widths", LAST + 1)
    for o in tl.range(rank * BLOCK_M, D, spread * BLOCK_M, disable_licm=True):
        i_out = o + tl.arange(0, BLOCK_M)
        out, slope = layer_tile(p_full, p_w, p_h, i_out, NET, LAST, BLOCK_K, BLOCK_N, PRECISION)
        i_n, m_n = rows_of_tile(p_rows, N, BLOCK_N)
        m = (i_out < D)[:, None] & m_n[None, :]
        x = tl.load(p_x + (i_n // chains * s_x)[None, :] + i_out[:, None], mask=m, other=0.0)
        a_std = (i_n // chains * s_std)[None, :] + (i_out * c_std)[:, None]
        terms, score = log_density(out, x, LIKELIHOOD, std_at(p_std, a_std, m, LIKELIHOOD))
        if ENERGY:
            a_terms = o // BLOCK_M * BLOCK_N + tl.arange(0, BLOCK_N)
            tl.store(p_terms + a_terms, tl.sum(tl.where(m, terms, 0.0).to(tl.float64), axis=0))
        up = through(tl.where(m, -score, 0.0), slope, i_out, D, ACT)
        put(p_h, of(NET, "post", LAST + 1), i_out, up, NET)
    barrier(p_barrier, spread)
    pull_to_first(
        p_w, p_h, p_h, tl.arange(0, BLOCK_N), of(NET, "features"), NET,
        BLOCK_M, BLOCK_K, BLOCK_N, PRECISION, p_full.dtype.element_ty, p_barrier, rank, spread,
    )  # fmt: skip
    logp = tl.zeros([BLOCK_N], dtype=tl.float64)
    if ENERGY:
        for i in range(0, pixel_blocks(NET, BLOCK_M)):
            logp += tl.load(p_terms + i * BLOCK_N + tl.arange(0, BLOCK_N))
    return logp


class Room(NamedTuple):
    """Working memory of a launch; programs of a group share a tile, its scratch and its barrier."""

    scratch: Tensor  # [groups, features, BLOCK_N]
    terms: Tensor  # Σ log p by blocks of pixels [groups, blocks, BLOCK_N], float64
    barrier: Tensor  # the counter of a group's programs [groups, ...], int64
    rows: Tensor  # a program's row numbers [programs, 2, BLOCK_N], int64
    spread: int  # programs of a group

    def launch(self) -> dict[str, int]:
        """Launch options: whether all programs have to be resident at once."""
        return {"launch_cooperative_grid": True} if self.spread > 1 else {}


def room(net: Net, blocks: Plan, rows: int, like: Tensor) -> Room:
    """Memory for a launch over so many rows: as many programs as it has entries in ``rows``."""
    tile = blocks.BLOCK_N
    spread = spread_of(net, blocks, triton.cdiv(rows, tile), like.device)
    work = launch.scratch(net, tile, rows, like)
    groups, pixels = len(work), pixel_blocks(net, blocks.BLOCK_M)
    return Room(
        work,
        work.new_empty((groups, pixels, tile), dtype=torch.float64),
        barriers(groups, work),
        work.new_empty((groups * spread, 2, tile), dtype=torch.int64),
        spread,
    )


@triton.constexpr_function
def pixel_blocks(net, block):
    """Blocks of the last layer's outputs."""
    return -(-net.widths[-1] // block)


@triton.jit
def place_of(
    p_scratch, p_terms, p_barrier, p_rows, spread,
    NET: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """(group, rank) of this program, and its own in a launch's :class:`Room`."""
    PIXELS: tl.constexpr = pixel_blocks(NET, BLOCK_M)
    program = tl.program_id(0)
    group = program // spread
    p_scratch += group.to(tl.int64) * of(NET, "features") * BLOCK_N
    p_terms += group.to(tl.int64) * PIXELS * BLOCK_N
    p_barrier += group * BARRIER_STRIDE
    return group, program % spread, p_scratch, p_terms, p_barrier, p_rows + program * 2 * BLOCK_N


@triton.jit
def energy_of(
    prior, logp, p_constant, i_x, m_n, NET: tl.constexpr, LIKELIHOOD: tl.constexpr
):  # fmt: skip
    """U [BLOCK_N] float64 of rows of images i_x, from what their latents and pixels add to it."""
    constant = tl.full([], prior_constant(NET), tl.float64)
    return constant + prior - (logp + constant_at(p_constant, i_x, m_n, LIKELIHOOD))


def plan(rows: int, dtype: torch.dtype, precision: str, tile: int, device: torch.device) -> Plan:
    """Block sizes for a batch of chains; energies and trajectories share them.

    The energy that a chain starts from is then that of the function its trajectories end with.
    """
    kind = launch.kind_of(dtype, precision)
    tile = launch.plan(rows, dtype, precision, tile, device).BLOCK_N
    return blocks_of(kind, min(tile, WIDEST_TILE[kind]) if device.type == "cuda" else tile)


def blocks_of(kind: str, tile: int, amd: bool = launch.ON_AMD) -> Plan:
    """As ``launch.blocks_of``, with as many warps as keep two precisions in registers."""
    blocks = launch.blocks_of(kind, tile, amd)
    return blocks if amd else blocks._replace(num_warps=8)
