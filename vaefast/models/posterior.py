"""The approximate posterior q(z|x), which stands between an encoder and everybody else."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["DiagonalGaussian", "flat", "unflat"]


class DiagonalGaussian(NamedTuple):
    """q(z|x) = N(μ, diag σ²) of B inputs. Latents of any shape travel flat, [.., d], inside.

    Args:
        mean: μ [B, d].
        logvar: log σ² [B, d].
        latent_shape: of one z as the model has it; its sizes multiply to d.
    """

    mean: Tensor
    logvar: Tensor
    latent_shape: tuple[int, ...]

    @property
    def std(self) -> Tensor:
        """σ [B, d]."""
        return torch.exp(0.5 * self.logvar)

    def sample(self, noise: Tensor) -> Tensor:
        """μ + σ·noise, [B, d]."""
        return self.mean + self.std * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """log N(z; μ, diag σ²), [B] float64 in nats."""
        scaled = (z.double() - self.mean.double()) * torch.exp(-0.5 * self.logvar.double())
        terms = scaled.square() + self.logvar.double() + math.log(2.0 * math.pi)
        return -0.5 * terms.sum(dim=1)

    def kl(self) -> Tensor:
        """½ Σ (μ² + σ² − 1 − log σ²), [B] float64 in nats."""
        terms = self.mean.square() + torch.expm1(self.logvar) - self.logvar
        return 0.5 * terms.sum(1, dtype=torch.float64)

    def flat(self, z: Tensor) -> Tensor:
        return flat(z, self.latent_shape)

    def unflat(self, z: Tensor) -> Tensor:
        return unflat(z, self.latent_shape)


def flat(z: Tensor, latent_shape: tuple[int, ...]) -> Tensor:
    """Latents [.., *latent_shape] as [.., d]; such as already are stay as they are.

    Raises:
        ValueError: z ends in neither.
    """
    d, k = math.prod(latent_shape), len(latent_shape)
    if tuple(z.shape[-k:]) == latent_shape:
        return z.flatten(-k)
    if z.shape[-1] == d:
        return z
    raise ValueError(f"z must end in {[d]} or {list(latent_shape)}, got {list(z.shape)}")


def unflat(z: Tensor, latent_shape: tuple[int, ...]) -> Tensor:
    """Latents [.., d] as [.., *latent_shape].

    Raises:
        ValueError: z does not end in d.
    """
    d = math.prod(latent_shape)
    if z.shape[-1] != d:
        raise ValueError(f"z must end in d = {d} to be {list(latent_shape)}, got {list(z.shape)}")
    return z if latent_shape == (d,) else z.reshape(*z.shape[:-1], *latent_shape)
