"""What ``decode_distance`` does with a tile of samples, besides decoding it.

A tile has one input, whose mean, std, centre and r are then scalars or single rows, or is MIXED:
each row comes with its own input.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vaefast.kernels.common.network import of
from vaefast.kernels.common.philox import normals
from vaefast.kernels.common.wide import put_wide, wide_layer
from vaefast.philox import Use

LATENT = tl.constexpr(int(Use.LATENT))
LATENT_BLOCK = tl.constexpr(32)  # drawn at a time: more would fill the registers


@triton.jit
def of_rows(p, i_column, MIXED: tl.constexpr):
    """Addresses of columns [M] of one row for all, or of as many rows as p [BLOCK_N] points at."""
    return p[:, None] + i_column[None, :] if MIXED else (p + i_column)[None, :]


@triton.jit
def draw_latents(
    p_h, i_n, p_mean, p_std, i_sample, i_index, LANE: tl.constexpr, MIXED: tl.constexpr,
    seed_low, seed_high, NET: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """mean + std·η becomes the first layer's inputs; returns 0, NaN where they are not finite.

    i_sample is [BLOCK_N]; what belongs to an input is [BLOCK_N] where MIXED.
    """
    IN: tl.constexpr = of(NET, "widths", 0)
    nonfinite = 0.0 * tl.load(p_mean)
    for o in range(0, tl.cdiv(IN, BLOCK_K) * BLOCK_K, LATENT_BLOCK):
        number = o // 4 + tl.arange(0, LATENT_BLOCK // 4)
        noise = normals(
            number[None, :], i_sample[:, None], i_index[:, None] if MIXED else i_index,
            LATENT, LANE, seed_low, seed_high,
        )  # fmt: skip
        for place in tl.static_range(4):
            i_in = 4 * number + place
            m = (i_in < IN)[None, :]
            mean = tl.load(of_rows(p_mean, i_in, MIXED), mask=m, other=0.0)
            std = tl.load(of_rows(p_std, i_in, MIXED), mask=m, other=0.0)
            mark = tl.sum(0.0 * mean + 0.0 * std, axis=1)
            nonfinite += mark if MIXED else tl.sum(mark, axis=0)
            z = mean + std * noise[place].to(std.dtype)
            put_wide(p_h, i_n, of(NET, "post", 0) + i_in, z, NET)
    return nonfinite


@triton.jit
def add_squares(
    p_sum, p_full, p_w, p_h, i_n, p_centre, i_out, MIXED: tl.constexpr, NET: tl.constexpr,
    BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add Σ (out − centre)² over the pixels i_out to a float64 for each row of the tile.

    It lies in memory between the blocks of pixels: in registers it would fill a quarter of them.
    """
    LAST: tl.constexpr = of(NET, "depth") - 1
    m = (i_out < of(NET, "widths", LAST + 1))[None, :]
    out = wide_layer(p_full, p_w, p_h, i_n, i_out, NET, LAST, BLOCK_K, PRECISION)
    centre = tl.load(of_rows(p_centre, i_out, MIXED), mask=m, other=0.0)
    difference = tl.where(m, out - centre, 0.0)
    terms = difference * difference
    if PRECISION == "ieee":
        terms = terms.to(tl.float64)
    share = tl.sum(terms, axis=1).to(tl.float64)
    tl.store(p_sum + i_n, tl.load(p_sum + i_n) + share)
    tl.debug_barrier()  # the next block's sums may lie with other threads


@triton.jit
def rows_of_tile(tile, i_n, rows, p_open, samples, MIXED: tl.constexpr):
    """Which sample each row of a tile is, of which input, and whether it is one at all.

    Rows are numbered input by input. A tile has one input, or takes the rows as they come.
    """
    BLOCK_N: tl.constexpr = i_n.shape[0]
    if MIXED:
        place = tile * BLOCK_N + i_n
        m = place < rows
        number = tl.where(m, place, 0)
        if p_open is not None:
            number = tl.load(p_open + number)
        i_b = number // samples
        i_s = number % samples
    else:
        tiles = tl.cdiv(samples, BLOCK_N)
        i_b = tile // tiles
        i_s = tile % tiles * BLOCK_N + i_n
        m = i_s < samples
    return i_b.to(tl.int64), i_s, m


@triton.jit
def add_hits(p_hits, hit, MIXED: tl.constexpr):
    one = hit.to(tl.int64)
    if MIXED:
        tl.atomic_add(p_hits, one, mask=hit)
    else:
        tl.atomic_add(p_hits, tl.sum(one, axis=0))


@triton.jit
def write_down(p_open, p_opened, i_n, m):
    """Append the rows i_n with m to a list; their order does not matter."""
    one = m.to(tl.int32)
    place = tl.atomic_add(p_opened, tl.sum(one, axis=0)) + tl.cumsum(one, axis=0) - one
    tl.store(p_open + place, i_n, mask=m)
