"""Counting, per input, how many noisy reconstructions stay within a distance of a centre."""

from __future__ import annotations

from collections.abc import Iterator
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

__all__ = [
    "AtInput",
    "at_input",
    "count_hits",
    "distances",
    "hits",
    "repeated_rows",
    "smallest_std",
]

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
    numbers: range,
    precision: str,
    *,
    seed: int,
) -> Tensor:
    """#{s in numbers : ‖g(μ + σ⊙η_s) − g(μ)‖₂ ≤ r}, int64 like r [b] or [b, m]; the same η on
    every path. A fused decoder keeps no distances and passes once for each of m radii, so that
    their hits are to the bit those of one; any other decodes a draw once for all of them.
    """
    if isinstance(maps.pixels, NetworkMap) and r.ndim == 2:
        each = [hits(maps, own, c, index, numbers, precision, seed=seed) for c in r.mT.contiguous()]
        return torch.stack(each, 1) if each else r.new_zeros(r.shape, dtype=torch.int64)
    if isinstance(maps.pixels, NetworkMap):
        return ops.decode_distance(
            *own,
            r,
            maps.pixels.packed(),
            seed=seed,
            index=index,
            first_sample=numbers.start,
            samples=len(numbers),
            precision=precision,
        )
    return count_hits(
        maps,
        own,
        r,
        seed=seed,
        index=index,
        samples=len(numbers),
        use=Use.LATENT,
        first=numbers.start,
    )


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
    first: int = 0,
    other: AtInput | None = None,
) -> Tensor:
    """As :func:`hits`, for any decoder and any stream of noise.

    ``first``: number of the first draw.

    ``other``: the posterior whose draws take the centre's place, with noise of their own, the steps
    that follow those of ``own``.
    """
    limit = (r if r.ndim == 2 else r.unsqueeze(1)).double()  # [b, m]
    counted = torch.zeros_like(limit, dtype=torch.int64)
    for part in _parts(maps, own, range(first, first + samples)):
        draw = partial(_draws, maps, index, part, seed=seed, use=use)
        centre = own.centre.unsqueeze(1) if other is None else draw(other, after=samples)
        length = _length(draw(own) - centre)
        counted += torch.stack([(length <= c[:, None]).sum(1) for c in limit.mT], 1)
    return counted.view(r.shape)


def within(maps: Maps, z: Tensor, centre: Tensor, r: Tensor) -> Tensor:
    """Whether the reconstruction of each z [n, d] is within r of a centre [1, D]; [n] bool."""
    if isinstance(maps.pixels, NetworkMap):
        own = AtInput(z, torch.zeros_like(z), centre.expand(len(z), -1).contiguous())
        return ops.decode_distance(*own, r.expand(len(z)), maps.pixels.packed(), samples=1) > 0
    return _length(maps.pixels.value(z) - centre) <= r.double()


def distances(maps: Maps, own: AtInput, *, seed: int, index: Tensor, samples: int) -> Tensor:
    """‖g(μ + σ⊙η_s) − g(μ)‖₂ of the draws that :func:`hits` counts, [b, samples] float64."""
    found = []
    for part in _parts(maps, own, range(samples)):
        out = _draws(maps, index, part, own, seed=seed, use=Use.LATENT)
        found.append(_length(out - own.centre.unsqueeze(1)))
    return torch.cat(found, dim=1)


def _length(difference: Tensor) -> Tensor:
    return difference.square().sum(-1, dtype=torch.float64).sqrt()


def _parts(maps: Maps, own: AtInput, numbers: range) -> Iterator[Tensor]:
    """The numbers of the draws, as many at once as the memory budget lets be decoded."""
    rows, d = max(len(own.mean), 1), own.mean.shape[1]
    per_draw = maps.pixels.bytes_per_row(own.mean.element_size(), 1) + DRAWING_BYTES * d
    for part in memory.row_chunks(len(numbers), rows * per_draw, memory.cached(rows, own.mean)):
        first = numbers.start
        yield torch.arange(first + part.start, first + part.stop, device=own.mean.device)


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
