"""Counting, per input, how many noisy reconstructions stay within a distance of a centre."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import ops, philox
from vaefast.geometry.points import mean_and_std
from vaefast.models.maps import Maps
from vaefast.models.prepare import Prepared
from vaefast.models.products import NetworkMap
from vaefast.philox import Use
from vaefast.runtime import memory, numerics

__all__ = ["AtInput", "at_input", "count_hits", "hits", "repeated_rows", "smallest_std"]

DRAWING_BYTES = 128  # per latent, while its noise is drawn


class AtInput(NamedTuple):
    """q(z|x) at b inputs, and the fixed centre of their reconstructions.

    Args:
        mean: [b, d].
        std: [b, d].
        centre: [b, D], g(μ(x)).
    """

    mean: Tensor
    std: Tensor
    centre: Tensor


def at_input(maps: Maps, x: Tensor) -> AtInput:
    """q(z|x) and g(μ(x)) for x [b, *event]."""
    mean, std = mean_and_std(maps, x)
    return AtInput(mean, std, maps.pixels.value(mean))


def smallest_std(prepared: Prepared) -> Tensor:
    """min_i σ_i(x) at each input, [B] float64."""
    with numerics.products(prepared.x.device, "ieee"):
        (smallest,) = prepared.rows(
            lambda part: (mean_and_std(part.maps, part.x)[1].double().amin(1),),
            prepared.maps.mean.bytes_per_row(prepared.itemsize, 1),
            generic=prepared.maps.generic("mean", "std"),
        )
    return smallest


def hits(
    maps: Maps,
    own: AtInput,
    r: Tensor,
    index: Tensor,
    samples: int,
    precision: str,
    *,
    seed: int,
) -> Tensor:
    """#{s < samples : ‖g(μ + σ⊙η_s) − g(μ)‖₂ ≤ r}, [b] int64; the same η on every path."""
    if isinstance(maps.pixels, NetworkMap):
        return ops.decode_distance(
            *own,
            r,
            maps.pixels.packed(),
            seed=seed,
            index=index,
            samples=samples,
            precision=precision,
        )
    return count_hits(maps, own, r, seed=seed, index=index, samples=samples, use=Use.LATENT)


def repeated_rows(own: AtInput, times: int) -> AtInput:
    """Every row ``times`` times, side by side."""
    return AtInput(*(t.repeat_interleave(times, 0) for t in own))


def count_hits(
    maps: Maps,
    own: AtInput,
    r: Tensor,
    *,
    seed: int,
    index: Tensor,
    samples: int,
    use: Use,
    other: AtInput | None = None,
) -> Tensor:
    """As :func:`hits`, for any decoder and any stream of noise.

    ``other``: the posterior whose draws take the centre's place, with noise of their own, the steps
    that follow those of ``own``.
    """
    d = own.mean.shape[1]
    bytes_per_sample = maps.pixels.bytes_per_row(own.mean.element_size(), 1) + DRAWING_BYTES * d
    counted = torch.zeros(len(r), dtype=torch.int64, device=r.device)
    rows = max(len(r), 1)
    for part in memory.row_chunks(samples, rows * bytes_per_sample, memory.cached(rows, r)):
        numbers = torch.arange(part.start, part.stop, device=r.device)
        draw = partial(_draws, maps, index, numbers, seed=seed, use=use)
        out = draw(own)
        centre = own.centre.unsqueeze(1) if other is None else draw(other, after=samples)
        square = (out - centre).square().sum(-1, dtype=torch.float64)
        counted += (square.sqrt() <= r.double().unsqueeze(1)).sum(1)
    return counted


def _draws(
    maps: Maps,
    index: Tensor,
    numbers: Tensor,
    own: AtInput,
    *,
    seed: int,
    use: Use,
    after: int = 0,
) -> Tensor:
    """g(μ + σ⊙η) for the draws of these numbers, [b, n, D]."""
    (rows, d), n = own.mean.shape, len(numbers)
    noise = philox.normal(
        d,
        seed=seed,
        index=index.repeat_interleave(n),
        step=(numbers + after).repeat(rows),
        use=use,
        dtype=own.mean.dtype,
    ).view(rows, n, d)
    z = own.mean.unsqueeze(1) + own.std.unsqueeze(1) * noise
    return maps.pixels.value(z.flatten(0, 1)).view(rows, n, own.centre.shape[1])
