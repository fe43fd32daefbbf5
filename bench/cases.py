"""Shapes and extreme values that tests and benchmarks share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["SHAPES", "Images", "images"]

SHAPES = ((1, 1), (3, 7), (64, 32), (129, 1000), (0, 5))  # [B, D]


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
