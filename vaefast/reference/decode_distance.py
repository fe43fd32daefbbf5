"""``decode_distance`` in plain PyTorch: draw, decode, compare, count."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast import philox
from vaefast.functional import layers
from vaefast.functional.rows import chunked, finite
from vaefast.philox import Use
from vaefast.runtime import memory
from vaefast.types import Network

__all__ = ["decode_distance", "latents"]

DRAWING_BYTES = 64  # per latent, while it is drawn


def decode_distance(
    mean: Tensor,
    std: Tensor,
    centre: Tensor,
    r: Tensor,
    net: Network,
    *,
    seed: int = 0,
    index: Tensor,
    first_sample: int = 0,
    samples: int,
    precision: str = "ieee",
) -> Tensor:
    """How many of the samples s have ‖net(mean + std·η_s) − centre‖₂ ≤ r: hits [B] int64.

    A row with NaN or infinity in its inputs has no hits. ``precision`` is what a backend may
    stoop to; this one always computes in the input dtype.
    """
    bytes_per_sample = layers.bytes_per_row(net, mean) + DRAWING_BYTES * mean.shape[1]

    def run(rows: slice) -> tuple[Tensor, ...]:
        own = mean[rows], std[rows], centre[rows], r[rows]
        hits = torch.zeros(len(own[0]), dtype=torch.int64, device=mean.device)
        for part in memory.row_chunks(samples, max(len(hits), 1) * bytes_per_sample):
            numbers = torch.arange(part.start, part.stop, device=mean.device) + first_sample
            z = latents(own[0], own[1], seed=seed, index=index[rows], samples=numbers)
            hits += _hits(z, own[2], own[3], net)
        return (torch.where(finite(*own), hits, 0),)

    (hits,) = chunked(run, len(mean), bytes_per_sample)
    return hits


def latents(mean: Tensor, std: Tensor, *, seed: int, index: Tensor, samples: Tensor) -> Tensor:
    """mean + std·η of the samples with the given numbers [S]: [B, S, d]."""
    noise = philox.normal(
        mean.shape[1],
        seed=seed,
        index=index.repeat_interleave(len(samples)),
        step=samples.repeat(len(mean)),
        use=Use.LATENT,
        dtype=mean.dtype,
    )
    noise = noise.view(len(mean), len(samples), mean.shape[1])
    return mean.unsqueeze(1) + std.unsqueeze(1) * noise


def _hits(z: Tensor, centre: Tensor, r: Tensor, net: Network) -> Tensor:
    out = layers.evaluate(z.flatten(0, 1), net).unflatten(0, z.shape[:2])  # [B, S, D]
    square = (out - centre.unsqueeze(1)).square().sum(dim=-1, dtype=torch.float64)
    return (square.sqrt() <= r.double().unsqueeze(1)).sum(dim=1)
