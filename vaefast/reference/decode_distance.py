"""``decode_distance`` in plain PyTorch: draw, decode, compare, count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaefast.functional import network
from vaefast.functional.latents import latents
from vaefast.functional.rows import chunked, finite
from vaefast.runtime import memory
from vaefast.types import Network

if TYPE_CHECKING:
    from vaefast.ops.decode_distance import Call

__all__ = ["decode_distance"]

DRAWING_BYTES = 64  # per latent, while it is drawn


def decode_distance(call: Call) -> Tensor:
    """How many of the samples s have ‖net(mean + std·η_s) − centre‖₂ ≤ r: hits [B] int64.

    A row with NaN or infinity in its inputs has no hits.
    """
    mean, net = call.mean, call.net
    bytes_per_sample = network.bytes_per_row(net, mean) + DRAWING_BYTES * mean.shape[1]

    def run(rows: slice) -> tuple[Tensor, ...]:
        own = mean[rows], call.std[rows], call.centre[rows], call.r[rows]
        index, hits = call.index[rows], torch.zeros_like(call.index[rows])
        for part in memory.row_chunks(call.samples, max(len(hits), 1) * bytes_per_sample):
            samples = torch.arange(part.start, part.stop, device=mean.device) + call.first_sample
            z = latents(own[0], own[1], seed=call.seed, index=index, samples=samples)
            hits += _hits(z, own[2], own[3], net)
        return (torch.where(finite(*own), hits, 0),)

    (hits,) = chunked(run, len(mean), bytes_per_sample)
    return hits


def _hits(z: Tensor, centre: Tensor, r: Tensor, net: Network) -> Tensor:
    out = network.evaluate(z.flatten(0, 1), net).unflatten(0, z.shape[:2])  # [B, S, D]
    square = (out - centre.unsqueeze(1)).square().sum(dim=-1, dtype=torch.float64)
    return (square.sqrt() <= r.double().unsqueeze(1)).sum(dim=1)
