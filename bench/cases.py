"""Shapes and extreme values that tests and benchmarks share."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.types import MLP

__all__ = ["ACTIVATIONS", "SHAPES", "Images", "Posterior", "images", "network", "posterior"]

SHAPES = ((1, 1), (3, 7), (64, 32), (129, 1000), (0, 5))  # [B, D]
ACTIVATIONS = (
    "identity",
    "relu",
    "leaky_relu:0.1",
    "elu:0.7",
    "tanh",
    "sigmoid",
    "softplus",
    "silu",
    "gelu",
    "gelu_tanh",
    "maxmin",
    "exp_half",
)


class Images(NamedTuple):
    x_adv: Tensor
    grad: Tensor
    x: Tensor


def images(
    B: int, D: int, *, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0
) -> Images:
    """Images in [0, 1] with saturated pixels, perturbed ones, and gradients with zeros."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(B, D, generator=generator, dtype=torch.float64)
    x = torch.where(x < 0.2, 0.0, torch.where(x > 0.9, 1.0, x))
    x_adv = (x + 0.05 * torch.randn(B, D, generator=generator, dtype=torch.float64)).clamp(0, 1)
    grad = torch.randn(B, D, generator=generator, dtype=torch.float64)
    grad[torch.rand(B, D, generator=generator) < 0.1] = 0.0
    return Images(*(t.to(device=device, dtype=dtype) for t in (x_adv, grad, x)))


class Posterior(NamedTuple):
    z: Tensor  # [B·C, d]
    x: Tensor  # [B, D]
    mlp: MLP  # d to D


def network(
    widths: tuple[int, ...],
    activations: str,
    *,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    seed: int = 0,
) -> MLP:
    """An MLP with Gaussian weights of standard deviation 1.5/√in and small biases."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)

    pairs = list(pairwise(widths))
    weights = [1.5 * draw(after, before) / max(before, 1) ** 0.5 for before, after in pairs]
    return MLP(weights, [0.3 * draw(after) for _, after in pairs], activations)


def posterior(
    B: int = 3,
    C: int = 2,
    *,
    widths: tuple[int, ...] = (3, 8, 6, 10),
    activations: str = "tanh,silu,identity",
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    seed: int = 0,
) -> Posterior:
    """Images, a decoder, and C latents for each image."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(B * C, widths[0], generator=generator, dtype=torch.float64)
    x = images(B, widths[-1], dtype=dtype, device=device, seed=seed).x
    mlp = network(widths, activations, dtype=dtype, device=device, seed=seed)
    return Posterior(z.to(device, dtype), x, mlp)
