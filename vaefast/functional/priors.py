"""The prior N(0, I) of the latents: its energy and gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["prior_energy", "prior_gradient"]


def prior_energy(z: Tensor) -> Tensor:
    """−log N(z; 0, I) = ½‖z‖² + ½ d log 2π of each row [n, d]: [n] float64, nats."""
    constant = 0.5 * z.shape[-1] * math.log(2.0 * math.pi)
    return 0.5 * z.square().sum(dim=-1, dtype=torch.float64) + constant


def prior_gradient(z: Tensor) -> Tensor:
    """d prior_energy / dz = z."""
    return z
