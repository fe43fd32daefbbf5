"""Shapes and extreme values that tests and benchmarks share."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaefast.bench.pixels import PIXEL_NETWORKS, pixel_network
from vaefast.runtime.defaults import default_device
from vaefast.types import Network

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
    "clamp:-0.8:1.1",
    "hardswish",
    "mish",
    "selu",
)


class Images(NamedTuple):
    x_adv: Tensor
    grad: Tensor
    x: Tensor


def images(
    B: int, D: int, *, dtype: torch.dtype = torch.float32, device: str | None = None, seed: int = 0
) -> Images:
    """Images in [0, 1] with saturated pixels, perturbed ones, and gradients with zeros.

    Here and below the numbers are those of the CPU; the device is torch's default one.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    drawn: dict[str, Any] = {"generator": generator, "device": "cpu", "dtype": torch.float64}
    x = torch.rand(B, D, **drawn)
    x = torch.where(x < 0.2, 0.0, torch.where(x > 0.9, 1.0, x))
    x_adv = (x + 0.05 * torch.randn(B, D, **drawn)).clamp(0, 1)
    grad = torch.randn(B, D, **drawn)
    grad[torch.rand(B, D, **drawn | {"dtype": torch.float32}) < 0.1] = 0.0
    return Images(*(_placed(t, device, dtype) for t in (x_adv, grad, x)))


def _placed(t: Tensor, device: str | None, dtype: torch.dtype) -> Tensor:
    return t.to(device or default_device(), dtype)


class Posterior(NamedTuple):
    z: Tensor  # [B·C, d]
    x: Tensor  # [B, D]
    net: Network  # d to D


def network(
    widths: tuple[int, ...],
    activations: str,
    *,
    dtype: torch.dtype = torch.float64,
    device: str | None = None,
    seed: int = 0,
) -> Network:
    """An MLP with Gaussian weights of standard deviation 1.5/√in and small biases.

    Or one of :data:`vaefast.bench.pixels.PIXEL_NETWORKS`, named in place of the activations.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=generator, device="cpu", dtype=torch.float64)
        return _placed(drawn, device, dtype)

    if activations in PIXEL_NETWORKS:
        return pixel_network(activations, widths[0], widths[-1], draw)
    pairs = list(pairwise(widths))
    weights = [1.5 * draw(after, before) / max(before, 1) ** 0.5 for before, after in pairs]
    return Network.mlp(weights, [0.3 * draw(after) for _, after in pairs], activations)


def posterior(
    B: int = 3,
    C: int = 2,
    *,
    widths: tuple[int, ...] = (3, 8, 6, 10),
    activations: str = "tanh,silu,identity",
    dtype: torch.dtype = torch.float64,
    device: str | None = None,
    seed: int = 0,
) -> Posterior:
    """Images, a decoder, and C latents for each image."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    shape = B * C, widths[0]
    z = torch.randn(shape, generator=generator, device="cpu", dtype=torch.float64)
    x = images(B, widths[-1], dtype=dtype, device=device, seed=seed).x
    net = network(widths, activations, dtype=dtype, device=device, seed=seed)
    return Posterior(_placed(z, device, dtype), x, net)
