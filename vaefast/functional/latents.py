"""Posterior draws: mean + std·η with the random numbers of each input and sample."""

from __future__ import annotations

from torch import Tensor

from vaefast import philox
from vaefast.philox import Use

__all__ = ["latents"]


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
