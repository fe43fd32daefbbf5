"""``decode_distance``: draw latents, decode, compare with a centre, count."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vaefast import checks
from vaefast.ops._cpp import kernel, layers_of, plain_rows, rows_at
from vaefast.ops._inputs import (
    check_like,
    check_matrix,
    check_network,
    check_precision,
    check_range,
    check_seed,
)
from vaefast.ops._register import lazy, register
from vaefast.reference.decode_distance import decode_distance as reference
from vaefast.runtime import threads
from vaefast.runtime.tiles import check_tile
from vaefast.types import Network, out_features

__all__ = ["decode_distance"]


class Call(NamedTuple):
    mean: Tensor
    std: Tensor
    centre: Tensor
    r: Tensor
    net: Network
    index: Tensor  # type: ignore[assignment]  # a tuple has a method of this name
    seed: int
    first_sample: int
    samples: int
    precision: str
    tile: int
    backend: str | None


def decode_distance(
    mean: Tensor,
    std: Tensor,
    centre: Tensor,
    r: float | Tensor,
    net: Network,
    *,
    seed: int = 0,
    index: Tensor | None = None,
    first_sample: int = 0,
    samples: int,
    precision: str = "ieee",
    tile: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """Count the posterior samples whose reconstruction lies within r of a centre.

        hits_b = #{s : ‖net(mean_b + std_b·η_bs) − centre_b‖₂ ≤ r_b},  η ~ N(0, I)

    Equivalent to, for one input::

        z = mean + std * torch.randn(samples, d)
        ((net_forward(z, net) - centre).norm(dim=1) <= r).sum()

    No reconstruction is stored. Sample s of an input has its own random numbers, so the hits of
    consecutive ranges of samples add up, to round-off at the boundary. A row with NaN or
    infinity in its inputs has no hits.

    Args:
        mean: means of the latents [B, d].
        std: standard deviations of the latents [B, d].
        centre: what the reconstructions are compared with [B, D], in pixel scale.
        r: radius, float or [B], in the scale of ``centre``; ℓ2 over all pixels, not averaged.
        net: the decoder, d to D, its epilogue included (g, in pixel scale).
        seed: 64-bit seed of the random numbers.
        index: global number of each input [B] int64; default ``arange(B)``.
        first_sample: number of the first sample.
        samples: how many samples S.
        precision, tile, backend: as for every op, see :mod:`vaefast.ops`. On CUDA a lower precision
            decides only samples whose distance is farther from r than an error band; the band is
            estimated for each input, so the hits are an estimate of the ieee ones.

    Returns:
        hits [B] int64, between 0 and ``samples``.

    Raises:
        TypeError: not tensors, or dtypes that differ or are not floating.
        ValueError: shapes, devices or options that do not fit together.
        RuntimeError: an input requires grad; the backend asked for by name cannot run here.

    Source: Camuto et al. 2021 (mathematics.md §2.1, 2.3); mathematics.md §8.1.
    """
    check_matrix(mean, "mean", "[B, d]")
    check_like(std, "std", mean, "mean", list(mean.shape))
    check_network(net, mean, "mean")
    check_like(centre, "centre", mean, "mean", [len(mean), out_features(net)])
    check_range(first_sample, samples, "first_sample", "samples")
    rows = len(mean)
    r = checks.per_row(r, "r", rows, like=mean)
    index = checks.row_index(index, rows, mean.device)
    numbers = check_seed(seed), first_sample, samples
    how = check_precision(precision), check_tile(tile)
    return _op(Call(mean, std, centre, r, net, index, *numbers, *how, backend))


def _cpp(call: Call) -> Tensor:
    layers, _alive = layers_of(*call.net)
    hits = call.index.new_zeros(len(call.mean))
    matrices = plain_rows(call.mean, call.std, call.centre)
    rows = [call.r.contiguous(), call.index.contiguous()]
    kernel("decode_distance", call.mean.dtype)(
        hits.data_ptr(),
        [rows_at(t) for t in matrices],
        [t.data_ptr() for t in rows],
        (len(hits), call.first_sample, call.samples),
        call.seed % (1 << 64),
        layers,
        threads.count(),
    )
    return hits


_op = register(
    Call,
    returns=Tensor,
    fake=lambda call: call.index.new_empty(call.mean.shape[0]),
    reference=reference,
    cpp=_cpp,
    triton=lazy("decode_distance"),
)
