"""``decode_distance`` in Triton: draw, decode, compare, count, a tile of samples at a time.

Row n of a launch is sample n % samples of input n // samples; a tile may hold rows of several
inputs. A row's distance depends on that row alone, so hits depend neither on the tiles' order nor
on how the samples were cut.

tf32 and bf16 only decide what is clear: a distance farther from r than the input's error band,
see :func:`error_band`. The other rows are written down, at most as many as the launch has, and a
second launch decides them with IEEE products, gathered into full tiles.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast import memory
from vaefast.kernels.elementary import INFINITY
from vaefast.kernels.launch import NARROWEST_TILE, Plan, device_of, processors, words_of
from vaefast.kernels.mlp import operands
from vaefast.kernels.network import Net, forward_only, net_of, of, unpack
from vaefast.kernels.philox import normals
from vaefast.kernels.wide import (
    NARROWEST,
    put_wide,
    rest_of,
    rows_in_scratch,
    wide_hidden,
    wide_layer,
)
from vaefast.ops._register import rows_of
from vaefast.philox import Use

__all__ = ["Counted", "count", "decode_distance", "error_band", "plan", "variants"]

logger = logging.getLogger("vaefast")

CALIBRATION = 16  # draws per input that its error band rests on
SAFETY = 8.0  # times their root mean square
MOST_ROWS = 1 << 27  # of a launch
MOST_OPEN = 1 << 22  # of a launch that writes rows down
PROGRAMS_PER_PROCESSOR = {"fp64": 1, "ieee": 3, "tf32": 2, "bf16": 2}
EXACT = ("fp64", "ieee")
FEWEST_ALONE = 48  # samples of an input that get tiles of their own
INTERPRETED_TILE = 1024  # an operation costs the interpreter the same for any tile
WIDEST_TILE = {"fp64": 32, "ieee": 64, "tf32": 128, "bf16": 128}

LATENT = tl.constexpr(int(Use.LATENT))
LATENT_BLOCK = tl.constexpr(32)  # drawn at a time: more would fill the registers
COUNTED, MEASURED = tl.constexpr(0), tl.constexpr(1)  # Philox lanes: samples, and the band's own


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
    flaw = 0.0 * tl.load(p_mean)
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
            bad = tl.sum(0.0 * mean + 0.0 * std, axis=1)
            flaw += bad if MIXED else tl.sum(bad, axis=0)
            z = mean + std * noise[place].to(std.dtype)
            put_wide(p_h, i_n, of(NET, "post", 0) + i_in, z, NET)
    tl.debug_barrier()
    return flaw


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


@triton.jit(do_not_specialize=["samples", "first_sample", "seed_low", "seed_high"])
def _decode_distance_kernel(
    p_hits, p_distance, p_open, p_opened, p_mean, p_std, p_centre, p_r, p_band, p_index,
    p_full, p_half, p_scratch, p_sum, B, samples, first_sample, seed_low, seed_high,
    s_mean, s_std, s_centre, NET: tl.constexpr, TASK: tl.constexpr, MIXED: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    D: tl.constexpr = of(NET, "widths", of(NET, "depth"))
    WHOLE: tl.constexpr = D // BLOCK_M * BLOCK_M
    REST: tl.constexpr = rest_of(D, BLOCK_M, NARROWEST)
    LANE: tl.constexpr = MEASURED if TASK == "measure" else COUNTED
    p_scratch += tl.program_id(0).to(tl.int64) * of(NET, "features") * BLOCK_N
    p_sum += tl.program_id(0) * BLOCK_N
    p_w, p_h = operands(p_full, p_half, p_scratch, PRECISION)
    rows = tl.load(p_opened) if TASK == "decide" else B * samples
    tiles = tl.cdiv(rows, BLOCK_N) if MIXED else B * tl.cdiv(samples, BLOCK_N)
    p_rows = p_open if TASK == "decide" else None
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        i_n = rows_in_scratch(tile, BLOCK_N)
        i_b, i_s, m = rows_of_tile(tile, i_n, rows, p_rows, samples, MIXED)
        flaw = draw_latents(
            p_h, i_n, p_mean + i_b * s_mean, p_std + i_b * s_std, first_sample + i_s,
            tl.load(p_index + i_b), LANE, MIXED, seed_low, seed_high, NET, BLOCK_K,
        )  # fmt: skip
        tl.store(p_sum + i_n, tl.zeros([BLOCK_N], dtype=tl.float64) + flaw)
        wide_hidden(p_full, p_w, p_h, tile, NET, BLOCK_M, BLOCK_K, BLOCK_N, PRECISION)
        for o in range(0, WHOLE, BLOCK_M):
            i_n = rows_in_scratch(tile + o, BLOCK_N)
            i_b, i_s, m = rows_of_tile(tile, i_n, rows, p_rows, samples, MIXED)
            add_squares(
                p_sum, p_full, p_w, p_h, i_n, p_centre + i_b * s_centre,
                o + tl.arange(0, BLOCK_M), MIXED, NET, BLOCK_K, PRECISION,
            )  # fmt: skip
        if REST:
            i_n = rows_in_scratch(tile + WHOLE, BLOCK_N)
            i_b, i_s, m = rows_of_tile(tile, i_n, rows, p_rows, samples, MIXED)
            add_squares(
                p_sum, p_full, p_w, p_h, i_n, p_centre + i_b * s_centre,
                WHOLE + tl.arange(0, REST), MIXED, NET, BLOCK_K, PRECISION,
            )  # fmt: skip
        i_n = rows_in_scratch(tile + 1, BLOCK_N)
        i_b, i_s, m = rows_of_tile(tile, i_n, rows, p_rows, samples, MIXED)
        distance = tl.sqrt(tl.load(p_sum + i_n))
        r = tl.zeros([BLOCK_N], dtype=tl.float64) + tl.load(p_r + i_b)
        m &= r < INFINITY  # false for NaN
        if TASK == "measure":
            tl.store(p_distance + tile * BLOCK_N + i_n, distance, mask=m)
        elif TASK == "sort":
            band = tl.load(p_band + i_b)
            hit = m & (distance <= r - band)
            clear = hit | (distance > r + band)  # neither for NaN
            _write_down(p_open, p_opened, (i_b * samples).to(tl.int32) + i_s, m & ~clear)
            _add_hits(p_hits + i_b, hit, MIXED)
        else:
            _add_hits(p_hits + i_b, m & (distance <= r), MIXED)
        tl.debug_barrier()


@triton.jit
def _add_hits(p_hits, hit, MIXED: tl.constexpr):
    one = hit.to(tl.int64)
    if MIXED:
        tl.atomic_add(p_hits, one, mask=hit)
    else:
        tl.atomic_add(p_hits, tl.sum(one, axis=0))


@triton.jit
def _write_down(p_open, p_opened, i_n, m):
    """Append the rows i_n with m to a list; their order does not matter."""
    one = m.to(tl.int32)
    place = tl.atomic_add(p_opened, tl.sum(one, axis=0)) + tl.cumsum(one, axis=0) - one
    tl.store(p_open + place, i_n, mask=m)


class Counted(NamedTuple):
    """What a call found, and what it cost.

    Args:
        hits: [B] int64.
        decided_again: [] int64, how many of the B·S samples lay within their input's error band.
    """

    hits: Tensor
    decided_again: Tensor


class Call(NamedTuple):
    """Some inputs with their hits, and the network."""

    mean: Tensor
    std: Tensor
    centre: Tensor
    r: Tensor
    index: Tensor
    hits: Tensor
    full: Tensor
    half: Tensor
    net: Net
    seed: tuple[int, int]
    tile: int

    def of(self, inputs: slice) -> Call:
        return self._replace(**{name: getattr(self, name)[inputs] for name in self._fields[:6]})


def decode_distance(
    mean, std, centre, r, weights, biases, activations, packed, index, seed, first_sample,
    samples, precision, tile,
) -> Tensor:  # fmt: skip
    """Launch the kernels; arguments as the registered op's without the backend's name.

    The share of samples that were decided again is logged for whoever listens at debug level.
    """
    counted = count(
        mean, std, centre, r, weights, biases, activations, packed, index, seed, first_sample,
        samples, precision, tile,
    )  # fmt: skip
    if precision != "ieee" and logger.isEnabledFor(logging.DEBUG):
        share = counted.decided_again.item() / max(len(mean) * samples, 1)
        logger.debug(f"decode_distance in {precision} decided {share:.2%} of the samples again")
    return counted.hits


def count(
    mean, std, centre, r, weights, biases, activations, packed, index, seed, first_sample,
    samples, precision, tile,
) -> Counted:  # fmt: skip
    """As :func:`decode_distance`, and how many samples were decided again."""
    net = forward_only(net_of(weights, activations))
    full, half = unpack(weights, biases, packed, net)
    kind = "fp64" if mean.dtype == torch.float64 else precision
    again = index.new_zeros(())
    call = Call(
        rows_of(mean), rows_of(std), rows_of(centre), r.contiguous(), index.contiguous(),
        index.new_zeros(len(mean)), full, half, net, words_of(seed), tile,
    )  # fmt: skip
    most = MOST_ROWS if kind in EXACT else min(MOST_OPEN, memory.rows_within(8))
    for inputs in _pieces(len(mean), max(most // max(samples, CALIBRATION), 1)):
        own = call.of(inputs)
        band = None if kind in EXACT else error_band(own, kind)
        for part in _pieces(samples, most):
            numbers = part.stop - part.start, first_sample + part.start
            if band is None:
                _launch(own, "count", kind, *numbers)
            else:
                again += _sort_and_decide(own, kind, band, *numbers)
    return Counted(call.hits, again)


def error_band(call: Call, kind: str) -> Tensor:
    """How far a precision's distances are taken to lie from the IEEE ones, at most, [B] float64.

    SAFETY times the root mean square of the difference over draws from the input's own posterior,
    which are not among the samples. So the band depends on the input and the network alone, and,
    given it, the decision on a sample is a function of its latent. It is an estimate: a bound by
    norms of the weights would hold every distance for doubtful. NaN leaves all to IEEE products.
    """
    low, full = (
        call.mean.new_empty((len(call.mean), CALIBRATION), dtype=torch.float64) for _ in range(2)
    )
    for distance, name in ((low, kind), (full, "ieee")):
        _launch(call, "measure", name, CALIBRATION, 0, distance=distance)
    return SAFETY * (low - full).square().mean(dim=1).sqrt()


def _sort_and_decide(call: Call, kind: str, band: Tensor, samples: int, first: int) -> Tensor:
    """Count the hits; returns how many samples the band left open, [] int32."""
    rows = torch.empty(len(call.mean) * samples, dtype=torch.int32, device=band.device)
    opened = rows.new_zeros(())
    _launch(call, "sort", kind, samples, first, band=band, rows=rows, opened=opened)
    _launch(call, "decide", "ieee", samples, first, rows=rows, opened=opened)
    return opened


def _launch(
    call: Call, task: str, kind: str, samples: int, first: int, *,
    distance: Tensor | None = None, band: Tensor | None = None, rows: Tensor | None = None,
    opened: Tensor | None = None,
) -> None:  # fmt: skip
    mean, std, centre = call.mean, call.std, call.centre
    N = len(mean) * samples
    if not N:
        return
    mixed = task in ("decide", "measure") or samples < FEWEST_ALONE
    blocks = plan(N, kind, call.tile, mean.device)
    most = PROGRAMS_PER_PROCESSOR[kind] * processors(mean.device)
    tile = blocks.BLOCK_N
    tiles = triton.cdiv(N, tile) if mixed else len(mean) * triton.cdiv(samples, tile)
    programs = min(tiles, most)
    work = mean.new_empty((programs, call.net.features, tile))
    sums = mean.new_empty((programs, tile), dtype=torch.float64)
    with device_of(mean):
        _decode_distance_kernel[(programs,)](
            call.hits, distance, rows, opened, mean, std, centre, call.r, band, call.index,
            call.full, call.half, work, sums, len(mean), samples, first, *call.seed,
            mean.stride(0), std.stride(0), centre.stride(0),
            TASK=task, MIXED=mixed, NET=call.net, **blocks._asdict(),
        )  # fmt: skip


def plan(rows: int, kind: str, tile: int, device: torch.device) -> Plan:
    """Block sizes for "fp64" or a precision; ``tile`` pins them, 0 follows the rows."""
    if not tile:
        tile = NARROWEST_TILE
        widest = WIDEST_TILE[kind] if device.type == "cuda" else INTERPRETED_TILE
        while tile < widest and rows > tile * processors(device):
            tile *= 2
    return blocks_of(kind, tile)


def blocks_of(kind: str, tile: int) -> Plan:
    """The launch for a tile."""
    warps = 8 if tile == 128 else 4
    if kind == "fp64":
        return Plan(64, 16, tile, "ieee", 8, 2)
    if kind == "ieee":
        return Plan(128, 16, tile, "ieee", warps, 3)
    return Plan(128, 32 if kind == "tf32" else 64, tile, kind, warps, 3)


def _pieces(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
