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
from typing import TYPE_CHECKING, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast.functional.rows import rows_of
from vaefast.kernels.common.elementary import INFINITY
from vaefast.kernels.common.forms import DECODERS, variant
from vaefast.kernels.common.launch import device_of, processors, words
from vaefast.kernels.common.mlp import operands
from vaefast.kernels.common.network import Net, describe, forward_only, net_of, of, unpack
from vaefast.kernels.common.sample_plans import (
    MIXED_TILE,
    TARGETS,
    WIDEST_TILE,
    blocks_of,
    plan,
)
from vaefast.kernels.common.sample_tiles import (
    add_hits,
    add_squares,
    draw_latents,
    rows_of_tile,
    write_down,
)
from vaefast.kernels.common.wide import NARROWEST, rest_of, rows_in_scratch, wide_hidden
from vaefast.kernels.proof.aot import Variant
from vaefast.runtime import memory

if TYPE_CHECKING:
    from vaefast.ops.decode_distance import Call

__all__ = ["Counted", "count", "decode_distance", "error_band", "plan", "variants"]

logger = logging.getLogger("vaefast")
TYPES = {
    "p_hits": "*i64",
    "p_distance": "*fp64",
    "p_open": "*i32",
    "p_opened": "*i32",
    "p_band": "*fp64",
    "p_index": "*i64",
    "p_sum": "*fp64",
}

CALIBRATION = 16  # draws per input that its error band rests on
SAFETY = 12.0  # times their root mean square
MOST_ROWS = 1 << 27  # of a launch
MOST_OPEN = 1 << 22  # of a launch that writes rows down
WARPS_PER_PROCESSOR = 8  # as many as find registers
COUNTED, MEASURED = tl.constexpr(0), tl.constexpr(1)  # Philox lanes: samples; the band's draws
EXACT = ("fp64", "ieee")
FEWEST_ALONE = 48  # samples of an input that get tiles of their own


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
        nonfinite = draw_latents(
            p_h, i_n, p_mean + i_b * s_mean, p_std + i_b * s_std, first_sample + i_s,
            tl.load(p_index + i_b), LANE, MIXED, seed_low, seed_high, NET, BLOCK_K,
        )  # fmt: skip
        tl.store(p_sum + i_n, tl.zeros([BLOCK_N], dtype=tl.float64) + nonfinite)
        tl.debug_barrier()
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
            write_down(p_open, p_opened, (i_b * samples).to(tl.int32) + i_s, m & ~clear)
            add_hits(p_hits + i_b, hit, MIXED)
        else:
            add_hits(p_hits + i_b, m & (distance <= r), MIXED)
        tl.debug_barrier()


class Counted(NamedTuple):
    """What a call found, and what it cost.

    Args:
        hits: [B] int64.
        decided_again: [] int64, how many of the B·S samples lay within their input's error band.
    """

    hits: Tensor
    decided_again: Tensor


class Samples(NamedTuple):
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

    def of(self, inputs: slice) -> Samples:
        return self._replace(**{name: getattr(self, name)[inputs] for name in self._fields[:6]})


def decode_distance(call: Call) -> Tensor:
    """Launch the kernels.

    The share of samples that were decided again is logged for whoever listens at debug level.
    """
    counted = count(call)
    if call.precision != "ieee" and logger.isEnabledFor(logging.DEBUG):
        share = counted.decided_again.item() / max(len(call.mean) * call.samples, 1)
        how = call.precision
        logger.debug(f"decode_distance in {how} decided {share:.2%} of the samples again")
    return counted.hits


def count(call: Call) -> Counted:
    """As :func:`decode_distance`, and how many samples were decided again."""
    weights, biases, layers, packed = call.net
    net = forward_only(net_of(weights, layers))
    kind = "fp64" if call.mean.dtype == torch.float64 else call.precision
    hits = call.index.new_zeros(len(call.mean))
    again = hits.new_zeros(())
    given = Samples(
        rows_of(call.mean), rows_of(call.std), rows_of(call.centre), call.r.contiguous(),
        call.index.contiguous(), hits, *unpack(weights, biases, packed, net), net,
        words(call.seed), call.tile,
    )  # fmt: skip
    most = MOST_ROWS if kind in EXACT else min(MOST_OPEN, memory.rows_within(8))
    for inputs in _pieces(len(hits), max(most // max(call.samples, CALIBRATION), 1)):
        own = given.of(inputs)
        band = None if kind in EXACT else error_band(own, kind)
        for part in _pieces(call.samples, most):
            numbers = part.stop - part.start, call.first_sample + part.start
            if band is None:
                _launch(own, "count", kind, *numbers)
            else:
                again += _sort_and_decide(own, kind, band, *numbers)
    return Counted(hits, again)


def error_band(own: Samples, kind: str) -> Tensor:
    """How far a precision's distances are taken to lie from the IEEE ones, at most, [B] float64.

    SAFETY times the root mean square of the difference over draws from the input's own posterior,
    which are not among the samples. So the band depends on the input and the network alone, and,
    given it, the decision on a sample is a function of its latent. It is an estimate: a bound by
    norms of the weights would hold every distance for doubtful. NaN leaves all to IEEE products.
    """
    low, full = (
        own.mean.new_empty((len(own.mean), CALIBRATION), dtype=torch.float64) for _ in range(2)
    )
    for distance, name in ((low, kind), (full, "ieee")):
        _launch(own, "measure", name, CALIBRATION, 0, distance=distance)
    return SAFETY * (low - full).square().mean(dim=1).sqrt()


def _sort_and_decide(own: Samples, kind: str, band: Tensor, samples: int, first: int) -> Tensor:
    """Count the hits; returns how many samples the band left open, [] int32."""
    rows = torch.empty(len(own.mean) * samples, dtype=torch.int32, device=band.device)
    opened = rows.new_zeros(())
    _launch(own, "sort", kind, samples, first, band=band, rows=rows, opened=opened)
    _launch(own, "decide", "ieee", samples, first, rows=rows, opened=opened)
    return opened


def _launch(
    own: Samples, task: str, kind: str, samples: int, first: int, *,
    distance: Tensor | None = None, band: Tensor | None = None, rows: Tensor | None = None,
    opened: Tensor | None = None,
) -> None:  # fmt: skip
    mean, std, centre = own.mean, own.std, own.centre
    N = len(mean) * samples
    if not N:
        return
    mixed = task in ("decide", "measure") or samples < FEWEST_ALONE
    blocks = plan(N, kind, own.tile, mixed, mean.device)
    most = WARPS_PER_PROCESSOR // blocks.num_warps * processors(mean.device)
    tile = blocks.BLOCK_N
    tiles = triton.cdiv(N, tile) if mixed else len(mean) * triton.cdiv(samples, tile)
    programs = min(tiles, most)
    work = mean.new_empty((programs, own.net.features, tile))
    sums = mean.new_empty((programs, tile), dtype=torch.float64)
    with device_of(mean):
        _decode_distance_kernel[(programs,)](
            own.hits, distance, rows, opened, mean, std, centre, own.r, band, own.index,
            own.full, own.half, work, sums, len(mean), samples, first, *own.seed,
            mean.stride(0), std.stride(0), centre.stride(0),
            TASK=task, MIXED=mixed, NET=own.net, **blocks.options(),
        )  # fmt: skip


def _pieces(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def variants() -> Iterator[Variant]:
    """Every form of the kernel that ``plan`` can choose, for ahead-of-time compilation."""
    for place, (widths, names) in enumerate(DECODERS):
        net = forward_only(describe(widths, names.format(last="sigmoid")))
        for kind, task, mixed, tile in _forms(place == 0):
            for family in TARGETS:
                yield _variant(net, kind, task, mixed, tile, family)


def _forms(every: bool) -> Iterator[tuple[str, str, bool, int]]:
    """(kind, task, mixed, tile); one a precision where not ``every``."""
    for kind in ("fp64", "ieee", "tf32", "bf16"):
        task = "count" if kind in EXACT else "sort"
        tiles = (16, 32, 64, 128) if every and kind != "fp64" else (WIDEST_TILE[kind],)
        yield from ((kind, task, False, tile) for tile in tiles)
        if every:
            tasks = [task] if kind == "fp64" else [task, "measure"]
            tasks += ["decide"] if kind == "ieee" else []
            yield from ((kind, task, True, MIXED_TILE[kind]) for task in tasks)


def _variant(net: Net, kind: str, task: str, mixed: bool, tile: int, family: str) -> Variant:
    rows, widths = " mixed" if mixed else "", "-".join(map(str, net.widths))
    found = variant(
        f"{widths} {kind} {task}{rows} tile {tile} {family}",
        _decode_distance_kernel,
        net,
        kind,
        (TARGETS[family],),
        blocks_of(kind, tile, mixed, family).options(),
        TYPES,
        {"TASK": task, "MIXED": mixed},
    )
    units = "wgmma" if kind not in EXACT and family == "hopper" and tile >= 64 else ""
    return found._replace(matrix=units)
